//! Running one job: its programs in order, and its end.

use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use super::capture::Capture;
use super::child::{Child, Gate, Program};
use super::ending::TOLD_TO_END;
use super::pace::{AGAIN, KEEP_CLAIMS, REPORT_RUNNING};
use super::phase::{Happening, Phase};
use super::remains::{self, Remains};
use super::running::Running;
use super::running_range::most_log;
use super::supervisor::{Claimed, Supervisor};
use super::surroundings::{self, Around};
use super::{lost, wishes};
use crate::board::acceptance::is_refused;
use crate::board::links;
use crate::board::lock;
use crate::board::runs::Stream;
use crate::board::story::Story;
use crate::clock;
use crate::error::{At, Result};
use crate::model::ids::RunId;
use crate::model::outcome::Outcome;
use crate::model::request::Spec;
use crate::model::request_fields::Output;
use crate::model::resources::human_size;
use crate::model::run_status::{RunStatus, known_answer};
use crate::model::usage::Usage;

/// How a job, or a task, ran.
pub(super) struct Ran {
    pub outcome: Outcome,
    /// The line about its start, if it was started.
    pub begun: Option<RunStatus>,
    pub used: Usage,
}

impl Supervisor<'_> {
    /// Runs a claimed job to its end and records it. An error means that nothing was started.
    pub(super) fn run_job(&mut self, job: Claimed) -> Result<()> {
        // Whoever finds it locked sees that the job runs; probes hold it only for an instant.
        let path = self.runs.request_path(&job.id);
        lock::wait_for(&job.request, &path)?;
        if is_refused(&job.request).at(&path)? {
            self.proofs.remove(&job.id); // killed since it was claimed, on a full disk
            return Ok(());
        }
        if let Some(why) = &job.unfit
            && self.runs.last_line(&job.id)?.is_none()
            && wishes::asked(&self.runs, &job.id)?.is_none()
        {
            return self.give_back(&job, why);
        }
        let mut story = self.runs.story(&job.id)?;
        let before = known_answer(&job.id, &story.read()?)?;
        let mut captures = Vec::new();
        let mut report = None;
        let mut used = None;
        let (outcome, begun) = match before {
            Some(known) if known.outcome().is_some() => {
                // Killed while it waited, by somebody who may have died before the sync.
                self.ended_sync.merge(self.runs.sync_of_end(&job.id)?);
                self.ended.push(known.of(&job.id));
                self.ended_since.get_or_insert_with(Instant::now);
                return Ok(());
            }
            // Its supervisor is dead, or it would hold the lock. What was started never is again,
            // however it came to wait.
            Some(known) if job.spec.tasks.is_some() => {
                let lost = remains::end(&self.runs, &job.id, Remains::Unknown)?;
                let kills = wishes::all(&self.runs, &job.id, self.slot.as_ref(), true)?;
                let sync = &mut self.ended_sync;
                let end = lost::range_end(&self.runs, &job.id, Some(&known), &lost, &kills, sync)?;
                report = end.tasks.clone();
                (
                    end.outcome().unwrap_or_else(|| Outcome::lost_unproven("its end is missing")),
                    Some(known),
                )
            }
            Some(known) => {
                let lost = remains::end(&self.runs, &job.id, Remains::Unknown)?;
                let kills = wishes::all(&self.runs, &job.id, self.slot.as_ref(), false)?;
                (kills.unseen(None, &lost), Some(known))
            }
            None => match (wishes::asked(&self.runs, &job.id)?, &job.spec.tasks) {
                (Some(killed), tasks) => {
                    if tasks.is_some() {
                        // Some may have been killed one by one before.
                        let ended = self.runs.range(&job.id)?.report;
                        report = Some(ended).filter(|report| !report.is_empty());
                    }
                    (killed.outcome(), None)
                }
                (None, None) => {
                    let ran = self.run_programs(&job, None, &mut story, &mut captures)?;
                    used = ran.begun.is_some().then_some(ran.used);
                    (ran.outcome, ran.begun)
                }
                (None, Some(tasks)) => {
                    let (ran, ended) = self.run_range(&job, tasks, &mut story)?;
                    report = Some(ended);
                    used = ran.begun.is_some().then_some(ran.used);
                    (ran.outcome, ran.begun)
                }
            },
        };
        self.tell_words(&job.id, true);
        let line = RunStatus { tasks: report, ..RunStatus::stopped(&outcome) }
            .begun(begun.as_ref())
            .used(used);
        renew(&mut story);
        while let Err(error) = story.append(std::slice::from_ref(&line)) {
            // The result must not be lost for want of space; the slot is kept meanwhile.
            eprintln!("processor: {}", error.message);
            self.wait_for_space(&job.id);
        }
        for capture in captures {
            capture.into_sync(&mut self.ended_sync);
        }
        let (file, path) = story.into_file();
        self.ended_sync.file(file, path);
        // One that cannot be opened now fails with the sync.
        if self.runs.sync_dir(&job.id, &mut self.ended_sync).is_err() {
            self.ended_sync.dir(&self.runs.job_dir(&job.id));
        }
        self.ended.push(line.of(&job.id));
        self.ended_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Waits a little until what became of a job may be recorded, and keeps nobody waiting with it.
    pub(super) fn wait_for_space(&mut self, id: &RunId) {
        if !self.claimed.is_empty()
            && let Err(error) = self.put_back(id)
        {
            eprintln!("processor: {}", error.message);
        }
        std::thread::sleep(AGAIN);
    }

    /// The files that a job's output goes to.
    pub(super) fn streams(&self, spec: &Spec) -> &'static [Stream] {
        match spec.output {
            Output::Combined => &[Stream::Log],
            Output::Split => &[Stream::Stdout, Stream::Stderr],
        }
    }

    /// Runs the programs of a job, or of one task of a range.
    pub(super) fn run_programs(
        &mut self,
        job: &Claimed,
        task: Option<u32>,
        story: &mut Story,
        captures: &mut Vec<Capture>,
    ) -> Result<Ran> {
        let settings = &self.runs.root().settings;
        for (index, stream) in self.streams(&job.spec).iter().enumerate() {
            let path = self.runs.log_path(&job.id, *stream);
            let most = settings.max_log;
            let kept = match &self.range {
                Some(range) => range.log_left(index, most),
                None => most,
            };
            let said = match kept < most {
                true => format!("{} of its range", human_size(most_log(most))),
                false => human_size(most),
            };
            captures.push(Capture::new(path, kept, said)?);
        }
        let now = Instant::now();
        let begun_at = self.range.as_ref().map_or(now, |range| range.at);
        let mut running = Running {
            id: job.id.clone(),
            task,
            captures: std::mem::take(captures),
            grace: job.spec.grace.unwrap_or(settings.default_grace),
            deadline: job.spec.timeout.and_then(|t| Some((now.checked_add(t)?, t))),
            phase: Phase::Idle,
            verdict: None,
            patience: now,
            asked: Vec::new(),
            program: None,
            ended: None,
            used: Usage::default(),
            wanted: None,
            line: None,
            begun: None,
            report_at: now + REPORT_RUNNING,
            put_back_at: begun_at + KEEP_CLAIMS,
            heard_since: job.heard_since,
            look_at: now + self.look_every(&job.id),
        };
        let outcome = self.run_in_order(job, story, &mut running);
        if outcome.is_ok() {
            self.end_rest(&mut running);
        }
        *captures = running.captures;
        let outcome = outcome?;
        let outcome = running.verdict.unwrap_or(outcome);
        Ok(Ran { outcome, begun: running.begun, used: running.used })
    }

    fn run_in_order(
        &mut self,
        job: &Claimed,
        story: &mut Story,
        running: &mut Running,
    ) -> Result<Outcome> {
        let (env, path) =
            surroundings::environment(self.around(), &job.id, &job.spec, running.task);
        let stdin = surroundings::stdin(&job.spec)?;
        let work = self.runs.work_dir(&job.id);
        let dir = match &job.spec.dir {
            Some(dir) => dir.clone(),
            None if work.is_dir() => work.to_string_lossy().into_owned(),
            None => self.user.home.clone(),
        };
        let mut outcome = Outcome::exit(0);
        for (index, argv) in job.spec.commands.iter().enumerate() {
            let program = Program::new(argv, &env, &path, &dir)?;
            let (child, mut gate, started) =
                match self.start_program(&program, stdin.as_ref(), story, running) {
                    Ok(started) => started,
                    // Nothing has run: the job may wait again. Later programs cannot.
                    Err(error) if index == 0 => return Err(error),
                    Err(error) => {
                        let why = format!("cannot start {:?}: {}", argv[0], error.message);
                        return Ok(Outcome::not_started(126, why));
                    }
                };
            if index + 1 == job.spec.commands.len() {
                running.captures.iter_mut().for_each(Capture::last_started);
            }
            let link = match running.task {
                None => links::begin(&self.runs, &job.id, child.pid.as_raw(), started).ok(),
                Some(_) => None, // its pid is in the story, and it shall cost no file
            };
            while running.program.is_some() {
                self.wait(running);
            }
            if let Some(link) = link {
                let _ = links::end(&link); // a convenience for people
            }
            outcome = match running.ended.take() {
                Some(WaitStatus::Exited(_, code)) => {
                    gate.complaint(&program, code).unwrap_or_else(|| Outcome::exit(code))
                }
                Some(WaitStatus::Signaled(_, signal, _)) => Outcome::signal(signal.as_str()),
                _ => Outcome::lost("its end was not seen"),
            };
            if let Some(all) = self.limits.peak() {
                running.used.max_memory = running.used.max_memory.max(all);
            }
            outcome = self.limits.out_of_memory().unwrap_or(outcome);
            if outcome == terminated() && running.phase == Phase::Idle && !self.stopping {
                self.happens(running, Happening::Felled);
                while running.phase == Phase::Doubt {
                    self.wait(running);
                }
                running.look_at = Instant::now(); // a kill that came meanwhile is for what is left
            }
            let is_last = index + 1 == job.spec.commands.len();
            if self.stopping && running.phase == Phase::Idle {
                outcome = in_a_shutdown(outcome, is_last);
            }
            if let Some(killed) = running.wanted.take().filter(|_| !is_last && is_good(&outcome)) {
                outcome = killed;
                running.look_at = Instant::now(); // it says how patient to be with what is left
            }
            if running.phase == Phase::Rest || !is_good(&outcome) {
                break;
            }
        }
        running.captures.iter_mut().for_each(Capture::last_started);
        Ok(outcome)
    }

    /// Starts a program: a child at the gate, the claim made durable, its line in the story, then
    /// the gate is opened. Returns besides when that was, as the line says.
    fn start_program(
        &mut self,
        program: &Program,
        stdin: Option<&OwnedFd>,
        story: &mut Story,
        running: &mut Running,
    ) -> Result<(Child, Gate, SystemTime)> {
        let (child, mut gate) = self.fork(program, stdin, running)?;
        let line = RunStatus::running(child.pid.as_raw(), child.ticks, &self.boot);
        let line = RunStatus { enforced: self.limits.enforced(), ..line };
        let durable = if self.claim_is_durable { Ok(()) } else { self.make_durable() };
        let stamped = durable.and_then(|()| match (running.task, &mut self.range) {
            (Some(task), Some(range)) => range.stamp(task, &line, story),
            _ => story.append(std::slice::from_ref(&line)),
        });
        let stamped = stamped.and_then(|()| gate.open());
        if let Err(error) = stamped {
            // It is our own child and not waited for: the pid is still its own.
            let _ = nix::sys::signal::kill(child.pid, Signal::SIGKILL);
            let _ = waitpid(child.pid, None); // it is gone then
            return Err(error);
        }
        running.program = Some(child.pid);
        self.happens(running, Happening::Started);
        let started = clock::parse_rfc3339(&line.at).unwrap_or_else(SystemTime::now);
        running.begun.get_or_insert_with(|| line.clone());
        running.line = running.task.is_none().then(|| line.of(&running.id));
        Ok((child, gate, started))
    }

    fn around(&self) -> Around<'_> {
        Around { user: &self.user, url: self.url, gpus: self.limits.gpus() }
    }
}

/// Makes a job's story what others find again, whatever the job has made of it: nothing else tells of its end
/// to a head that has missed what the feed said. Where that cannot be done the end is told in the feed alone.
pub(super) fn renew(story: &mut Story) {
    if let Err(error) = story.renew() {
        eprintln!("processor: {}", error.message);
    }
}

/// Whether the next program may follow one that has ended so.
fn is_good(outcome: &Outcome) -> bool {
    *outcome == Outcome::exit(0)
}

/// The end of a program that got SIGTERM from somebody.
fn terminated() -> Outcome {
    Outcome::signal(Signal::SIGTERM.as_str())
}

/// What the end of a program means after its supervisor was told to end: a shutdown tells the job's
/// processes as well, and programs that were to follow are not started any more.
fn in_a_shutdown(outcome: Outcome, is_last: bool) -> Outcome {
    let cut_short = outcome == terminated() || is_good(&outcome) && !is_last;
    if cut_short { Outcome::lost(TOLD_TO_END) } else { outcome }
}
