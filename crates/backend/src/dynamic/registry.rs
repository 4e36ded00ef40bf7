//! The registered sinks: started, changed and drained while events flow.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use kaudit_event::{Event, Level, ManagedFields, StageSet};
use kaudit_sink::{Counters, Demand, Emission, Outcome, Reservation, Reserve, Sink};
use tokio::runtime::Handle;
use tracing::{error, info};

use super::{AuditSink, delegate};

/// Starts a sink's delegate; what it loses is counted in the counters, which are that sink's own.
pub type Start = dyn Fn(&AuditSink, &Arc<Counters>) -> Result<Arc<dyn Sink>, String> + Send + Sync;

/// Sinks that are registered and removed while the program runs.
///
/// A sink sees events of every request at its own level and stages, whatever the policy says; how much of
/// them producers have to record is set in a [`Demand`]. What these sinks lose is never the request's
/// problem.
///
/// Source: release-1.18 of k8s.io/apiserver plugin/pkg/audit/dynamic/dynamic.go. A delegate that is replaced
/// is drained after the new one took over, as there.
pub struct Dynamic {
    start: Box<Start>,
    demand: Demand,
    /// Submitters hold it for reading, so that nobody hands an event to a delegate that is being drained.
    sinks: RwLock<Vec<Arc<Registered>>>,
    draining: Mutex<Vec<Draining>>,
    /// What became of the events of sinks that are gone.
    past: Arc<Counters>,
}

struct Registered {
    object: AuditSink,
    delegate: Arc<dyn Sink>,
    counters: Arc<Counters>,
}

struct Draining {
    sink: Arc<Registered>,
    thread: JoinHandle<()>,
}

/// How a registered sink is.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "what there is to know")]
pub struct DynamicStatus {
    /// What it is.
    pub object: AuditSink,
    /// Its composition, in upstream's notation.
    pub composition: String,
    /// Whether it takes events.
    pub phase: Phase,
    /// What became of them.
    pub counters: Arc<Counters>,
}

/// Whether a sink takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it does or it does not")]
pub enum Phase {
    /// It takes events.
    Active,
    /// It was replaced or removed and delivers what it still holds.
    Draining,
}

/// Room in each sink that was there when the request arrived.
struct Permits(Vec<(Arc<Registered>, Reservation)>);

impl fmt::Debug for Dynamic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamic")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Dynamic {
    /// No sinks yet. Delegates are made by `start`; what all sinks together want to see is set in `demand`.
    #[must_use]
    pub fn new(demand: Demand, start: Box<Start>) -> Self {
        Self {
            start,
            demand,
            sinks: RwLock::new(Vec::new()),
            draining: Mutex::new(Vec::new()),
            past: Arc::default(),
        }
    }

    /// No sinks yet. Each will be a webhook behind a queue; deliveries are tasks of `runtime`, which has to
    /// outlive the shutdown.
    #[must_use]
    pub fn of_webhooks(demand: Demand, runtime: Handle) -> Self {
        let start =
            move |object: &AuditSink, counters: &Arc<Counters>| delegate::start(object, counters, &runtime);
        Self::new(demand, Box::new(start))
    }

    fn sinks(&self) -> RwLockReadGuard<'_, Vec<Arc<Registered>>> {
        self.sinks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `objects` the registered sinks. One that is there unchanged goes on undisturbed; a changed one
    /// starts anew before the old one is drained; one that is gone is drained. Returns by name why sinks
    /// could not be started; a changed one stays as it was then.
    pub fn replace(&self, objects: Vec<AuditSink>) -> Vec<(String, String)> {
        let mut failures = Vec::new();
        let mut next = Vec::with_capacity(objects.len());
        let present = self.sinks().clone();
        for object in objects {
            let same_name = present.iter().find(|sink| sink.object.name == object.name);
            if let Some(unchanged) = same_name.filter(|sink| sink.object == object) {
                next.push(Arc::clone(unchanged));
                continue;
            }
            let counters = Arc::new(Counters::default());
            match (self.start)(&object, &counters) {
                Ok(delegate) => {
                    let what = if same_name.is_some() { "changed" } else { "added" };
                    info!(sink = %object.name, url = %object.url, level = %object.level, "audit sink {what}");
                    next.push(Arc::new(Registered {
                        object,
                        delegate,
                        counters,
                    }));
                }
                Err(why) => {
                    next.extend(same_name.cloned());
                    failures.push((object.name, why));
                }
            }
        }
        let (level, stages) = demand_of(&next);
        // More is recorded before somebody wants it, and less only when nobody does any more.
        let (level_before, stages_before) = self.demand.get();
        self.demand
            .set(level.max(level_before), stages.union(stages_before));
        let previous = {
            let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *sinks, next.clone())
        };
        self.demand.set(level, stages);
        for gone in previous {
            if !next.iter().any(|kept| Arc::ptr_eq(kept, &gone)) {
                self.drain(gone);
            }
        }
        failures
    }

    fn drain(&self, sink: Arc<Registered>) {
        let name = sink.object.name.clone();
        info!(sink = %name, "audit sink is drained");
        let draining = Arc::clone(&sink);
        let spawned = std::thread::Builder::new()
            .name("audit-drain".to_owned())
            .spawn(move || draining.delegate.shutdown());
        let mut list = self.draining();
        match spawned {
            Ok(thread) => list.push(Draining { sink, thread }),
            Err(error) => {
                drop(list);
                error!(%error, sink = %name, "no thread to drain an audit sink: it is drained at once");
                sink.delegate.shutdown();
                self.past.absorb(&sink.counters);
            }
        }
    }

    /// How the sinks are, those that are being drained last.
    #[must_use]
    pub fn statuses(&self) -> Vec<DynamicStatus> {
        let status = |sink: &Registered, phase| DynamicStatus {
            object: sink.object.clone(),
            composition: format!("enforced<{}>", sink.delegate.name()),
            phase,
            counters: Arc::clone(&sink.counters),
        };
        let mut statuses: Vec<DynamicStatus> = self
            .sinks()
            .iter()
            .map(|sink| status(sink, Phase::Active))
            .collect();
        let draining = self.draining();
        statuses.extend(
            draining
                .iter()
                .map(|draining| status(&draining.sink, Phase::Draining)),
        );
        statuses
    }

    /// The counters of all sinks, and last the ones of those that are gone.
    #[must_use]
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        let statuses = self.statuses();
        let counters = statuses.into_iter().map(|status| status.counters);
        counters.chain([Arc::clone(&self.past)]).collect()
    }

    /// The sinks that are being drained, without those that are done.
    fn draining(&self) -> MutexGuard<'_, Vec<Draining>> {
        let mut list = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, left) = std::mem::take(&mut *list)
            .into_iter()
            .partition(|draining| draining.thread.is_finished());
        *list = left;
        done.into_iter().for_each(|draining| self.end(draining));
        list
    }

    /// Takes leave of a sink.
    fn end(&self, Draining { sink, thread }: Draining) {
        if thread.join().is_err() {
            error!(sink = %sink.object.name, "draining an audit sink panicked");
        }
        self.past.absorb(&sink.counters);
    }
}

/// The highest level and all stages that somebody wants.
fn demand_of(sinks: &[Arc<Registered>]) -> (Level, StageSet) {
    sinks
        .iter()
        .filter(|sink| sink.object.level > Level::None)
        .fold((Level::None, StageSet::EMPTY), |(level, stages), sink| {
            (level.max(sink.object.level), stages.union(sink.object.stages))
        })
}

impl AuditSink {
    /// What the sink sees of an event; `None` where that is nothing.
    fn sees(&self, event: &Event) -> Option<Event> {
        let stage = event.stage.known()?;
        let recorded = event.level.known()?;
        let level = self.level.min(recorded);
        (level > Level::None && self.stages.contains(stage))
            .then(|| event.at_level(level, ManagedFields::Keep))
    }
}

impl Sink for Dynamic {
    fn reserve(&self, events: u32) -> Reserve {
        let sinks = self.sinks();
        if sinks.is_empty() {
            return Reserve::Ready(Reservation::none());
        }
        let permits = sinks.iter().map(|sink| {
            let reservation = match sink.delegate.reserve(events) {
                Reserve::Ready(reservation) => reservation,
                // No request waits for such a sink, or fails for it.
                Reserve::Refused(_) | Reserve::Wait(_) => Reservation::none(),
            };
            (Arc::clone(sink), reservation)
        });
        Reserve::Ready(Reservation::with(Permits(permits.collect())))
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let sinks = self.sinks();
        let mut permits = reservation.permit_mut::<Permits>();
        let mut none = Reservation::none();
        for sink in sinks.iter() {
            let Some(event) = sink.object.sees(emission.event()) else {
                continue;
            };
            let permit = permits
                .as_mut()
                .and_then(|permits| permits.0.iter_mut().find(|(of, _)| Arc::ptr_eq(of, sink)))
                .map_or(&mut none, |(_, permit)| permit);
            // The delegate counts what it refuses.
            drop(sink.delegate.submit(&Emission::owned(event), permit));
        }
        Outcome::Accepted
    }

    fn name(&self) -> String {
        let names: Vec<String> = self
            .sinks()
            .iter()
            .map(|sink| format!("enforced<{}>", sink.delegate.name()))
            .collect();
        format!("dynamic[{}]", names.join(","))
    }

    /// Delivers what all sinks hold, at the same time. They stay registered: what comes later all the same is
    /// refused and counted by their delegates.
    fn shutdown(&self) {
        self.demand.set(Level::None, StageSet::EMPTY);
        let sinks = self.sinks().clone();
        std::thread::scope(|scope| {
            for sink in &sinks {
                let thread = std::thread::Builder::new().name("audit-drain".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, || sink.delegate.shutdown()) {
                    error!(%error, "no thread to drain an audit sink: it is drained before the next");
                    sink.delegate.shutdown();
                }
            }
        });
        let draining = std::mem::take(&mut *self.draining());
        draining.into_iter().for_each(|draining| self.end(draining));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kaudit_event::Stage;
    use kaudit_sink::conformance;
    use kaudit_sink::recording::Recording;

    use super::super::Surroundings;
    use super::*;

    fn object(name: &str, level: &str, stages: &str) -> AuditSink {
        let text = format!(
            "apiVersion: auditregistration.k8s.io/v1alpha1\nkind: AuditSink\nmetadata: {{name: {name}}}\nspec:\n  \
             policy: {{level: {level}, stages: [{stages}]}}\n  webhook: {{clientConfig: {{url: 'https://{name}'}}}}\n"
        );
        AuditSink::parse_all(&text, Surroundings::Outside)
            .remove(0)
            .unwrap()
    }

    /// A recording whose shutdown waits until it is let go.
    #[derive(Debug, Default)]
    struct Delegate {
        recording: Recording,
        is_shut_down: Mutex<bool>,
        let_go: (Mutex<bool>, Condvar),
        waits: bool,
    }

    impl Delegate {
        fn lines(&self) -> Vec<serde_json::Value> {
            let lines = self.recording.lines();
            lines
                .iter()
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect()
        }
    }

    impl Sink for Delegate {
        fn reserve(&self, events: u32) -> Reserve {
            self.recording.reserve(events)
        }

        fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
            assert!(
                !*self.is_shut_down.lock().unwrap(),
                "an event came after the shutdown began"
            );
            self.recording.submit(emission, reservation)
        }

        fn name(&self) -> String {
            "delegate".to_owned()
        }

        fn shutdown(&self) {
            *self.is_shut_down.lock().unwrap() = true;
            if self.waits {
                let guard = self.let_go.0.lock().unwrap();
                drop(self.let_go.1.wait_while(guard, |let_go| !*let_go).unwrap());
            }
        }
    }

    type Started = Arc<Mutex<Vec<(String, Arc<Delegate>)>>>;

    fn dynamic(demand: &Demand, waits: bool) -> (Dynamic, Started) {
        let started = Started::default();
        let list = Arc::clone(&started);
        let start = move |object: &AuditSink, _: &Arc<Counters>| {
            if object.url.contains("broken") {
                return Err("it is broken".to_owned());
            }
            let delegate = Arc::new(Delegate {
                waits,
                ..Delegate::default()
            });
            list.lock()
                .unwrap()
                .push((object.name.clone(), Arc::clone(&delegate)));
            Ok(delegate as Arc<dyn Sink>)
        };
        (Dynamic::new(demand.clone(), Box::new(start)), started)
    }

    fn event(stage: Stage) -> Event {
        let body = |text: &'static str| Some(kaudit_event::Unknown::json(text.into()));
        Event {
            level: Level::RequestResponse.into(),
            stage: stage.into(),
            request_object: body("{}"),
            response_object: body("{}"),
            ..conformance::event(0, 0)
        }
    }

    fn submit(dynamic: &Dynamic, stage: Stage) {
        let event = event(stage);
        let Reserve::Ready(mut reservation) = dynamic.reserve(1) else {
            panic!("it waits for nobody")
        };
        assert!(
            dynamic
                .submit(&Emission::new(&event), &mut reservation)
                .is_accepted()
        );
    }

    #[test]
    fn each_sink_sees_its_own_level_and_stages() {
        let demand = Demand::default();
        let (dynamic, started) = dynamic(&demand, false);
        assert!(
            dynamic
                .replace(vec![
                    object("meta", "Metadata", "ResponseComplete"),
                    object("request", "Request", "RequestReceived, ResponseComplete"),
                    object("off", "None", ""),
                ])
                .is_empty()
        );
        assert_eq!(
            demand.get(),
            (
                Level::Request,
                StageSet::EMPTY
                    .with(Stage::RequestReceived)
                    .with(Stage::ResponseComplete)
            )
        );
        submit(&dynamic, Stage::RequestReceived);
        submit(&dynamic, Stage::ResponseComplete);
        submit(&dynamic, Stage::Panic);
        let started = started.lock().unwrap();
        let meta = started[0].1.lines();
        assert_eq!(meta.len(), 1);
        assert_eq!(
            (&meta[0]["level"], meta[0].get("requestObject")),
            (&"Metadata".into(), None)
        );
        let request = started[1].1.lines();
        assert_eq!(request.len(), 2);
        assert!(request[1].get("requestObject").is_some() && request[1].get("responseObject").is_none());
        assert!(started[2].1.lines().is_empty());
        assert_eq!(
            dynamic.name(),
            "dynamic[enforced<delegate>,enforced<delegate>,enforced<delegate>]"
        );
    }

    #[test]
    fn a_changed_sink_starts_before_the_old_one_is_drained_and_an_unchanged_one_goes_on() {
        let demand = Demand::default();
        let (dynamic, started) = dynamic(&demand, true);
        dynamic.replace(vec![
            object("a", "Metadata", "Panic"),
            object("b", "Metadata", "Panic"),
        ]);
        submit(&dynamic, Stage::Panic);
        dynamic.replace(vec![
            object("a", "Request", "Panic"),
            object("b", "Metadata", "Panic"),
        ]);
        submit(&dynamic, Stage::Panic);
        let started: Vec<_> = started.lock().unwrap().clone();
        let counts: Vec<(&str, usize)> = started
            .iter()
            .map(|(name, delegate)| (name.as_str(), delegate.lines().len()))
            .collect();
        assert_eq!(counts, [("a", 1), ("b", 2), ("a", 1)]);
        let phases: Vec<(String, Phase)> = dynamic
            .statuses()
            .into_iter()
            .map(|status| (status.object.name, status.phase))
            .collect();
        assert_eq!(
            phases,
            [
                ("a".to_owned(), Phase::Active),
                ("b".to_owned(), Phase::Active),
                ("a".to_owned(), Phase::Draining)
            ]
        );
        for (_, delegate) in &started {
            *delegate.let_go.0.lock().unwrap() = true;
            delegate.let_go.1.notify_all();
        }
        dynamic.shutdown();
        assert_eq!(dynamic.statuses().len(), 2, "nothing drains any more");
        assert_eq!(demand.get().0, Level::None);
        assert!(
            started
                .iter()
                .all(|(_, delegate)| *delegate.is_shut_down.lock().unwrap())
        );
    }

    #[test]
    fn a_sink_that_cannot_be_started_is_named_and_a_changed_one_stays_as_it_was() {
        let (dynamic, started) = dynamic(&Demand::default(), false);
        dynamic.replace(vec![object("a", "Metadata", "Panic")]);
        let mut changed = object("a", "Metadata", "Panic");
        changed.url = "https://broken".to_owned();
        let mut added = object("b", "Metadata", "Panic");
        added.url = "https://broken".to_owned();
        let failures = dynamic.replace(vec![changed, added]);
        assert_eq!(
            failures,
            [
                ("a".to_owned(), "it is broken".to_owned()),
                ("b".to_owned(), "it is broken".to_owned())
            ]
        );
        submit(&dynamic, Stage::Panic);
        assert_eq!(started.lock().unwrap()[0].1.lines().len(), 1);
    }

    #[test]
    fn no_event_is_lost_or_comes_late_while_sinks_change() {
        let (dynamic, started) = dynamic(&Demand::default(), false);
        dynamic.replace(vec![object("a", "Metadata", "Panic")]);
        let submitted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        submit(&dynamic, Stage::Panic);
                        submitted.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for round in 0..50 {
                let level = if round % 2 == 0 { "Request" } else { "Metadata" };
                dynamic.replace(vec![object("a", level, "Panic")]);
            }
        });
        dynamic.shutdown();
        let kept: usize = started
            .lock()
            .unwrap()
            .iter()
            .map(|(_, sink)| sink.lines().len())
            .sum();
        assert_eq!(kept, submitted.load(Ordering::Relaxed));
    }
}
