//! Random kills under load: nothing that was acknowledged is lost, no attempt runs twice.
//!
//! `CORKBOARD_SEED` repeats a run's choices, `CORKBOARD_JOBS` changes its size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/keeper.rs"]
mod keeper;
#[path = "common/net.rs"]
mod net;
#[path = "faults/submitters.rs"]
mod submitters;
#[path = "faults/verdict.rs"]
mod verdict;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use common::TestRoot;
use common::processes::{self, Process};
use corkboard::model::card::Card;
use corkboard::model::outcome::Cause;
use keeper::Keeper;
use net::{Random, Server};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use submitters::{ARRAY, Journal, Submitter, request};
use verdict::{judge, judge_array};

const CONF: &str = "cores = 4\nmemory = 16 GiB\nscan_every = 0.5\nrequest_timeout = 8s\nunknown_after = 20s\nlost_after = 90s\n";

/// Jobs submitted at once.
const SUBMITTERS: usize = 8;

/// Faults end after so long, however far the jobs are.
const STORM: Duration = Duration::from_secs(40);

/// Until everything must have ended when the faults are over.
const CALM: Duration = Duration::from_secs(60);

/// Which process to kill next, and what it is.
fn victim<'p>(
    random: &mut Random,
    all: &'p [Process],
    own: &[i32],
) -> Option<(&'static str, &'p Process)> {
    let kind_of = |process: &Process| {
        let words = process.words();
        match words.first().and_then(|word| word.rsplit('/').next()) {
            _ if words.get(1).is_some_and(|word| word == "supervise") => "supervisor",
            _ if process.has("GATEWAY_INTERFACE=CGI/1.1") => "cgi",
            Some("poller") => "poller",
            _ if own.contains(&process.pid) => "httpd",
            Some("busybox") => "connection",
            Some("scheduler") => "command",
            _ => "other",
        }
    };
    let kind = match random.below(20) {
        0..=4 => "supervisor",
        5..=6 => "poller",
        7 => "httpd",
        8..=12 => "cgi",
        13 | 14 => "connection",
        _ => "command",
    };
    let fitting: Vec<&Process> = all.iter().filter(|process| kind_of(process) == kind).collect();
    random.pick(&fitting).map(|process| (kind, *process))
}

fn cards(root: &TestRoot, column: &str) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let mut dirs = vec![root.path(&format!("state/scheduler/{column}"))];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else if let Some(number) = name.strip_suffix(".job") {
                found.push((number.parse().unwrap(), entry.path()));
            }
        }
    }
    found
}

/// Modes and contents by path.
type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Everything below `state/` that a sweep could change: names, modes, contents. Not the nodes'
/// records (when they were last seen), nor locks.
fn snapshot(root: &TestRoot) -> Tree {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.path("state")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if path.ends_with("scheduler/nodes") {
                continue;
            }
            let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            if meta.is_dir() {
                dirs.push(path.clone());
            }
            found.insert(path, (meta.mode(), content));
        }
    }
    found
}

#[test]
fn random_kills_lose_nothing_and_run_nothing_twice() {
    let begun = Instant::now();
    let jobs: usize = std::env::var("CORKBOARD_JOBS").map_or(2000, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    let (head, node) = (TestRoot::new(CONF), TestRoot::new(CONF));
    head.open();
    node.open();
    let roots = [&head, &node].map(|root| root.dir.clone());
    let mut servers = [Server::start(&roots[0]), Server::start(&roots[1])];
    let port = servers[0].port;
    for (name, port) in [("localhost", port), ("other", servers[1].port)] {
        let record = json!({"name": name, "uri": format!("http://127.0.0.1:{port}")}).to_string();
        head.cmd_in("scheduler", &["nodes", "new"], &record).expect(0);
    }
    let mut pollers = [
        Keeper::new(&head, &[&["bin/poller"], &["bin/poller", "-q"], &["bin/poller", "--once"]]),
        Keeper::new(&node, &[&["bin/poller"]]),
    ];

    let witness = head.path("witness");
    let journal = Mutex::new(Journal::default());
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let mut submitters = Vec::new();
        for number in 0..SUBMITTERS {
            let mut submitter = Submitter {
                head: &head,
                port,
                number,
                journal: &journal,
                random: Random(random.next()),
            };
            let witness = &witness;
            submitters.push(scope.spawn(move || {
                let mine: Vec<(String, Value)> = (number..jobs)
                    .step_by(SUBMITTERS)
                    .map(|i| (format!("r{i}"), request(&mut submitter.random, witness)))
                    .collect();
                let at_once = if number + 2 >= SUBMITTERS { ARRAY } else { 1 };
                for some in mine.chunks(at_once) {
                    submitter.submit(some.to_vec());
                }
            }));
        }
        let all_done = || submitters.iter().all(ScopedJoinHandle::is_finished);
        while begun.elapsed() < STORM {
            servers.iter_mut().for_each(Server::up);
            pollers.iter_mut().for_each(Keeper::tend);
            let own: Vec<i32> = servers.iter().filter_map(Server::pid).collect();
            let all = processes::of_roots(&roots);
            for _ in 0..=random.below(3) {
                if let Some((kind, process)) = victim(&mut random, &all, &own)
                    && process.signal(Signal::SIGKILL)
                {
                    *faults.entry(kind).or_default() += 1;
                }
            }
            if all_done() && cards(&head, "queue").is_empty() {
                break;
            }
            // Not a wait for anything: the moment of the next kill is random.
            thread::sleep(Duration::from_millis(10 + random.below(80)));
        }
        // The submitters still need a server.
        while !all_done() {
            servers.iter_mut().for_each(Server::up);
            pollers.iter_mut().for_each(Keeper::tend);
            assert!(begun.elapsed() < STORM + CALM, "submitting does not come to an end");
            thread::sleep(Duration::from_millis(20));
        }
    });
    let stormed = begun.elapsed();
    println!("{} jobs left when the faults end", jobs - cards(&head, "done").len());
    common::wait_for(CALM, || {
        servers.iter_mut().for_each(Server::up); // the last kill may take effect only now
        pollers.iter_mut().for_each(Keeper::tend);
        let left: Vec<u64> =
            ["queue", "running"].iter().flat_map(|c| cards(&head, c)).map(|(job, _)| job).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("jobs {left:?} have not ended")) }
    });
    pollers.iter_mut().for_each(Keeper::end);
    println!("pollers ended after {:.0} s", begun.elapsed().as_secs_f64());

    let text = fs::read_to_string(&witness).unwrap();
    let mut ran: HashMap<String, usize> = HashMap::new();
    text.lines().for_each(|line| *ran.entry(line.to_string()).or_default() += 1);
    let twice: Vec<_> = ran.iter().filter(|(_, count)| **count != 1).collect();
    let journal = journal.into_inner().unwrap();
    let done = cards(&head, "done");
    let numbers: HashSet<u64> = done.iter().map(|(job, _)| *job).collect();
    let missing: Vec<_> =
        journal.acknowledged.keys().filter(|job| !numbers.contains(job)).collect();
    let mut lost = 0;
    let mut lost_jobs = 0;
    let mut attempts = HashSet::new();
    for (job, path) in &done {
        let card = Card::parse(&fs::read(path).unwrap()).unwrap();
        let Some((id, request)) = journal.acknowledged.get(job) else {
            panic!("job {job} was never acknowledged, and its submitter repeated until it was");
        };
        assert_eq!(&card.accepted.request_id, id);
        assert_eq!(&Value::Object(card.accepted.request.clone()), request, "job {job}");
        let cancelled = journal.cancelled.contains(job);
        lost += match card.array() {
            Some(array) => judge_array(&card, array, cancelled, &ran),
            None => judge(&card, cancelled, &ran),
        };
        lost_jobs += usize::from(card.outcome.as_ref().unwrap().cause == Cause::Lost);
        attempts.extend(card.attempts.iter().map(|attempt| attempt.nodejob.to_string()));
    }
    println!(
        "{jobs} jobs submitted with {} repeats, {} cancelled; {} faults {faults:?} in {:.0} s, all ended after {:.0} s",
        journal.repeats,
        journal.cancelled.len(),
        faults.values().sum::<usize>(),
        stormed.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    println!(
        "acknowledged and missing: {}; attempts {}, run twice: {}; attempts reported lost: {lost}, jobs that ended as lost: {lost_jobs}",
        missing.len(),
        attempts.len(),
        twice.len()
    );
    assert!(missing.is_empty(), "{missing:?}");
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(done.len(), jobs);
    let known = |id: &String| attempts.contains(id.split('/').next().unwrap_or_default());
    assert!(ran.keys().all(known), "something ran that is on no card");

    for root in [&head, &node] {
        root.cmd("processor", &["sweep"]).expect(0);
        root.cmd("poller", &["--once", "-q"]).expect(0);
        root.check();
    }
    println!("checked after {:.0} s", begun.elapsed().as_secs_f64());
    let before = [snapshot(&head), snapshot(&node)];
    for root in [&head, &node] {
        root.cmd("processor", &["sweep"]).expect(0);
        root.cmd("poller", &["--once", "-q"]).expect(0);
    }
    for (before, after) in before.iter().zip([snapshot(&head), snapshot(&node)]) {
        let changed: Vec<_> = before
            .iter()
            .filter(|(path, was)| after.get(*path) != Some(was))
            .map(|(path, _)| path)
            .chain(after.keys().filter(|path| !before.contains_key(*path)))
            .collect();
        assert!(changed.is_empty(), "a second sweep changed {changed:?}");
    }
    println!("swept again after {:.0} s", begun.elapsed().as_secs_f64());
}
