//! Several sinks as one.

use std::sync::Arc;

use crate::{Emission, Outcome, Refusals, Reservation, Reserve, Sink};

/// Hands every event to all its sinks, in order; an event is accepted when all accept it. The refusal
/// of one does not keep the event from the next.
///
/// Source: k8s.io/apiserver pkg/audit/union.go.
#[derive(Debug)]
pub struct Union(Vec<Arc<dyn Sink>>);

impl Union {
    /// The sinks as one; a single one is itself.
    #[must_use]
    pub fn of(mut sinks: Vec<Arc<dyn Sink>>) -> Arc<dyn Sink> {
        match (sinks.pop(), sinks.is_empty()) {
            (Some(single), true) => single,
            (last, _) => {
                sinks.extend(last);
                Arc::new(Self(sinks))
            }
        }
    }
}

/// One reservation per member.
struct Permits(Vec<Reservation>);

impl Sink for Union {
    fn reserve(&self, events: u32) -> Reserve {
        let answers: Vec<Reserve> = self.0.iter().map(|sink| sink.reserve(events)).collect();
        if answers.iter().all(|answer| matches!(answer, Reserve::Ready(_))) {
            let permits = answers.into_iter().map(|answer| match answer {
                Reserve::Ready(reservation) => reservation,
                Reserve::Refused(_) | Reserve::Wait(_) => Reservation::none(),
            });
            return Reserve::Ready(Reservation::with(Permits(permits.collect())));
        }
        Reserve::Wait(Box::pin(async move {
            let mut permits = Vec::with_capacity(answers.len());
            let mut refusals = Refusals::new();
            for answer in answers {
                let permit = match answer {
                    Reserve::Ready(reservation) => Ok(reservation),
                    Reserve::Refused(refusals) => Err(refusals),
                    Reserve::Wait(room) => room.await,
                };
                match permit {
                    Ok(permit) => permits.push(permit),
                    Err(more) => refusals.extend(more),
                }
            }
            if refusals.is_empty() {
                Ok(Reservation::with(Permits(permits)))
            } else {
                Err(refusals)
            }
        }))
    }

    fn submit(&self, emission: &Emission<'_>, reservation: &mut Reservation) -> Outcome {
        let mut outcome = Outcome::Accepted;
        let mut none = Reservation::none();
        let mut permits = reservation.permit_mut::<Permits>();
        for (at, sink) in self.0.iter().enumerate() {
            let permit = permits
                .as_mut()
                .and_then(|permits| permits.0.get_mut(at))
                .unwrap_or(&mut none);
            outcome = outcome.and(sink.submit(emission, permit));
        }
        outcome
    }

    fn submit_batch(&self, batch: Vec<Emission<'_>>) -> Outcome {
        // Encoded before it is shared, so that the members do not each do it; an error is their matter.
        batch.iter().for_each(|emission| {
            emission.line().ok();
        });
        self.0.iter().fold(Outcome::Accepted, |outcome, sink| {
            outcome.and(sink.submit_batch(batch.iter().map(Emission::share).collect()))
        })
    }

    fn name(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|sink| sink.name()).collect();
        format!("union[{}]", names.join(","))
    }

    fn shutdown(&self) {
        self.0.iter().for_each(|sink| sink.shutdown());
    }
}

/// Takes every event and keeps none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    fn reserve(&self, _: u32) -> Reserve {
        Reserve::Ready(Reservation::none())
    }

    fn submit(&self, _: &Emission<'_>, _: &mut Reservation) -> Outcome {
        Outcome::Accepted
    }

    fn name(&self) -> String {
        "discard".to_owned()
    }
}
