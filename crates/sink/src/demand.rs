//! What sinks want to see beyond the policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kaudit_event::{Level, Stage, StageSet};

/// What somebody besides the policy wants to see of every request: producers record as much, and every sink
/// is handed as much as it may see. Cheap to clone; all clones are one.
///
/// Without a demand, which is where it begins, asking for it is one load.
#[derive(Clone, Debug, Default)]
pub struct Demand(Arc<AtomicU8>);

impl Demand {
    /// Demands events of `level` at `stages`; [`Level::None`] demands nothing.
    pub fn set(&self, level: Level, stages: StageSet) {
        let level_bits = match level {
            Level::None => 0,
            Level::Metadata => 1,
            Level::Request => 2,
            Level::RequestResponse => 3,
        };
        let bits = if level == Level::None {
            0
        } else {
            stages.iter().fold(level_bits, |bits, stage| bits | bit(stage))
        };
        self.0.store(bits, Ordering::Release);
    }

    /// The level, and the stages at which there is to be an event.
    #[must_use]
    pub fn get(&self) -> (Level, StageSet) {
        let bits = self.0.load(Ordering::Acquire);
        if bits == 0 {
            return (Level::None, StageSet::EMPTY);
        }
        let level = match bits & 3 {
            0 => Level::None,
            1 => Level::Metadata,
            2 => Level::Request,
            _ => Level::RequestResponse,
        };
        let stages = Stage::ALL
            .into_iter()
            .filter(|stage| bits & bit(*stage) != 0)
            .collect();
        (level, stages)
    }
}

const fn bit(stage: Stage) -> u8 {
    match stage {
        Stage::RequestReceived => 4,
        Stage::ResponseStarted => 8,
        Stage::ResponseComplete => 16,
        Stage::Panic => 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_demanded_is_what_is_read() {
        let demand = Demand::default();
        assert_eq!(demand.get(), (Level::None, StageSet::EMPTY));
        for level in Level::ALL {
            for stages in 0..16_u8 {
                let of_bit = |(at, stage): (usize, Stage)| (stages & (1 << at) != 0).then_some(stage);
                let stages: StageSet = Stage::ALL.into_iter().enumerate().filter_map(of_bit).collect();
                demand.clone().set(level, stages);
                let expected = if level == Level::None {
                    (level, StageSet::EMPTY)
                } else {
                    (level, stages)
                };
                assert_eq!(demand.get(), expected);
            }
        }
    }
}
