//! Which jobs are next: the head of the queue as a supervisor reads it, which may be another's by the time that it
//! claims.

use std::io::Read;

use serde_json::{Map, Value};

use super::contact;
use super::status::{self, Unfit};
use super::supervisor::{Claimed, Supervisor};
use crate::board::files;
use crate::board::lock::Lock;
use crate::board::runs::REFUSED;
use crate::error::{At, Kind, Result};
use crate::model::ids::RunId;
use crate::model::request::Spec;

/// How many waiting jobs a supervisor remembers, so as not to read the queue for each.
const REMEMBERED: usize = 1024;

impl Supervisor<'_> {
    /// Whether a job that was picked still waits. What a crash left of its acceptance is set aside.
    pub(super) fn may_be_claimed(&self, held: &Lock, job: &Claimed) -> Result<bool> {
        let id = &job.id;
        if !self.runs.is_queued_as(id, &job.request)? {
            return Ok(false); // somebody else has it, or another has come under its id
        }
        if self.runs.is_here(id)? {
            return Ok(true);
        }
        self.set_aside(held, id)?; // its acceptance died between its two names
        Ok(false)
    }

    /// The jobs at the head of the queue, as many as may be claimed and need the same; or one that
    /// this node can never run and gives back. Without the lock: they may be gone by the time they are
    /// claimed.
    pub(super) fn pick(&mut self, unreadable: &mut Vec<RunId>) -> Result<Vec<Claimed>> {
        if self.queue.is_empty() {
            self.remember()?;
        }
        let mut jobs: Vec<Claimed> = Vec::new();
        while let Some(next) = self.queue.front() {
            if let Some(first) = jobs.first() {
                // More than one at a time only where all slots together have far more to do.
                let slots = (self.total.resources.cores / first.spec.resources.cores.max(1)).max(1);
                let slots = usize::try_from(slots).unwrap_or(usize::MAX);
                if jobs.len() >= self.batch.min(self.queue.len() / slots.saturating_mul(2)) {
                    break;
                }
            }
            let id = next.id.clone();
            match self.read_waiting(&id) {
                Ok(Found::Gone) => {}
                Ok(Found::Damaged) => unreadable.push(id),
                Ok(Found::Job(job)) if job.unfit.is_none() => {
                    if jobs.first().is_some_and(|f| f.spec.resources != job.spec.resources) {
                        break;
                    }
                    jobs.push(*job);
                }
                // Its head finds another node; one that no head gave waits for other settings.
                Ok(Found::Job(job)) if id.is_a_heads() => {
                    if jobs.is_empty() {
                        self.queue.pop_front();
                        jobs.push(*job);
                    }
                    break;
                }
                Ok(Found::Job(_)) => self.passed_over.push(id),
                Ok(Found::Unsure) => {
                    self.have_gpus_found();
                    self.passed_over.push(id); // until that is known
                }
                Err(error) => {
                    eprintln!("processor: {id} is not started: {}", error.message);
                    self.passed_over.push(id); // for the next supervisor to read
                }
            }
            self.queue.pop_front();
        }
        Ok(jobs)
    }

    fn read_waiting(&self, id: &RunId) -> Result<Found> {
        let path = self.runs.queue_path(id);
        let Some(mut request) = files::gone_is_fine(files::open(&path)).at(&path)? else {
            return Ok(Found::Gone);
        };
        let mut bytes = Vec::new();
        request.read_to_end(&mut bytes).at(&path)?;
        let Ok(map) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
            return Ok(Found::Damaged);
        };
        if map.contains_key(REFUSED) {
            return Ok(Found::Damaged); // killed while it waited, by somebody who died at it
        }
        let (spec, newer) = Spec::of_run(&map);
        let root = self.runs.root();
        let heard_since = contact::left(root, id)?.and_then(|heard| heard.since);
        let late = contact::overdue(root, id, heard_since)?;
        let unfit = match status::unfit(&spec, newer, &self.total) {
            Some(Unfit::NotKnown(_)) => return Ok(Found::Unsure),
            Some(Unfit::Never(why)) => Some(why),
            None => late.map(|(why, _)| why),
        };
        let id = id.clone();
        Ok(Found::Job(Box::new(Claimed { id, spec, request, unfit, heard_since })))
    }

    /// Whether a job waits that this process has not passed over.
    pub(super) fn others_wait(&self) -> Result<bool> {
        let waiting = self.runs.waiting(1 + self.passed_over.len())?;
        Ok(waiting.iter().any(|job| !self.passed_over.contains(&job.id)))
    }

    pub(super) fn remember(&mut self) -> Result<()> {
        self.learn_gpus();
        self.queue = self.runs.waiting(REMEMBERED + self.passed_over.len())?.into();
        self.queue.retain(|job| !self.passed_over.contains(&job.id));
        Ok(())
    }

    /// What the queue has and cannot be read was never accepted: a crash or power loss came
    /// before anyone was told. It is moved out of the way, for a while still to be looked at. Of one
    /// that will never be started only the link goes.
    pub(super) fn set_aside(&self, _held: &Lock, id: &RunId) -> Result<()> {
        let job = self.runs.job_dir(id);
        let is_refused = self.runs.request(id).is_err_and(|error| error.kind == Kind::Gone);
        if !is_refused && self.runs.is_here(id)? {
            let aside = self.runs.tmp_dir().join(format!("{id}.unreadable"));
            files::remove_tree(&aside)?;
            files::rename_new(&job, &aside)?;
        }
        files::remove(&self.runs.queue_path(id))
    }
}

/// What a link in the queue leads to.
enum Found {
    Gone,
    /// Nothing that a program has written so, or nothing that is to be started.
    Damaged,
    /// It is not known yet whether it can run here.
    Unsure,
    Job(Box<Claimed>),
}
