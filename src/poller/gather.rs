//! Ends of tasks that wait to be recorded together.
//!
//! A card is read whole whenever something happens to it, so recording each end of an array's
//! tasks by itself would cost the square of their number. Nothing is lost by waiting: the nodes
//! keep what they reported until they are told that it is safe here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::attempts::Said;
use crate::model::run_status::{RunState, RunStatus};

/// An array's card is recorded to for at most one part in so many of the time.
const SHARE: u32 = 50;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Reports that wait, by job.
#[derive(Debug, Default)]
pub struct Gathered {
    jobs: BTreeMap<u64, Gathering>,
}

#[derive(Debug)]
struct Gathering {
    /// Until then.
    until: Instant,
    reports: Vec<Said>,
}

impl Gathered {
    /// Takes in reports; returns those that are to be recorded now, in order for each job.
    pub fn admit(&mut self, reports: Vec<Said>, now: Instant) -> Vec<Said> {
        let mut ready = Vec::new();
        for report in reports {
            match self.jobs.get_mut(&report.id.job) {
                Some(gathering) if is_progress(&report.status) && now < gathering.until => {
                    gathering.reports.push(report);
                }
                Some(gathering) => {
                    ready.append(&mut gathering.reports);
                    ready.push(report);
                }
                None => ready.push(report),
            }
        }
        for gathering in self.jobs.values_mut().filter(|gathering| gathering.until <= now) {
            ready.append(&mut gathering.reports);
        }
        self.jobs.retain(|_, gathering| gathering.until > now); // of those none waits
        ready
    }

    /// Notes that ends of this array's tasks were recorded, which took so long.
    pub fn recorded(&mut self, job: u64, took: Duration, now: Instant) {
        let until = now + took.saturating_mul(SHARE).min(LONGEST);
        let gathering = self.jobs.entry(job);
        gathering.or_insert(Gathering { until, reports: Vec::new() }).until = until;
    }

    /// Forgets a job that has ended.
    pub fn forget(&mut self, job: u64) {
        self.jobs.remove(&job);
    }

    /// When something is to be recorded.
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.jobs.values().filter(|gathering| !gathering.reports.is_empty());
        waiting.map(|gathering| gathering.until).min()
    }
}

/// Whether a report tells no more than that tasks of a range that goes on have ended.
fn is_progress(report: &RunStatus) -> bool {
    report.state == RunState::Running && report.tasks.as_ref().is_some_and(|t| !t.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::ids::NodejobId;
    use crate::model::outcome::Outcome;
    use crate::model::report::Report;
    use crate::model::tasks::TaskSet;

    #[test]
    fn progress_waits_and_the_end_takes_it_along() {
        let id = NodejobId::new("c", 7, 1).unwrap();
        let said = |status| Said {
            node: "n".into(),
            id: id.clone(),
            proven: true,
            status: Box::new(status),
        };
        let running = RunStatus::running(1, 1, "b").of("c-7.1");
        let progress = |task| {
            let mut report = Report::default();
            report.add(&TaskSet::one(task), &Outcome::exit(0));
            said(RunStatus { tasks: Some(report), ..running.clone() })
        };
        let end = said(RunStatus::stopped(&Outcome::exit(0)).of("c-7.1"));
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        assert_eq!(gathered.admit(vec![progress(0)], now).len(), 1);
        gathered.recorded(7, Duration::from_millis(2), now);
        assert!(gathered.admit(vec![progress(1)], now).is_empty());
        assert_eq!(gathered.due(), Some(now + Duration::from_millis(100)));
        let both = gathered.admit(vec![end], now);
        assert_eq!(both[0], progress(1));
        assert_eq!(both.len(), 2);
        assert!(gathered.admit(vec![progress(2)], now).is_empty());
        let later = now + Duration::from_millis(100);
        assert_eq!(gathered.admit(Vec::new(), later), [progress(2)]);
        assert_eq!(gathered.due(), None);
    }
}
