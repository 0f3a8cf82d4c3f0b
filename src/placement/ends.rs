//! When what is in use of a node will be free again, as far as that is known.

use std::collections::BTreeMap;

use crate::model::resources::Resources;

/// Milliseconds of a clock that nobody sets.
pub type Millis = u64;

/// Nobody knows when.
pub const NEVER: Millis = Millis::MAX;

/// What should have ended so long ago, and has not, ends nobody knows when.
const LATE_AT_MOST: Millis = 60_000;

/// What ends when; what ends nobody knows when is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends(BTreeMap<Millis, Resources>);

impl Ends {
    /// Nothing of which that is known.
    pub const NONE: Ends = Ends(BTreeMap::new());

    /// So much more will have ended by then.
    pub(super) fn add(&mut self, until: Millis, job: &Resources) {
        if until != NEVER {
            self.0.entry(until).or_insert(Resources::NONE).add(job);
        }
    }

    /// It is there no more.
    pub(super) fn sub(&mut self, until: Millis, job: &Resources) {
        if let Some(all) = self.0.get_mut(&until) {
            all.sub(job);
            if *all == Resources::NONE {
                self.0.remove(&until);
            }
        }
    }

    /// When there will be room for a job in `total`, of which `used` is in use: the first end with which it
    /// would fit, and not before now; [`NEVER`] where nobody knows.
    pub(super) fn room_for(
        &self,
        job: &Resources,
        (total, used): (&Resources, &Resources),
        now: Millis,
    ) -> Millis {
        let mut used = used.clone();
        if has_room(job, total, &used) {
            return now;
        }
        for (until, ends) in self.0.range(now.saturating_sub(LATE_AT_MOST)..) {
            used.sub(ends);
            if has_room(job, total, &used) {
                return now.max(*until);
            }
        }
        NEVER
    }

    /// What will have ended by then, of all whose ends are known.
    pub(super) fn by(&self, then: Millis) -> Resources {
        let mut ended = Resources::NONE;
        self.0.range(..=then).for_each(|(_, ends)| ended.add(ends));
        ended
    }
}

/// Whether a job fits beside what is in use. What it does not ask for there may be none of.
pub(super) fn has_room(job: &Resources, total: &Resources, used: &Resources) -> bool {
    let fits = |asked: u64, total: u64, used: u64| {
        asked == 0 || used.checked_add(asked).is_some_and(|sum| sum <= total)
    };
    fits(job.cores, total.cores, used.cores)
        && fits(job.memory, total.memory, used.memory)
        && job
            .others
            .iter()
            .all(|(name, asked)| fits(asked, total.others.get(name), used.others.get(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_with_the_first_end_that_makes_it() {
        let total = Resources::of(4, 10).and("gpus", 1);
        let mut ends = Ends::NONE;
        let (one, gpu) = (Resources::of(1, 6), Resources::of(1, 0).and("gpus", 1));
        ends.add(50, &one);
        ends.add(70, &gpu);
        let mut used = one.plus(&gpu);
        used.add(&Resources::of(1, 0)); // for nobody knows how long
        let when = |asked: &Resources, now| ends.room_for(asked, (&total, &used), now);
        assert_eq!(when(&Resources::of(1, 4), 7), 7);
        assert_eq!(when(&Resources::of(1, 5), 7), 50);
        assert_eq!(when(&Resources::of(1, 5), 60), 60);
        assert_eq!(when(&Resources::of(1, 5), 60_050), 60_050, "it is late");
        assert_eq!(when(&Resources::of(1, 5), 60_080), NEVER, "so late that nobody knows");
        assert_eq!(when(&gpu, 0), 70);
        assert_eq!(when(&Resources::of(3, 10), 0), 70);
        assert_eq!(when(&Resources::of(4, 0), 0), NEVER);
        assert_eq!(ends.by(69), one);
        ends.sub(50, &one);
        ends.sub(NEVER, &one);
        assert_eq!(ends.by(NEVER), gpu);
    }

    #[test]
    fn who_asks_for_none_of_it_does_not_mind_that_there_is_too_little() {
        let total = Resources::of(4, 10);
        let used = Resources::of(1, 20);
        assert!(has_room(&Resources::of(3, 0), &total, &used));
        assert!(!has_room(&Resources::of(3, 1), &total, &used));
        assert!(!has_room(&Resources::of(u64::MAX, 0), &total, &used));
    }
}
