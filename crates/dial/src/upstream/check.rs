//! Asking servers whether they are ready, before requests find out that they are not.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::health::{Health, Seen};

/// Time between two questions to a server.
const INTERVAL: Duration = Duration::from_secs(5);

/// A server that is doubted, or of which one more answer decides, is asked sooner, but not more often than this.
const SOONEST: Duration = Duration::from_secs(1);

/// Time for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the answer to `/readyz` says. Whoever refuses to tell is alive.
pub(crate) fn verdict(status: StatusCode) -> Seen {
    if status.is_server_error() {
        Seen::NotReady(status.as_u16())
    } else {
        Seen::Ready
    }
}

/// Asks until `stop` or until `ask` says that nobody is left to ask for.
pub(crate) async fn watch_over<F>(
    health: Arc<Health>,
    dice: Dice,
    stop: CancellationToken,
    mut ask: impl FnMut() -> Option<F>,
    on_silence: impl Fn(),
) where
    F: Future<Output = Seen>,
{
    while let Some(asking) = ask() {
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = timeout(TIMEOUT, asking) => answer,
        };
        let seen = answer.unwrap_or(Seen::Silent);
        let mut soonest = SOONEST;
        if seen == Seen::Silent {
            on_silence();
            // It was waited for already.
            soonest = Duration::ZERO;
        }
        health.see(seen);
        // Between 90 and 110 hundredths: many gateways ask the same servers.
        let hundredths = 90 + u32::try_from(dice.roll() % 21).unwrap_or_default();
        let doubted = async {
            if health.is_undecided() {
                return sleep(soonest).await;
            }
            sleep(SOONEST).await;
            health.doubted().await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(INTERVAL * hundredths / 100) => {}
            () = doubted => {}
        }
    }
}

/// What a question is asked with.
pub(crate) async fn shown(credential: Option<&crate::CurrentCredential>) -> Option<HeaderValue> {
    // Without it the question is asked anonymously, and an answer of 401 says enough.
    timeout(TIMEOUT, credential?.header()).await.ok()?.ok()?
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::Instant;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// What a question finds; `None` never answers.
    type Script = VecDeque<Option<Seen>>;

    struct Checked {
        health: Arc<Health>,
        asked: Arc<Mutex<Vec<Instant>>>,
        stop: CancellationToken,
        tasks: TaskTracker,
    }

    /// A server that answers by `script`, and then well.
    fn checked(script: Script) -> Checked {
        let health = Arc::new(Health::new("https://a:6443".parse().unwrap(), Dice::of(1)));
        let (asked, script) = (Arc::<Mutex<Vec<Instant>>>::default(), Mutex::new(script));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let times = Arc::clone(&asked);
        let ask = move || {
            times.lock().unwrap().push(Instant::now());
            let next = script.lock().unwrap().pop_front();
            Some(async move {
                match next.unwrap_or(Some(Seen::Ready)) {
                    Some(found) => found,
                    None => std::future::pending().await,
                }
            })
        };
        tasks.spawn(watch_over(
            Arc::clone(&health),
            Dice::of(2),
            stop.clone(),
            ask,
            || {},
        ));
        Checked {
            health,
            asked,
            stop,
            tasks,
        }
    }

    async fn pass(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[test]
    fn who_refuses_to_tell_is_alive_and_who_fails_is_not_ready() {
        for code in [200, 204, 301, 401, 403, 404, 429] {
            assert_eq!(
                verdict(StatusCode::from_u16(code).unwrap()),
                Seen::Ready,
                "{code}"
            );
        }
        for code in [500, 502, 503] {
            assert_eq!(verdict(StatusCode::from_u16(code).unwrap()), Seen::NotReady(code));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_asked_at_once_and_then_every_five_seconds_or_so() {
        let checked = checked(Script::new());
        pass(60).await;
        let asked = checked.asked.lock().unwrap().clone();
        assert!((11..=14).contains(&asked.len()), "{}", asked.len());
        for pair in asked.windows(2) {
            let between = (pair[1] - pair[0]).as_secs_f64();
            assert!((4.4..=5.6).contains(&between), "{between}");
        }
        checked.stop.cancel();
        checked.tasks.close();
        checked.tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn two_answers_put_a_server_aside_and_two_bring_it_back_the_second_a_second_after_the_first() {
        let bad = || Some(Seen::NotReady(500));
        let good = || Some(Seen::Ready);
        let checked = checked(Script::from([
            good(),
            bad(),
            bad(),
            good(),
            good(),
            bad(),
            good(),
        ]));
        pass(1).await;
        assert_eq!(checked.health.why_aside(), None);
        while checked.health.is_in() {
            sleep(Duration::from_millis(10)).await;
        }
        let why = checked.health.why_aside().unwrap();
        assert_eq!(why, "it answers 500 to /readyz");
        while !checked.health.is_in() {
            sleep(Duration::from_millis(10)).await;
        }
        let asked = checked.asked.lock().unwrap().clone();
        let between: Vec<u64> = asked
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        // 4.5 s to 5.5 s, and 1 s where the next answer decides.
        assert_eq!((asked.len(), between[1], between[3]), (5, 1, 1), "{between:?}");
        assert!(between[0] >= 4 && between[2] >= 4, "{between:?}");
        // One bad answer alone does nothing.
        pass(60).await;
        assert!(checked.health.is_in());
        assert!(checked.asked.lock().unwrap().len() > 12);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_two_seconds_twice_puts_a_server_aside_and_tells_who_waits() {
        let checked = checked(Script::from([None, Some(Seen::Ready), None, None]));
        let health = Arc::clone(&checked.health);
        let begin = Instant::now();
        health.hung().await;
        // Once it was an accident; then it is 2 s, 1 s until the next question, and 2 s.
        let last = checked.asked.lock().unwrap().last().copied().unwrap();
        assert_eq!(
            (begin.elapsed().as_secs() >= 10, last.elapsed().as_secs()),
            (true, 2)
        );
        assert_eq!(checked.health.why_aside().unwrap(), "it does not answer /readyz");
        pass(9).await;
        assert_eq!(checked.health.why_aside(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_is_looked_into_sooner() {
        let bad = || Some(Seen::NotReady(503));
        let checked = checked(Script::from([Some(Seen::Ready), bad(), bad()]));
        pass(2).await;
        assert_eq!(checked.asked.lock().unwrap().len(), 1);
        checked.health.doubt();
        pass(2).await;
        assert_eq!(checked.asked.lock().unwrap().len(), 3);
        assert!(!checked.health.is_in());
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_the_middle_of_a_question() {
        let checked = checked(Script::from([None]));
        pass(1).await;
        checked.stop.cancel();
        checked.tasks.close();
        let begin = Instant::now();
        checked.tasks.wait().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
