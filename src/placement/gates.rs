//! How much the jobs of one user may have at a time.

use crate::model::resources::Resources;

/// The most; no bound where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cap {
    /// Jobs that nodes have.
    pub jobs: Option<u64>,
    /// Cores of these in all.
    pub cores: Option<u64>,
}

/// What is in use of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    /// Jobs that nodes have.
    pub jobs: u64,
    /// Cores of these in all.
    pub cores: u64,
    /// Cores of those that run, and do not wait on their nodes: what is had.
    pub running: u64,
}

impl InUse {
    /// One that waited there runs.
    pub fn run(&mut self, job: &Resources) {
        self.running = self.running.saturating_add(job.cores);
    }

    /// One that ran does not any more.
    pub fn stop(&mut self, job: &Resources) {
        self.running = self.running.saturating_sub(job.cores);
    }

    /// One more.
    pub fn add(&mut self, job: &Resources) {
        self.jobs += 1;
        self.cores = self.cores.saturating_add(job.cores);
    }

    /// One less.
    pub fn sub(&mut self, job: &Resources) {
        self.jobs = self.jobs.saturating_sub(1);
        self.cores = self.cores.saturating_sub(job.cores);
    }
}

impl Cap {
    /// The most cores that one more job may have; none where there may be no more.
    pub fn left(&self, used: InUse) -> u64 {
        if self.jobs.is_some_and(|most| used.jobs >= most) {
            return 0;
        }
        self.cores.map_or(u64::MAX, |most| most.saturating_sub(used.cores))
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
            used if used >= most => format!("the user is at the cap of {most} cores"),
            used => format!("the user has {used} of at most {most} cores"),
        })
    }
}
