//! Programs under strace: what they did, and what becomes of them if a call fails or kills.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::Journal;
use crate::common::{TestRoot, feed, program};

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
    "sched_setaffinity",
    "sched_getscheduler",
    "ioprio_set",
    "sched_yield",
    "clock_gettime",
    "clock_nanosleep",
    "nanosleep",
    "alarm",
    "socket",
    "socketpair",
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

    /// Has a node accept a job, and starts nobody where the root's own program
    /// [does nothing](TestRoot::starts_no_supervisor): that is what one of another name starts.
    pub fn accept(root: &TestRoot, request: &Value) -> Ran {
        if !root.exists("accept") {
            root.install("accept", &program("processor"), "755");
        }
        let accept = Act::cmd(root, "processor", &["jobs", "new", "-q"], &request.to_string());
        Act { program: root.path("accept"), ..accept }.run()
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

    /// The same with this in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Act {
        self.env.push((name.into(), value.into()));
        self
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
        let env = self.env.iter().map(|(name, value)| (name, value));
        let output = feed(command.args(&self.args).env_clear().envs(env), &self.input);
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

/// Makes what `act` builds die at each of its calls in turn. `act` is told how many were built
/// before; `after` sees what became of each.
pub fn at_every_point(
    journal: &mut Journal,
    mut act: impl FnMut(&mut Journal, usize) -> Act,
    mut after: impl FnMut(&mut Journal, usize, &Ran),
) {
    // The first one makes what is made once in a root's life.
    let ran = act(journal, 0).run();
    assert!(ran.acknowledged(), "{ran:?}");
    after(journal, 0, &ran);
    let (ran, points) = act(journal, 1).trace();
    assert!(ran.acknowledged(), "{ran:?}");
    after(journal, 1, &ran);
    let mut survived = 0;
    for (index, point) in points.iter().enumerate() {
        let ran = act(journal, index + 2).kill_at(point);
        journal.counts.faults += usize::from(ran.killed);
        survived += usize::from(!ran.killed);
        assert!(ran.killed || ran.acknowledged(), "{point:?}: {ran:?}");
        after(journal, index + 2, &ran);
    }
    let seen = points.iter().filter(|point| point.seen).count();
    assert!(survived <= points.len() - seen + seen / 4, "few were hit: {survived} {points:?}");
}
