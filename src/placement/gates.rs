//! How much the jobs of one user may have at a time.

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
    pub fn never(&self, cores: u64) -> Option<String> {
        let most = self.cores.filter(|most| cores > *most)?;
        Some(format!("a user may have {most} cores at most at a time"))
    }

    /// Why a job that asks for this has to wait for others of its user, for a person; nothing where it has not.
    pub fn objection(&self, used: InUse, cores: u64) -> Option<String> {
        if let Some(never) = self.never(cores) {
            return Some(never);
        }
        if let Some(most) = self.jobs.filter(|most| used.jobs >= *most) {
            return Some(format!("the user is at the cap of {most} jobs at a time"));
        }
        let most = self.cores.filter(|_| cores > self.left(used))?;
        Some(match used.cores {
            used if used >= most.into() => format!("the user is at the cap of {most} cores"),
            used => format!("the user has {used} of at most {most} cores"),
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
        assert_eq!(cap.objection(used, 10).as_deref(), Some("the user has 1 of at most 10 cores"));
    }
}
