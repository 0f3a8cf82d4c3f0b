//! Processes as `/proc` shows them, and signals that reach the one that was meant.
//!
//! A pid may be used again between looking and signalling, so nothing is ever signalled by bare
//! pid: the process is opened (`pidfd_open`), looked at again, and signalled through that.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

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

/// The process with this pid; `None` if there is none, or only its exit code is left.
pub fn look(pid: i32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(pid: i32, stat: &str) -> Option<Process> {
    parse_any(pid, stat).filter(|(lives, _)| *lives).map(|(_, process)| process)
}

/// Reads `/proc/PID/stat`: whether it lives, and which it is. The second field is the name, in
/// parentheses, and may hold anything.
fn parse_any(pid: i32, stat: &str) -> Option<(bool, Process)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let process = Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        ticks: fields.get(19)?.parse().ok()?,
    };
    Some((!matches!(*fields.first()?, "Z" | "X"), process))
}

/// When the process that has this pid started, even if only its exit code is left.
fn ticks_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_any(pid, &stat).map(|(_, process)| process.ticks)
}

/// Every process that lives.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(look)
        .collect()
}

/// All that descend from a process, without those that are `other` and what descends from them.
pub fn descendants(ancestor: i32, other: impl Fn(i32) -> bool) -> Vec<Process> {
    let all = all();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|p| p.parent == parent && !other(p.pid)) {
            if !found.iter().any(|known| known.pid == process.pid) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Whether a process runs this program (or what stood in its place before an update) with
/// `word` as its first argument.
pub fn runs_this_program(pid: i32, word: &str) -> bool {
    let program = |pid: &str| {
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?.into_os_string();
        let path = path.into_string().ok()?;
        Some(path.trim_end_matches(" (deleted)").to_string())
    };
    let own = program("self");
    own.is_some()
        && program(&pid.to_string()) == own
        && fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(word.as_bytes()))
}

/// What is left of a job whose supervisor died: processes that have the job's id in their
/// environment or belong to the session of its program, and started no earlier than that did.
/// The session counts only while its number can still be that program's: the pid is free, for the
/// kernel gives none away that names a session, or that very process has it.
pub fn remains(id: &str, pid: i32, ticks: u64) -> Vec<Process> {
    let mark = format!("CORKBOARD_NODEJOB={id}");
    let all = all();
    // After the list: a leader seen in it that has gone since leaves its session in doubt.
    let own_session = ticks_of(pid).map_or_else(
        || all.iter().all(|process| process.pid != pid || process.ticks == ticks),
        |now| now == ticks,
    );
    all.into_iter()
        .filter(|process| process.ticks >= ticks)
        .filter(|process| {
            (own_session && process.session == pid) || has_in_environment(process.pid, &mark)
        })
        .collect()
}

fn has_in_environment(pid: i32, mark: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()))
}

/// Signals exactly this process; `false` if it is gone.
pub fn signal(process: &Process, signal: Signal) -> bool {
    let Some(fd) = open(process.pid) else { return false };
    // Whatever has the pid now keeps it in our hands; is it the one that was meant?
    look(process.pid).is_some_and(|now| now.ticks == process.ticks) && send(&fd, signal)
}

/// A descriptor of the process with this pid.
pub fn open(pid: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
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
        let process = parse(7, &format!("7 (a) b) (c) {rest}")).unwrap();
        assert_eq!(process, Process { pid: 7, parent: 1, session: 3, ticks: 4711 });
        assert_eq!(parse(7, &format!("7 (a) {}", rest.replacen('S', "Z", 1))), None);
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
        let found = |ticks: u64| remains("no-such-job", pid, ticks).contains(&leader);
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
