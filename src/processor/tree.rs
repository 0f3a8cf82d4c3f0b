//! Processes as `/proc` shows them, and signals that reach the one that was meant.
//!
//! A pid may be used again between looking and signalling, so nothing is ever signalled by bare
//! pid: the process is opened (`pidfd_open`), looked at again, and signalled through that.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::error::{At, Error, Kind, Result, is_shortage};

/// Longest line of processes that is followed: it is read while it may change.
const LONGEST_LINE: usize = 1000;

/// A process that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its session's.
    pub session: i32,
    /// When it started, in clock ticks after boot.
    pub ticks: u64,
}

impl Process {
    /// What no other process of this boot has in common with it.
    pub fn identity(&self) -> (i32, u64) {
        (self.pid, self.ticks)
    }
}

/// A file of `/proc`, read by few calls: it does not say how long it is.
pub fn text(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(8192);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// An error where `/proc` shows the processes of another pid namespace: what has a number there is
/// somebody else here, and would be signalled.
pub fn is_of_this_namespace() -> Result<()> {
    let path = Path::new("/proc/self");
    let own = fs::read_link(path).at(path)?;
    if own.to_str() == Some(&std::process::id().to_string()) {
        return Ok(());
    }
    let why = "/proc is of another pid namespace, so jobs could not be ended: mount the right one (unshare --mount-proc)";
    Err(Error::new(Kind::Internal, why))
}

/// The process with this pid; `None` if there is none, or only its exit code is left.
pub fn look(pid: i32) -> Option<Process> {
    parse(pid, &text(&format!("/proc/{pid}/stat")).ok()?)
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    parse_any(pid, stat).filter(|(lives, _)| *lives).map(|(_, process)| process)
}

/// Reads `/proc/PID/stat`: whether it lives, and which it is. The second field is the name, in
/// parentheses, and may hold anything. A process whose first thread has exited looks like one of
/// which only the exit code is left, and lives as long as others of its threads do.
fn parse_any(pid: i32, stat: &str) -> Option<(bool, Process)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let process = Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        ticks: fields.get(19)?.parse().ok()?,
    };
    let ended = matches!(*fields.first()?, "Z" | "X");
    let threads: u32 = fields.get(17)?.parse().ok()?;
    Some((!ended || threads > 1, process))
}

/// When the process that has this pid started, even if only its exit code is left.
fn ticks_of(pid: i32) -> io::Result<Option<u64>> {
    let stat = unless_short(fs::read_to_string(format!("/proc/{pid}/stat")))?;
    Ok(stat.and_then(|stat| parse_any(pid, &stat)).map(|(_, process)| process.ticks))
}

/// What could be read; `None` where there is nothing that this process may see. What it lacks itself
/// proves nothing and is an error.
fn unless_short<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Every process that lives. An error where this process lacks what it takes to see all.
pub fn all() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = unless_short(text(&format!("/proc/{pid}/stat")))?;
        found.extend(stat.and_then(|stat| parse(pid, &stat)));
    }
    Ok(found)
}

/// The children of a process as the kernel lists them: in time that goes by their number, so that
/// those that live for an instant are met, too. `None` where it does not, or the process is gone.
fn listed_children(pid: i32) -> Option<Vec<Process>> {
    let mut found = Vec::new();
    let mut is_listed = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let Ok(text) = fs::read_to_string(thread.path().join("children")) else { continue };
        is_listed = true;
        found.extend(text.split_whitespace().filter_map(|child| look(child.parse().ok()?)));
    }
    is_listed.then_some(found)
}

/// The children of a process, save those that are born or orphaned meanwhile.
pub fn children(pid: i32) -> Vec<Process> {
    let seen = || all().unwrap_or_default(); // whoever looks looks again
    listed_children(pid)
        .unwrap_or_else(|| seen().into_iter().filter(|process| process.parent == pid).collect())
}

/// All that descend from a process, without those that are `other` and what descends from them;
/// each after its parent. What is born or orphaned meanwhile may be missing.
pub fn descendants(ancestor: i32, other: impl Fn(i32) -> bool) -> Vec<Process> {
    let is_listed = listed_children(ancestor).is_some();
    let all = if is_listed { None } else { Some(all().unwrap_or_default()) };
    let of = |parent: i32| match &all {
        Some(all) => all.iter().filter(|process| process.parent == parent).copied().collect(),
        None => listed_children(parent).unwrap_or_default(),
    };
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in of(parent).into_iter().filter(|process| !other(process.pid)) {
            if !found.iter().any(|known| known.pid == process.pid) {
                found.push(process);
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Whether a process runs a program of this file name, wherever that lies (or lay, before an
/// update), with `word` as its first argument.
pub fn runs(pid: i32, program: &str, word: &str) -> bool {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let path = path.and_then(|path| path.into_os_string().into_string().ok());
    let name = path.as_deref().map(|path| path.trim_end_matches(" (deleted)"));
    name.and_then(|path| path.rsplit('/').next()) == Some(program)
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(word.as_bytes()))
}

/// What is left of a job whose supervisor died: processes that have the job's id in their
/// environment or belong to the session of its program, and started no earlier than that did.
/// The session counts only while its number can still be that program's: the pid is free, for the
/// kernel gives none away that names a session, or that very process has it.
///
/// Errors: this process lacks what it takes to look, and nothing is known.
pub fn remains(id: &str, pid: i32, ticks: u64) -> io::Result<Vec<Process>> {
    let mark = format!("CORKBOARD_NODEJOB={id}");
    let all = all()?;
    // After the list: a leader seen in it that has gone since leaves its session in doubt.
    let own_session = ticks_of(pid)?.map_or_else(
        || all.iter().all(|process| process.pid != pid || process.ticks == ticks),
        |now| now == ticks,
    );
    let mut found = Vec::new();
    for process in all.into_iter().filter(|process| process.ticks >= ticks) {
        if own_session && process.session == pid || has_in_environment(process.pid, &mark)? {
            found.push(process);
        }
    }
    Ok(found)
}

/// The process and those that it descends from, the nearest first.
pub fn line(process: &Process) -> impl Iterator<Item = Process> {
    std::iter::successors(Some(*process), |process| look(process.parent)).take(LONGEST_LINE)
}

/// The value of a variable in the environment that a process was started with.
pub fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = bytes.split(|b| *b == 0);
    variables
        .find_map(|pair| Some(pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec()))
}

fn has_in_environment(pid: i32, mark: &str) -> io::Result<bool> {
    let has = |path: &Path| -> io::Result<bool> {
        let bytes = unless_short(fs::read(path))?.unwrap_or_default();
        Ok(bytes.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()))
    };
    if has(Path::new(&format!("/proc/{pid}/environ")))? {
        return Ok(true);
    }
    // It can be read of a thread that lives; the first one need not.
    let threads = unless_short(fs::read_dir(format!("/proc/{pid}/task")))?;
    for thread in threads.into_iter().flatten().flatten() {
        if has(&thread.path().join("environ"))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Signals exactly this process; `false` if it is gone.
pub fn signal(process: &Process, signal: Signal) -> bool {
    let Ok(fd) = open(process.pid) else { return false };
    // Whatever has the pid now keeps it in our hands; is it the one that was meant?
    look(process.pid).is_some_and(|now| now.ticks == process.ticks) && send(&fd, signal)
}

/// A descriptor of the process with this pid; `ESRCH` if there is none.
pub fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals the process that a descriptor stands for; `false` if it is gone.
pub fn send(fd: &OwnedFd, signal: Signal) -> bool {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: an open descriptor, a signal's number, no information, no flags.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as i32, none, 0) == 0
    }
}

/// Whether the process that a descriptor stands for has ended.
pub fn has_ended(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let rest = "S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99";
        let zombie = format!("7 (a) {}", rest.replacen('S', "Z", 1));
        let process = parse(7, &format!("7 (a) b) (c) {rest}")).unwrap();
        assert_eq!(process, Process { pid: 7, parent: 1, session: 3, ticks: 4711 });
        assert_eq!(parse(7, &zombie), None);
        // Its first thread has exited, another one runs.
        assert!(parse(7, &zombie.replace(" 0 1 0 4711", " 0 2 0 4711")).is_some());
    }

    #[test]
    fn a_session_of_another_leader_is_no_remains() {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new("sleep");
        // SAFETY: setsid is a bare system call, which may be made between fork and exec.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(Into::into)) };
        let mut child = command.arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        let leader = look(pid).unwrap();
        let found = |ticks: u64| remains("no-such-job", pid, ticks).unwrap().contains(&leader);
        // The recorded program had the same pid, and started earlier.
        let (own, other) = (found(leader.ticks), found(leader.ticks - 1));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own && !other);
    }

    #[test]
    fn finds_itself() {
        let own = look(std::process::id() as i32).unwrap();
        assert!(descendants(own.parent, |_| false).contains(&own));
        assert!(!descendants(own.parent, |pid| pid == own.pid).contains(&own));
    }
}
