//! Faults on purpose: programs under strace, what they did, and what must hold afterwards.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::common::{TestRoot, program};

/// Longest time in which a board must be right again after the faults have ended.
pub const RECOVERY: Duration = Duration::from_secs(40);

/// System calls that change nothing that outlives the process: dying before one of them leaves
/// what dying before the next other one leaves. Locks belong to the process, so letting one go by
/// dying is what dying does anyway.
const NO_EFFECT: &[&str] = &[
    "read",
    "readv",
    "pread64",
    "preadv",
    "lseek",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    "close",
    "close_range",
    "fcntl",
    "ioctl",
    "dup",
    "dup2",
    "dup3",
    "pipe2",
    "poll",
    "ppoll",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "select",
    "pselect6",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sigaltstack",
    "getrandom",
    "uname",
    "umask",
    "sysinfo",
    "getrlimit",
    "prlimit64",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpid",
    "gettid",
    "getppid",
    "set_tid_address",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "arch_prctl",
    "prctl",
    "futex",
    "sched_getaffinity",
    "sched_yield",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "alarm",
    "socket",
    "connect",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    "signalfd4",
    "eventfd2",
    "memfd_create",
    "pidfd_open",
    "chdir",
    "restart_syscall",
    "exit",
    "flock",
    "gettimeofday",
    "time",
];

/// A program as it is to be run, again and again.
#[derive(Clone)]
pub struct Act {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    input: Vec<u8>,
    cgi: bool,
}

/// What became of it.
#[derive(Debug)]
pub struct Ran {
    /// It was killed by the fault.
    pub killed: bool,
    /// HTTP status, or exit code.
    pub code: i32,
    pub body: String,
    pub stderr: String,
}

impl Ran {
    /// Whether it said that it did what it was asked to.
    pub fn acknowledged(&self) -> bool {
        !self.killed && matches!(self.code, 0 | 200..=299)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// The `nth` call of `name` in one process or thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub name: String,
    pub nth: u32,
    /// The traced run went beyond this call.
    pub seen: bool,
}

impl Act {
    /// A command.
    pub fn cmd(root: &TestRoot, name: &str, args: &[&str], input: &str) -> Act {
        let mut env = vec![
            ("PATH".to_string(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".to_string()),
            ("CORKBOARD_ROOT".to_string(), root.dir.display().to_string()),
        ];
        env.extend(root.env.iter().cloned());
        Act {
            program: program(name),
            args: args.iter().map(ToString::to_string).collect(),
            env,
            input: input.as_bytes().to_vec(),
            cgi: false,
        }
    }

    /// Submits a job, or an array of them.
    pub fn submit(root: &TestRoot, request: &Value) -> Act {
        Act::cmd(root, "scheduler", &["jobs", "new"], &request.to_string())
    }

    /// A POST as bare CGI; `path` is `/jobs/new?wait=1`.
    pub fn post(root: &TestRoot, name: &str, path: &str, kind: &str, body: &[u8]) -> Act {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut act = Act::cmd(root, name, &[], "");
        act.cgi = true;
        act.input = body.to_vec();
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "POST"),
            ("PATH_INFO", path),
            ("QUERY_STRING", query),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_HOST", "127.0.0.1:8080"),
            ("CONTENT_TYPE", kind),
            ("CONTENT_LENGTH", &body.len().to_string()),
        ] {
            act.env.push((name.into(), value.into()));
        }
        act
    }

    /// Runs it as it is.
    pub fn run(&self) -> Ran {
        self.finish(Command::new(&self.program))
    }

    /// Runs it with so many descriptors.
    pub fn run_with_files(&self, limit: u32) -> Ran {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(&self.program);
        self.finish(command)
    }

    /// Runs it under strace with this injection: `fsync:error=EIO:when=2`.
    pub fn inject(&self, what: &str) -> Ran {
        let names = what.split(':').next().unwrap();
        let mut command = self.strace("/dev/null");
        command.args(["-e", &format!("trace={names}"), "-e", &format!("inject={what}")]);
        command.arg(&self.program);
        self.finish(command)
    }

    /// Kills it at this call.
    pub fn kill_at(&self, point: &Point) -> Ran {
        self.inject(&format!("{}:signal=KILL:when={}", point.name, point.nth))
    }

    /// Threads are followed; what is executed by a child is somebody else's.
    fn strace(&self, log: &str) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-b", "execve", "-qq", "-s", "96", "-o", log]);
        command
    }

    fn finish(&self, mut command: Command) -> Ran {
        let mut child = command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = self.input.clone();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input); // it may be dead
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let killed = output.status.signal() == Some(9) || output.status.code() == Some(137);
        let (code, body) = match text.split_once("\r\n\r\n").filter(|_| self.cgi) {
            Some((head, body)) => {
                let code = head.split_whitespace().nth(1).unwrap().parse().unwrap();
                (code, body.to_string())
            }
            None if self.cgi => (-1, text), // no answer at all
            None => (output.status.code().unwrap_or(-1), text),
        };
        Ran { killed, code, body, stderr }
    }

    /// Runs it once under strace, unharmed: the calls at which it can be hurt.
    pub fn trace(&self) -> (Ran, Vec<Point>) {
        let (ran, text) = self.watch();
        (ran, points(&text))
    }

    /// Every call of these names in a run that is unharmed.
    pub fn calls(&self, names: &[&str]) -> (Ran, Vec<Point>) {
        let (ran, text) = self.watch();
        let mut all = Vec::new();
        for name in names {
            let of_name = counts(&text).into_iter().filter(|((_, n), _)| n == name);
            let most = of_name.map(|(_, count)| count).max().unwrap_or(0);
            let point = |nth| Point { name: name.to_string(), nth, seen: true };
            all.extend((1..=most).map(point));
        }
        (ran, all)
    }

    /// Runs it once under strace, unharmed: its calls, a line each, in the order of their ends.
    pub fn watch(&self) -> (Ran, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("cork-strace-{}-{count}", std::process::id()));
        let mut command = self.strace(log.to_str().unwrap());
        command.arg(&self.program);
        let ran = self.finish(command);
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        fs::remove_file(&log).unwrap();
        (ran, text)
    }
}

/// The calls of a trace: thread, name, arguments.
fn lines(trace: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    trace.lines().filter_map(|line| {
        let (pid, call) = line.split_once(' ')?;
        let (name, args) = call.trim_start().split_once('(')?;
        // Else resumed, a signal, or an exit.
        let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        named.then_some((pid, name, args))
    })
}

/// How often each thread made each call.
fn counts(trace: &str) -> BTreeMap<(&str, &str), u32> {
    let mut counts = BTreeMap::new();
    for (pid, name, _) in lines(trace) {
        *counts.entry((pid, name)).or_default() += 1;
    }
    counts
}

/// The calls of a trace that have an effect, each once, and for each name one beyond the last.
fn points(trace: &str) -> Vec<Point> {
    let mut so_far: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (pid, name, args) in lines(trace) {
        let count = so_far.entry((pid, name)).or_default();
        *count += 1;
        let reads = name == "openat" && !args.contains("O_CREAT");
        let starts = name == "execve";
        if !reads && !starts && !NO_EFFECT.contains(&name) {
            found.insert((name.to_string(), *count));
        }
    }
    let mut points: Vec<Point> = found
        .iter()
        .map(|(name, nth)| Point { name: name.clone(), nth: *nth, seen: true })
        .collect();
    for name in found.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() {
        let of_name = so_far.iter().filter(|((_, n), _)| n == name);
        let last = of_name.map(|(_, count)| *count).max().unwrap_or(0);
        points.push(Point { name: name.clone(), nth: last + 1, seen: false });
    }
    points
}

/// What a test did and found.
#[derive(Debug, Default)]
pub struct Counts {
    pub faults: usize,
    pub submitted: usize,
    pub lost: usize,
    pub twice: usize,
}

impl Counts {
    /// Prints the counts, and insists on what is promised.
    pub fn report(&self, what: &str, begun: Instant) {
        println!(
            "{what}: {} faults, {} submissions, {} jobs lost, {} run twice, {:.1} s",
            self.faults,
            self.submitted,
            self.lost,
            self.twice,
            begun.elapsed().as_secs_f64()
        );
        assert_eq!((self.lost, self.twice), (0, 0), "{what}");
    }

    pub fn add(&mut self, other: &Counts) {
        self.faults += other.faults;
        self.submitted += other.submitted;
        self.lost += other.lost;
        self.twice += other.twice;
    }
}

/// What the client was told.
pub struct Journal<'r> {
    pub root: &'r TestRoot,
    /// Lies outside of the root: each start of an attempt appends its id.
    pub witness: PathBuf,
    /// Numbers that were acknowledged, with their requests.
    pub acked: BTreeMap<u64, Map<String, Value>>,
    /// Ends beside `good` that the faults of this test allow.
    pub allowed: &'static [&'static str],
    pub counts: Counts,
}

impl<'r> Journal<'r> {
    pub fn new(root: &'r TestRoot) -> Journal<'r> {
        let witness = root.path("witness");
        Journal { root, witness, acked: BTreeMap::new(), allowed: &[], counts: Counts::default() }
    }

    /// The shell line of a job, or a task, that bears witness of each start.
    pub fn line(&self) -> String {
        let name = "$CORKBOARD_NODEJOB${CORKBOARD_TASK:+.$CORKBOARD_TASK}";
        format!("echo {name} >> {}", self.witness.display())
    }

    /// The request of such a job.
    pub fn request(&self, more: Value) -> Value {
        let mut request = json!({"command": self.line(), "dir": "/"});
        for (name, value) in more.as_object().unwrap() {
            request[name] = value.clone();
        }
        request
    }

    /// Notes what a submission answered: one job, or an array of them.
    pub fn answered(&mut self, ran: &Ran) -> Vec<u64> {
        self.counts.submitted += 1;
        if !ran.acknowledged() {
            return Vec::new();
        }
        let answers = match ran.json() {
            Value::Array(all) => all,
            one => vec![one],
        };
        answers
            .into_iter()
            .map(|answer| {
                let Value::Object(mut map) = answer else { panic!("{ran:?}") };
                let job = map.remove("job").unwrap().as_u64().unwrap();
                map.remove("request_id");
                let before = self.acked.insert(job, map.clone());
                assert!(before.is_none_or(|b| b == map), "number {job} was given twice: {ran:?}");
                job
            })
            .collect()
    }

    /// Makes rounds until everything on the board, and on the node, has stopped.
    pub fn settle(&self) {
        let deadline = Instant::now() + RECOVERY;
        loop {
            let round = self.root.cmd("poller", &["--once", "-q"]);
            let swept = Act::cmd(self.root, "processor", &["sweep"], "").run();
            let open = self.open();
            if open.is_empty() && self.root.supervisors().is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not recovered: {open:?} {:?} {round:?} {swept:?}",
                self.root.supervisors()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What has not stopped.
    fn open(&self) -> Vec<String> {
        let mut open: Vec<String> = cards(self.root)
            .into_iter()
            .filter(|(_, paths)| paths.iter().any(|path| !path.contains("/done/")))
            .flat_map(|(_, paths)| paths)
            .collect();
        for id in names(&self.root.path("state/processor/job")) {
            let refused = self.root.read(&format!("state/processor/job/{id}/request.json"));
            let ended = self.root.node_status(&id)["state"] == "stopped";
            if !ended && !refused.starts_with("{\"refused\"") {
                open.push(id);
            }
        }
        open
    }

    /// Checks everything that is promised, after [`Journal::settle`].
    pub fn verify(&mut self) {
        let on_board = cards(self.root);
        let mut first_lines: BTreeMap<u64, Value> = BTreeMap::new();
        for (job, paths) in &on_board {
            assert_eq!(paths.len(), 1, "job {job} lies in {paths:?}");
            let text = fs::read_to_string(&paths[0]).unwrap();
            let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())
                .unwrap_or_else(|e| panic!("{}: {e}: {text:?}", paths[0]));
            assert_eq!(first["job"], json!(job));
            let last = text.lines().rev().find(|line| line.contains("\"event\":\"stopped\""));
            let end: Value = serde_json::from_str(last.unwrap()).unwrap();
            let cause = end["cause"].as_str().unwrap();
            if end["status"] != "good" && !self.allowed.contains(&cause) {
                if cause != "lost" {
                    panic!("job {job} did not end well: {text}");
                }
                self.counts.lost += 1;
                println!("job {job} was lost: {text}");
            }
            first_lines.insert(*job, first);
        }
        for (job, request) in &self.acked {
            match first_lines.get(job) {
                Some(first) => assert_eq!(first["request"], json!(request), "job {job}"),
                None => {
                    println!("job {job} is gone");
                    self.counts.lost += 1;
                }
            }
        }
        let mut starts: BTreeMap<String, usize> = BTreeMap::new();
        for id in fs::read_to_string(&self.witness).unwrap_or_default().lines() {
            *starts.entry(id.to_string()).or_default() += 1;
        }
        for (id, times) in starts.iter().filter(|(_, times)| **times > 1) {
            println!("{id} was started {times} times");
            self.counts.twice += 1;
        }
        for name in ["scheduler", "processor"] {
            let check = Act::cmd(self.root, name, &["check"], "").run();
            assert_eq!((check.code, check.body.as_str()), (0, ""), "{name} check: {check:?}");
        }
        self.sweeps_change_nothing();
    }

    /// P11: sweeps of a board that is right leave it as it is. Left out of the comparison are
    /// locks, whose content is the boot at most, and records of nodes, which say when each was
    /// last seen.
    fn sweeps_change_nothing(&self) {
        let before = listing(&self.root.path("state"));
        let round = Act::cmd(self.root, "poller", &["--once", "-q"], "").run();
        assert!(round.acknowledged(), "{round:?}");
        let swept = Act::cmd(self.root, "processor", &["sweep"], "").run().json();
        assert_eq!(swept, json!({"lost": 0, "requeued": 0, "started": false}));
        let after = listing(&self.root.path("state"));
        assert_eq!(before, after);
    }

    /// Numbers of the cards whose request has this name.
    pub fn named(&self, name: &str) -> Vec<u64> {
        cards(self.root)
            .into_iter()
            .filter(|(_, paths)| {
                let text = fs::read_to_string(&paths[0]).unwrap_or_default();
                let first = text.lines().next().unwrap_or_default().to_string();
                serde_json::from_str::<Value>(&first)
                    .is_ok_and(|first| first["request"]["name"] == name)
            })
            .map(|(job, _)| job)
            .collect()
    }
}

/// Where every card lies.
pub fn cards(root: &TestRoot) -> BTreeMap<u64, Vec<String>> {
    let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let board = root.path("state/scheduler");
    let shards = names(&board.join("done"));
    let mut dirs = vec![board.join("queue"), board.join("running")];
    dirs.extend(shards.into_iter().map(|shard| board.join("done").join(shard)));
    for dir in dirs {
        for name in names(&dir) {
            if let Some(job) = name.strip_suffix(".job") {
                let path = dir.join(&name).display().to_string();
                found.entry(job.parse().unwrap()).or_default().push(path);
            }
        }
    }
    found
}

pub fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Every file with its size and number of names, every directory; see
/// [`Journal::sweeps_change_nothing`] for what is left out.
pub fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let is_nodes = dir.ends_with("scheduler/nodes");
        for name in names(&dir) {
            let path = dir.join(&name);
            if name == "lock" || name == "poller.lock" || is_nodes {
                continue;
            }
            let Ok(meta) = path.symlink_metadata() else { continue };
            if meta.is_dir() {
                found.push(format!("{}/", path.display()));
                dirs.push(path);
            } else {
                found.push(format!("{} {} {}", path.display(), meta.len(), meta.nlink()));
            }
        }
    }
    found.sort();
    found
}
