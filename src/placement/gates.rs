//! How much the jobs of one user, or of a partition, may have at a time.

use crate::model::partition::Partition;
use crate::model::resources::Resources;
use crate::settings::Settings;

/// The most; no bound where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cap {
    /// Jobs that nodes have.
    pub jobs: Option<u64>,
    /// Cores of these in all.
    pub cores: Option<u64>,
}

/// What is in use of it. Exact, whatever jobs ask for: what is added may be taken away again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    /// Jobs that nodes have.
    pub jobs: u64,
    /// Cores of these in all.
    pub cores: u128,
    /// Cores of those that run, and do not wait on their nodes: what is had.
    pub running: u128,
}

impl InUse {
    /// One that waited there runs.
    pub fn run(&mut self, job: &Resources) {
        self.running += u128::from(job.cores);
    }

    /// One that ran does not any more.
    pub fn stop(&mut self, job: &Resources) {
        self.running = self.running.saturating_sub(job.cores.into());
    }

    /// One more.
    pub fn add(&mut self, job: &Resources) {
        self.jobs += 1;
        self.cores += u128::from(job.cores);
    }

    /// One less.
    pub fn sub(&mut self, job: &Resources) {
        self.jobs = self.jobs.saturating_sub(1);
        self.cores = self.cores.saturating_sub(job.cores.into());
    }
}

/// So much, or the most that can be said.
pub(super) fn within_u64(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

impl Cap {
    /// Nothing may be had.
    pub(super) const NOTHING: Cap = Cap { jobs: Some(0), cores: Some(0) };

    /// As these settings have it.
    pub fn of(settings: &Settings) -> Cap {
        Cap { jobs: settings.max_jobs_per_user, cores: settings.max_cores_per_user }
    }

    /// The most cores that one more job may have; none where there may be no more.
    pub fn left(&self, used: InUse) -> u64 {
        if self.jobs.is_some_and(|most| used.jobs >= most) {
            return 0;
        }
        self.cores.map_or(u64::MAX, |most| most.saturating_sub(within_u64(used.cores)))
    }

    /// Why a job that asks for this will never be placed, for a person.
    fn never(&self, whose: &Whose, cores: u64) -> Option<String> {
        let most = self.cores.filter(|most| cores > *most)?;
        Some(match whose {
            Whose::User => format!("a user may have {most} cores at most at a time"),
            Whose::Partition(name) => {
                format!("partition {name} may have {most} cores at most at a time")
            }
            Whose::UserIn(name) => {
                format!("a user may have {most} cores at most at a time in partition {name}")
            }
        })
    }

    /// Why a job that asks for this has to wait for others, for a person; nothing where it has not.
    fn objection(&self, whose: &Whose, used: InUse, cores: u64) -> Option<String> {
        if let Some(never) = self.never(whose, cores) {
            return Some(never);
        }
        let (subject, place) = match whose {
            Whose::User => ("the user".to_string(), String::new()),
            Whose::Partition(name) => (format!("partition {name}"), String::new()),
            Whose::UserIn(name) => ("the user".to_string(), format!(" in partition {name}")),
        };
        if let Some(most) = self.jobs.filter(|most| used.jobs >= *most) {
            return Some(format!("{subject} is at the cap of {most} jobs at a time{place}"));
        }
        let most = self.cores.filter(|_| cores > self.left(used))?;
        Some(match used.cores {
            used if used >= most.into() => {
                format!("{subject} is at the cap of {most} cores{place}")
            }
            used => format!("{subject} has {used} of at most {most} cores{place}"),
        })
    }
}

/// Whose cap it is.
enum Whose<'p> {
    User,
    /// Of all jobs of the partition of this name.
    Partition(&'p str),
    /// Of one user's jobs in it.
    UserIn(&'p str),
}

/// All that bounds the jobs of a user, in a partition where they are for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of all of the user's jobs.
    pub user: Cap,
    /// Of all jobs of the partition.
    pub partition: Cap,
    /// Of the user's in it.
    pub user_in: Cap,
}

/// What is in use of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses {
    /// By all of the user's jobs.
    pub user: InUse,
    /// By all jobs of the partition.
    pub partition: InUse,
    /// By the user's in it.
    pub user_in: InUse,
}

impl Caps {
    /// By the rules of a partition, where each user may have so much in all.
    pub fn of(user: Cap, partition: Option<&Partition>) -> Caps {
        let Some(partition) = partition else { return Caps { user, ..Caps::default() } };
        let (jobs, cores) = (partition.max_jobs, partition.max_cores);
        let user_in =
            Cap { jobs: partition.max_jobs_per_user, cores: partition.max_cores_per_user };
        Caps { user, partition: Cap { jobs, cores }, user_in }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Caps::default()
    }

    /// The most cores that one more job may have; none where there may be no more.
    pub fn left(&self, used: Uses) -> u64 {
        let user = self.user.left(used.user).min(self.user_in.left(used.user_in));
        user.min(self.partition.left(used.partition))
    }

    fn each<'p>(&self, used: Uses, name: &'p str) -> [(Whose<'p>, Cap, InUse); 3] {
        [
            (Whose::Partition(name), self.partition, used.partition),
            (Whose::UserIn(name), self.user_in, used.user_in),
            (Whose::User, self.user, used.user),
        ]
    }

    /// Why a job of this partition that asks for this will never be placed, for a person.
    pub fn never(&self, partition: Option<&str>, cores: u64) -> Option<String> {
        let all = self.each(Uses::default(), partition.unwrap_or_default());
        all.iter().find_map(|(whose, cap, _)| cap.never(whose, cores))
    }

    /// Why one has to wait for others, for a person; nothing where it has not.
    pub fn objection(&self, partition: Option<&str>, used: Uses, cores: u64) -> Option<String> {
        let never = self.never(partition, cores);
        never.or_else(|| {
            let all = self.each(used, partition.unwrap_or_default());
            all.iter().find_map(|(whose, cap, used)| cap.objection(whose, *used, cores))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_exact_whatever_jobs_ask_for() {
        let (all, one) = (Resources::of(u64::MAX, 0), Resources::of(1, 0));
        let mut used = InUse::default();
        for job in [&all, &all, &one] {
            used.add(job);
            used.run(job);
        }
        let cap = Cap { jobs: None, cores: Some(10) };
        assert_eq!(cap.left(used), 0);
        for _ in 0..2 {
            used.sub(&all);
            used.stop(&all);
        }
        assert_eq!(used, InUse { jobs: 1, cores: 1, running: 1 });
        assert_eq!(cap.left(used), 9);
        let caps = Caps { user: cap, ..Caps::default() };
        let said = caps.objection(None, Uses { user: used, ..Uses::default() }, 10);
        assert_eq!(said.as_deref(), Some("the user has 1 of at most 10 cores"));
    }

    #[test]
    fn the_least_that_is_left_counts_and_says_why() {
        let cap = |jobs, cores| Cap { jobs: Some(jobs), cores: Some(cores) };
        let caps = Caps { user: cap(9, 9), partition: cap(4, 8), user_in: cap(2, 4) };
        let in_use = |jobs, cores| InUse { jobs, cores, running: 0 };
        let uses = |user, partition, user_in| Uses { user, partition, user_in };
        let none = InUse::default();
        for (used, cores, left, why) in [
            (uses(none, none, none), 4, 4, ""),
            (
                uses(none, none, none),
                5,
                4,
                "a user may have 4 cores at most at a time in partition p",
            ),
            (uses(none, none, none), 9, 4, "partition p may have 8 cores at most at a time"),
            (uses(none, in_use(3, 8), none), 1, 0, "partition p is at the cap of 8 cores"),
            (uses(none, in_use(4, 6), none), 1, 0, "partition p is at the cap of 4 jobs at a time"),
            (uses(none, in_use(2, 6), none), 3, 2, "partition p has 6 of at most 8 cores"),
            (
                uses(none, none, in_use(2, 2)),
                1,
                0,
                "the user is at the cap of 2 jobs at a time in partition p",
            ),
            (
                uses(none, none, in_use(1, 4)),
                1,
                0,
                "the user is at the cap of 4 cores in partition p",
            ),
            (
                uses(none, none, in_use(1, 3)),
                2,
                1,
                "the user has 3 of at most 4 cores in partition p",
            ),
            (uses(in_use(1, 9), none, none), 1, 0, "the user is at the cap of 9 cores"),
        ] {
            assert_eq!(caps.left(used), left, "{used:?}");
            let said = caps.objection(Some("p"), used, cores).unwrap_or_default();
            assert_eq!(said, why);
            assert_eq!(said.is_empty(), cores <= left);
        }
        assert!(Caps::of(Cap::default(), Some(&Partition::default())).is_none());
    }
}
