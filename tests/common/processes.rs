//! Processes of test roots, as `/proc` shows them, and their end.
//!
//! A test's process adopts what its programs leave behind, so that everything that it started,
//! however indirectly, descends from it until it ends. Only such processes are ever signalled here,
//! and none by a bare pid: it is opened, looked at again, and signalled through that.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Until processes that got SIGKILL must have ended.
const UNTIL_ENDED: Duration = Duration::from_secs(20);

/// A process that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    /// When it started: a pid may be used again.
    ticks: u64,
}

impl Process {
    /// `None` if there is none with this pid, or only its exit code is left.
    pub fn look(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse().ok();
        let ticks = fields.get(19)?.parse().ok()?;
        let lives = !matches!(*fields.first()?, "Z" | "X");
        lives.then_some(Process { pid, parent: number(1)?, session: number(3)?, ticks })
    }

    /// Whether `NAME=VALUE` is in its environment.
    pub fn has(&self, variable: &str) -> bool {
        self.variables(|found| found == variable)
    }

    /// Whether one of the variables in its environment is so.
    pub fn variables(&self, is_so: impl Fn(&str) -> bool) -> bool {
        let environ = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&environ).split('\0').any(is_so)
    }

    /// The words by which it was started.
    pub fn words(&self) -> Vec<String> {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.split('\0').filter(|word| !word.is_empty()).map(String::from).collect()
    }

    /// What holds exactly this process; `None` if it has ended.
    fn open(&self) -> Option<OwnedFd> {
        // SAFETY: takes two integers, and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Process::look(self.pid).filter(|now| now.ticks == self.ticks).map(|_| fd)
    }

    /// Signals exactly this process; `false` if it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        self.open().is_some_and(|fd| send(&fd, signal))
    }
}

fn send(fd: &OwnedFd, signal: Signal) -> bool {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor, a signal's number, no information, no flags.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as i32, none, 0) == 0
    }
}

/// Whether a process has ended before this time.
fn ends(fd: &OwnedFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], patience), Ok(1))
}

/// From now on this process is the parent of what its descendants leave behind.
pub fn adopt_orphans() {
    prctl::set_child_subreaper(true).unwrap();
}

fn all() -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::look).collect()
}

/// Everything that descends from this process; parents come before their children.
fn descendants() -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![own_pid()];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        parents.extend(children.clone().map(|child| child.pid));
        found.extend(children.cloned());
    }
    found
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

fn mark(root: &Path) -> String {
    format!("CORKBOARD_ROOT={}", root.display())
}

/// Programs of these roots: what has one of them in its environment. Jobs have not.
pub fn of_roots(roots: &[PathBuf]) -> Vec<Process> {
    let marks: Vec<String> = roots.iter().map(|root| mark(root)).collect();
    let is_ours = |process: &Process| process.variables(|found| marks.iter().any(|m| m == found));
    descendants().into_iter().filter(is_ours).collect()
}

/// Everything of a root: its programs, what descends from them, and what was left behind by jobs of
/// it. With `orphans` also what was left behind by nobody knows whom: a job may have left its
/// session and cleared its environment.
fn all_of_root(root: &Path, orphans: bool) -> Vec<Process> {
    let mark = mark(root);
    let jobs = fs::read_dir(root.join("state/processor/job")).into_iter().flatten().flatten();
    let jobs: BTreeSet<String> = jobs
        .map(|entry| format!("CORKBOARD_NODEJOB={}", entry.file_name().to_string_lossy()))
        .collect();
    let own = Process::look(own_pid()).unwrap();
    let mut ours = BTreeSet::new();
    let mut found = descendants();
    found.retain(|process| {
        let is_orphan = || {
            // What the test itself started is in its session.
            let left = process.parent == own.pid && process.session != own.session;
            let unknown = || !process.variables(|found| found.starts_with("CORKBOARD_ROOT="));
            left && (process.variables(|found| jobs.contains(found)) || (orphans && unknown()))
        };
        let is_ours = ours.contains(&process.parent) || process.has(&mark) || is_orphan();
        is_ours && ours.insert(process.pid)
    });
    found
}

/// Ends everything of a root, and waits until it has; see [`all_of_root`] for `orphans`. All are
/// stopped before the first is killed, so that none can start another, nor leave its children,
/// which nobody would know any more. Nothing is reaped here: those that the test itself started
/// are for it to wait for, and the others' exit codes end with the test.
pub fn end_all(root: &Path, orphans: bool) -> Result<(), String> {
    let deadline = Instant::now() + UNTIL_ENDED;
    loop {
        let mut stopped: Vec<(Process, OwnedFd)> = Vec::new();
        loop {
            let new = all_of_root(root, orphans).into_iter();
            let new =
                new.filter(|process| !stopped.iter().any(|(known, _)| known.pid == process.pid));
            let new: Vec<_> =
                new.filter_map(|process| Some((process.clone(), process.open()?))).collect();
            if new.is_empty() {
                break;
            }
            for (_, fd) in &new {
                send(fd, Signal::SIGSTOP);
            }
            stopped.extend(new);
            if Instant::now() >= deadline {
                break;
            }
        }
        if stopped.is_empty() {
            return Ok(());
        }
        for (_, fd) in &stopped {
            send(fd, Signal::SIGKILL);
        }
        let left: Vec<_> = stopped
            .iter()
            .filter(|(_, fd)| !ends(fd, deadline))
            .map(|(process, _)| format!("{process:?} {:?}", process.words()))
            .collect();
        if !left.is_empty() || Instant::now() >= deadline {
            return Err(format!("processes of {} do not end: {left:?}", root.display()));
        }
    }
}
