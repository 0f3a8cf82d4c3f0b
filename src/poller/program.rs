//! The poller's options; one poller of a root is at work, others stand by.

use std::collections::BTreeSet;
use std::env;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Command;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::engine::Engine;
use super::round::Until;
use super::step::{How, Step};
use super::wake::Wake;
use super::{cleanup, notice};
use crate::board::cards::Cards;
use crate::board::lock::Lock;
use crate::board::poller_lock::{self, STARTED_BY};
use crate::board::root::Root;
use crate::board::steps;
use crate::cgi::usage;
use crate::cgi::words::{flag, with};
use crate::edge;
use crate::error::{At, Kind, Result};
use crate::model::card::State;
use crate::model::ids;
use crate::processor;
use crate::{clock, descriptors};

/// How often a poller that stands by looks whether it is needed.
const STANDBY: Duration = Duration::from_millis(200);

/// What is done when the lock is taken, as an error says it.
const LOCKING: &str = "taking the lock of the poller";

/// Most troubles of the clean-up that are remembered, so that each is told once.
const MOST_TOLD: usize = 1000;

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    edge::outlast_limits();
    let words = match usage::read(&mut options(), env::args_os().skip(1)) {
        Ok(words) => words,
        Err(code) => return code,
    };
    let how = match words.get_one::<Duration>("pace") {
        Some(pace) => How::Pace(*pace),
        None if words.get_flag("step") => How::Enter,
        None => How::Run,
    };
    descriptors::raise();
    let ran = match words.get_one::<u64>("job") {
        Some(job) => run_for(*job),
        None => run(how, words.get_flag("once"), words.get_flag("quiet")),
    };
    match ran {
        Ok(()) => 0,
        Err(error) => edge::complain("poller", &error),
    }
}

fn options() -> Command {
    let pace = |text: &str| clock::parse_duration(text).ok_or("a duration such as 2s");
    let job = |text: &str| ids::parse_number(text).ok_or("a job's number");
    usage::command("poller")
        .about("poller: places waiting jobs on nodes, takes in their results, cleans up")
        .override_usage("poller [OPTION...]")
        .after_help(
            "One poller of a root is at work; others stand by and take over when it ends.\nThe root is CORKBOARD_ROOT, else the directory above the program's own.\nSays what it did on standard error, one line each. SIGTERM ends it.\nExit codes: 0 done, 1 refused or failed, 2 usage, 75 try again later.",
        )
        .arg(flag("once", "one round, unless a poller is at work; for cron"))
        .arg(
            flag("step", "show each transition and wait for Enter before it")
                .conflicts_with("pace"),
        )
        .arg(
            with("pace", "DURATION", "show each transition and wait so long before it")
                .value_parser(pace),
        )
        .arg(
            with("job", "N", "end when job N has stopped, or its parent has ended")
                .value_parser(job)
                .conflicts_with_all(["once", "step", "pace"]),
        )
        .arg(flag("quiet", "say nothing but errors").short('q'))
}

fn run(how: How, once: bool, quiet: bool) -> anyhow::Result<()> {
    let root = Root::find().context("opening the root")?;
    root.for_change()?;
    let signals = notice::block_signals().context("blocking signals")?;
    if once {
        let Some(_lock) = poller_lock::try_take(&root).context(LOCKING)? else {
            if !quiet {
                eprintln!("poller: another poller is at work");
            }
            return Ok(());
        };
        let step = Step::begin(how).context("listening for Enter")?;
        let end = step.end();
        let mut engine = Engine::new(&root, step, quiet);
        notice::watch_signals(signals, &engine.waker(), end).context("waiting for signals")?;
        let ran = engine.run(Until::Idle);
        tidy(&root, quiet, &mut BTreeSet::new()); // jobs first: there may be much to remove
        return ran.context("making a round");
    }
    let step = Step::begin(how).context("listening for Enter")?;
    let end = step.end();
    let mut engine = Engine::new(&root, step, quiet);
    notice::watch_signals(signals, &engine.waker(), end).context("waiting for signals")?;
    let Some(_lock) = stand_by(&root, &mut engine).context(LOCKING)? else { return Ok(()) };
    eprintln!("poller: at work for {}", root.dir().display());
    engine.beside(|| {
        let tidier = root.clone();
        let tidying = move || {
            let mut told = BTreeSet::new();
            loop {
                tidy(&tidier, quiet, &mut told);
                std::thread::sleep(cleanup::EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("clean-up".into());
        thread.spawn(tidying).map(|_| ()).at("no thread for clean-up")
    });
    engine.run(Until::End).context("making rounds")?;
    eprintln!("poller: ended");
    Ok(())
}

/// Waits for the lock; `None` if asked to end before that.
fn stand_by(root: &Root, engine: &mut Engine) -> Result<Option<Lock>> {
    let mut told = false;
    loop {
        if let Some(lock) = poller_lock::try_take(root)? {
            return Ok(Some(lock));
        }
        if !told {
            eprintln!("poller: another poller is at work; standing by");
            told = true;
        }
        if engine.asked_to_end(STANDBY) {
            return Ok(None);
        }
    }
}

/// Cleans up both boards. What cannot be removed is told once, and keeps nothing from going on:
/// it is no reason to place no jobs.
fn tidy(root: &Root, quiet: bool, told: &mut BTreeSet<String>) {
    let (mut removed, mut trouble) = ((0, 0, 0), Vec::new());
    match steps::present(root) {
        Ok((now, kept)) => {
            trouble.extend(kept.err());
            let head = cleanup::clean(root, &now);
            let node = processor::cleanup::clean(root, &now);
            removed = (head.cards, head.others, node.removed);
            trouble.extend(head.trouble.into_iter().chain(node.trouble));
        }
        Err(error) => trouble.push(error), // so nobody knows how old anything is
    }
    for error in trouble {
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        if told.insert(error.message.clone()) {
            eprintln!("poller: clean-up: {}", error.message);
        }
    }
    if !quiet && removed != (0, 0, 0) {
        let (cards, others, jobs) = removed;
        eprintln!(
            "clean-up: {cards} finished cards, {others} other files of the head, {jobs} jobs of the processor"
        );
    }
}

/// Makes rounds for a job, while no other poller is at work, until it has stopped. Ends with who
/// started it, who waits for the job.
fn run_for(job: u64) -> anyhow::Result<()> {
    // Named by itself where it can: it may have died before this process could look.
    let named = env::var(STARTED_BY).ok().and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
    let parent = named.unwrap_or_else(getppid);
    prctl::set_pdeathsig(Signal::SIGKILL).at("prctl").context("ending with who started this")?;
    if getppid() != parent {
        return Ok(());
    }
    let root = Root::find().context("opening the root")?;
    root.for_change()?;
    loop {
        if let Some(_lock) = poller_lock::try_take(&root).context(LOCKING)? {
            let step = Step::begin(How::Run)?;
            let ran = Engine::new(&root, step, true).run(Until::Stopped(job));
            return ran.with_context(|| format!("making rounds for job {job}"));
        }
        let stopped = match Cards::new(&root).find(job) {
            Ok(card) => card.state == State::Stopped,
            // What cannot be read now is not over.
            Err(error) => matches!(error.kind, Kind::NotFound | Kind::Gone),
        };
        if stopped || getppid() != parent {
            return Ok(());
        }
        std::thread::sleep(STANDBY);
    }
}

impl Engine<'_> {
    /// Waits so long for the request to end.
    fn asked_to_end(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.wakes_until(deadline).iter().any(|wake| matches!(wake, Wake::End))
    }
}
