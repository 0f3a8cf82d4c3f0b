//! Random kills under load: nothing that was acknowledged is lost, no attempt runs twice.
//!
//! `CORKBOARD_SEED` repeats a run's choices, `CORKBOARD_JOBS` changes its size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/net.rs"]
mod net;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use common::TestRoot;
use common::processes::{self, Process};
use corkboard::model::array::Array;
use corkboard::model::card::{Card, State};
use corkboard::model::outcome::Cause;
use net::{Random, Server, http, log};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const CONF: &str = "cores = 4\nmemory = 16 GiB\nscan_every = 0.5\nrequest_timeout = 8s\nunknown_after = 20s\nlost_after = 90s\n";

/// Jobs submitted at once.
const SUBMITTERS: usize = 8;

/// Jobs in one request of those submitters that send arrays.
const ARRAY: usize = 10;

/// Faults end after so long, however far the jobs are.
const STORM: Duration = Duration::from_secs(40);

/// Until everything must have ended when the faults are over.
const CALM: Duration = Duration::from_secs(60);

/// Programs that the test keeps alive: what dies is started again.
struct Keeper {
    root: PathBuf,
    children: Vec<(Vec<&'static str>, Option<Child>)>,
}

impl Keeper {
    fn new(root: &Path, words: &[&[&'static str]]) -> Keeper {
        let children = words.iter().map(|words| (words.to_vec(), None)).collect();
        Keeper { root: root.into(), children }
    }

    fn tend(&mut self) {
        for (words, child) in &mut self.children {
            if child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                *child = Some(start(&self.root, words));
            }
        }
    }

    /// Asks all to end, and waits.
    fn end(&mut self) {
        for (_, child) in &mut self.children {
            if let Some(mut child) = child.take() {
                common::signal(child.id() as i32, "TERM");
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for child in self.children.iter_mut().filter_map(|(_, child)| child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(root: &Path, words: &[&str]) -> Child {
    Command::new(root.join(words[0]))
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("CORKBOARD_ROOT", root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log(root, "poller.log"))
        .spawn()
        .unwrap()
}

/// A job as a client wants it, without its request id.
fn request(random: &mut Random, witness: &Path) -> Value {
    let name = "$CORKBOARD_NODEJOB${CORKBOARD_TASK:+/$CORKBOARD_TASK}";
    let note = format!("echo {name} >> {}", witness.display());
    match random.below(21) {
        20 => {
            let sleep = random.below(30);
            let command = format!("{note}; sleep 0.{sleep:03}");
            json!({"command": command, "array": "0-11", "max_retry_count": random.below(3)})
        }
        0..=9 => json!({"command": note}),
        10 | 11 => json!({"command": note, "max_retry_count": 3}),
        12..=15 => {
            let sleep = 20 + random.below(400);
            let retries = random.below(3);
            json!({"command": format!("{note}; sleep 0.{sleep:03}"), "max_retry_count": retries})
        }
        16 => json!({"command": format!("{note}; (sleep 0.3 &) ; exit 0"), "max_retry_count": 1}),
        17 | 18 => {
            let first = format!("{note}; case $CORKBOARD_NODEJOB in *.1) exit 3;; esac");
            json!({"command": first, "max_retry_count": 2})
        }
        _ => json!({"command": format!("{note}; exit 5"), "max_retry_count": 1}),
    }
}

/// What the submitters know.
#[derive(Default)]
struct Journal {
    /// By number: the request id, the request, whether it was cancelled after that.
    acknowledged: BTreeMap<u64, (String, Value)>,
    cancelled: HashSet<u64>,
    repeats: usize,
}

/// Submits jobs, each until it is acknowledged.
struct Submitter<'t> {
    head: &'t TestRoot,
    port: u16,
    number: usize,
    journal: &'t Mutex<Journal>,
    random: Random,
}

impl Submitter<'_> {
    fn by_http(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// One try; the numbers that it was answered.
    fn once(&self, body: &Value) -> Option<Vec<u64>> {
        let answer: Value = if self.by_http() {
            let (code, text) = http(self.port, "POST", "/scheduler/jobs/new", &body.to_string())?;
            assert!(matches!(code, 200 | 201 | 500 | 503), "{code} {text}");
            serde_json::from_str(&text).ok().filter(|_| code < 300)?
        } else {
            let answer = self.head.cmd_in("scheduler", &["jobs", "new"], &body.to_string());
            assert!(matches!(answer.code, 0 | 1 | 75 | -1), "{answer:?}");
            serde_json::from_str(&answer.body).ok().filter(|_| answer.code == 0)?
        };
        let number = |one: &Value| one["job"].as_u64();
        match &answer {
            Value::Array(all) => all.iter().map(number).collect(),
            one => Some(vec![number(one)?]),
        }
    }

    fn submit(&mut self, jobs: Vec<(String, Value)>) {
        let with_id = |(id, request): &(String, Value)| {
            let mut request = request.clone();
            request["request_id"] = json!(id);
            request
        };
        let body = match jobs.as_slice() {
            [one] => with_id(one),
            several => several.iter().map(with_id).collect(),
        };
        let mut tries = 0;
        let numbers = loop {
            if let Some(numbers) = self.once(&body) {
                break numbers;
            }
            tries += 1;
            assert!(tries < 300, "{body} is never acknowledged");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(numbers.len(), jobs.len());
        let cancel = jobs.len() == 1 && self.random.below(40) == 0;
        let first = numbers[0];
        {
            let mut journal = self.journal.lock().unwrap();
            journal.repeats += tries;
            for (number, job) in numbers.into_iter().zip(jobs) {
                let before = journal.acknowledged.insert(number, job);
                assert!(before.is_none(), "job {number} was given out twice");
            }
        }
        if cancel {
            let path = format!("/scheduler/jobs/{first}/update?kill=1");
            common::wait_for(STORM + CALM, || match http(self.port, "POST", &path, "") {
                Some((code, _)) if code < 300 => Ok(()),
                other => Err(format!("{path}: {other:?}")),
            });
            self.journal.lock().unwrap().cancelled.insert(first);
        }
    }
}

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

fn check(root: &TestRoot) {
    for program in ["scheduler", "processor"] {
        let answer = root.cmd(program, &["check"]);
        assert_eq!((answer.code, answer.body.as_str()), (0, ""), "{program}: {answer:?}");
    }
}

/// The card's story against what its request allows. Returns how many attempts were lost.
fn judge(card: &Card, cancelled: bool, ran: &HashMap<String, usize>) -> usize {
    let job = card.job();
    assert_eq!(card.state, State::Stopped, "job {job}");
    let end = card.outcome.as_ref().unwrap();
    let mut retries = 0;
    let mut lost = 0;
    for (index, attempt) in card.attempts.iter().enumerate() {
        let is_last = index + 1 == card.attempts.len();
        let witnessed = ran.get(&attempt.nodejob).copied().unwrap_or(0);
        let Some(outcome) = &attempt.outcome else {
            assert!(attempt.refused.is_some(), "job {job}: {attempt:?} has no end");
            assert_eq!(witnessed, 0, "{} was refused and ran", attempt.nodejob);
            continue;
        };
        match outcome.cause {
            Cause::Exit => assert_eq!(witnessed, 1, "{} ended by itself", attempt.nodejob),
            Cause::Lost => lost += 1,
            // A supervisor's child that was hit before it had become its program.
            Cause::Signal => {}
            Cause::Killed => assert!(cancelled, "job {job}: nobody killed it: {outcome:?}"),
            _ => panic!("job {job}: {outcome:?}"),
        }
        if !is_last {
            assert_ne!(outcome.code, Some(0), "job {job} was repeated after a good end");
            retries += 1;
        }
    }
    let allowed = card.spec.max_retry_count;
    assert!(retries <= allowed, "job {job}: {retries} retries");
    if !cancelled {
        let repeatable = end.code != Some(0);
        assert!(!repeatable || retries == allowed, "job {job}: {retries} retries, then {end:?}");
    }
    lost
}

/// The same for an array. Returns how many of its tasks ended as lost.
fn judge_array(card: &Card, array: &Array, cancelled: bool, ran: &HashMap<String, usize>) -> usize {
    let job = card.job();
    assert!(card.state == State::Stopped && array.is_finished(), "job {job}");
    let mut lost = 0;
    for task in array.spec.tasks.iter() {
        let end = array.outcome_of(task).unwrap();
        let of_attempt = |id: &String| ran.get(&format!("{id}/{task}")).copied().unwrap_or(0);
        let runs: usize = card.attempts.iter().map(|attempt| of_attempt(&attempt.nodejob)).sum();
        let retries = array.retries_of(task);
        assert!(retries <= card.spec.max_retry_count, "job {job} task {task}: {retries} retries");
        assert!(
            runs <= retries as usize + 1,
            "job {job} task {task}: {runs} runs, {retries} retries"
        );
        match end.cause {
            Cause::Exit => {
                assert!(end.code == Some(0) && runs > 0, "job {job} task {task}: {end:?}")
            }
            Cause::Lost => lost += 1,
            Cause::Signal => {}
            Cause::Killed => assert!(cancelled, "job {job}: nobody killed {task}: {end:?}"),
            _ => panic!("job {job} task {task}: {end:?}"),
        }
    }
    lost
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
        Keeper::new(
            &roots[0],
            &[&["bin/poller"], &["bin/poller", "-q"], &["bin/poller", "--once"]],
        ),
        Keeper::new(&roots[1], &[&["bin/poller"]]),
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
        lost += match &card.array {
            Some(array) => judge_array(&card, array, cancelled, &ran),
            None => judge(&card, cancelled, &ran),
        };
        lost_jobs += usize::from(card.outcome.as_ref().unwrap().cause == Cause::Lost);
        attempts.extend(card.attempts.iter().map(|attempt| attempt.nodejob.clone()));
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
        check(root);
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
