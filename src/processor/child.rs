//! Starting a program: what the child does between fork and exec.
//!
//! The child stops at a gate, a connection to its supervisor alone, until its `running` line is in
//! the job's story. If the supervisor dies before it opened the gate, the child reads the end of
//! the connection and exits. So a program that was started has a line, whatever was killed when: a
//! job without one never ran and may be started, one with a line never is again. The supervisor
//! has the only other end: once it is dead nobody can open the gate, which is why whoever sees its
//! lock free may rely on this without waiting for the child.
//!
//! Each child has a gate of its own. What one does not read, because it is killed there, or what it
//! has said and nobody read, ends with it, and never reaches the next.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid, chdir, execve, fork, getpid, getppid, setsid};

use super::tree;
use crate::error::{At, Error, Result, reason};
use crate::model::outcome::Outcome;

/// The program was not found.
const NOT_FOUND: i32 = 127;
/// The program was found and could not be started, or its directory could not be entered.
const NOT_STARTED: i32 = 126;

const STEP_DIR: u8 = 1;
const STEP_EXEC: u8 = 2;
const STEP_BOUNDS: u8 = 3;

/// A program, ready to be started.
#[derive(Debug)]
pub struct Program {
    argv: Vec<CString>,
    /// Where it may be, in the order of `PATH`.
    candidates: Vec<CString>,
    env: Vec<CString>,
    dir: CString,
}

impl Program {
    /// Prepares a program; `path` is the `PATH` of its environment.
    pub fn new(argv: &[String], env: &[String], path: &str, dir: &str) -> Result<Program> {
        let name = argv.first().map(String::as_str).unwrap_or_default();
        let candidates = if name.contains('/') {
            vec![text(name)?]
        } else {
            let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
            dirs.map(|dir| text(&format!("{dir}/{name}"))).collect::<Result<_>>()?
        };
        Ok(Program {
            argv: argv.iter().map(|word| text(word)).collect::<Result<_>>()?,
            candidates,
            env: env.iter().map(|pair| text(pair)).collect::<Result<_>>()?,
            dir: text(dir)?,
        })
    }

    /// Never returns if one of the candidates could be executed; as `execvp` searches, and like
    /// it hands a script without `#!` to the shell.
    fn exec(&self) -> Errno {
        let mut error = Errno::ENOENT;
        for candidate in &self.candidates {
            let failed = match execve(candidate, &self.argv, &self.env) {
                Err(Errno::ENOEXEC) => self.shell(candidate),
                Err(errno) => errno,
                Ok(never) => match never {},
            };
            match failed {
                Errno::ENOENT | Errno::ENOTDIR => {}
                Errno::EACCES => error = Errno::EACCES,
                other => return other,
            }
        }
        error
    }

    fn shell(&self, script: &CStr) -> Errno {
        let mut argv: Vec<&CStr> = vec![c"sh", script];
        argv.extend(self.argv.iter().skip(1).map(CString::as_c_str));
        let result: nix::Result<Infallible> = execve(c"/bin/sh", &argv, &self.env);
        match result {
            Err(errno) => errno,
            Ok(never) => match never {},
        }
    }

    /// What a person reads when it could not be started.
    fn outcome(&self, step: u8, errno: Errno) -> Outcome {
        let why = reason(&io::Error::from(errno));
        let quoted = |text: Option<&CString>| {
            format!("{:?}", text.map(|t| t.to_string_lossy()).unwrap_or_default())
        };
        if step == STEP_DIR {
            let dir = quoted(Some(&self.dir));
            return Outcome::not_started(
                NOT_STARTED,
                format!("cannot enter directory {dir}: {why}"),
            );
        }
        if step == STEP_BOUNDS {
            let said = format!("cannot be held to its limits: {why}");
            return Outcome::not_started(NOT_STARTED, said);
        }
        let code =
            if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) { NOT_FOUND } else { NOT_STARTED };
        Outcome::not_started(code, format!("cannot start {}: {why}", quoted(self.argv.first())))
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::bad("a NUL byte in the request"))
}

/// The descriptors that a program gets as 0, 1 and 2.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// What a child is held to from before its program starts.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// The cores that it runs on; all that its supervisor has, if none are named.
    pub cpus: Option<&'a CpuSet>,
    /// Control groups that it enters, by the files for that.
    pub groups: &'a [CString],
    /// Most bytes of addresses that each of its processes may have.
    pub address_space: Option<u64>,
}

impl Bounds<'_> {
    /// Of this process. Nothing but system calls.
    fn apply(&self) -> nix::Result<()> {
        if let Some(cpus) = self.cpus {
            // Cores that have gone meanwhile are no reason not to start: it runs on the others then.
            let _ = sched_setaffinity(Pid::from_raw(0), cpus);
        }
        for file in self.groups {
            let file = open(file.as_c_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            nix::unistd::write(&file, b"0")?;
        }
        self.address_space.map_or(Ok(()), |most| setrlimit(Resource::RLIMIT_AS, most, most))
    }
}

/// A child at the gate, or past it.
#[derive(Debug, Clone, Copy)]
pub struct Child {
    /// Its process id.
    pub pid: Pid,
    /// When it started, in clock ticks after boot.
    pub ticks: u64,
}

/// The gate at which a child waits. Afterwards the child says through it why it could not start its
/// program.
#[derive(Debug)]
pub struct Gate {
    /// The supervisor's end.
    end: UnixStream,
}

impl Gate {
    /// Makes a child that waits at a gate of its own, in this group of version 2 if there is one.
    pub fn fork(
        program: &Program,
        ends: Ends,
        bounds: Bounds,
        group: Option<BorrowedFd>,
    ) -> std::result::Result<(Child, Gate), NotBorn> {
        // Close-on-exec, both.
        let (end, childs_end) = UnixStream::pair().at("socket").map_err(NotBorn::At)?;
        end.set_nonblocking(true).at("socket").map_err(NotBorn::At)?;
        let gate = Gate { end };
        let parent = getpid();
        let before = ticks_now();
        match fork_into(group)? {
            ForkResult::Child => gate.child(&childs_end, program, (ends, bounds), parent),
            ForkResult::Parent { child } => {
                // The kernel takes its start from the same clock; where a tick went by
                // meanwhile, ask.
                let ticks = match before {
                    Some(before) if Some(before) == ticks_now() => before,
                    before => {
                        let seen = tree::look(child.as_raw()).map(|process| process.ticks);
                        seen.or(before).unwrap_or(0)
                    }
                };
                Ok((Child { pid: child, ticks }, gate))
            }
        }
    }

    /// Lets the child start its program. The caller has stamped its line before. One that was
    /// killed at the gate is no error: its end will be seen.
    pub fn open(&mut self) -> Result<()> {
        match self.end.write_all(&[1]) {
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            written => written.at("socket"),
        }
    }

    /// What the child, which has exited with this code, had to say about its start.
    pub fn complaint(&mut self, program: &Program, code: i32) -> Option<Outcome> {
        if code != NOT_FOUND && code != NOT_STARTED {
            return None;
        }
        let mut message = [0u8; 5];
        self.end.read_exact(&mut message).ok()?;
        let errno = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
        Some(program.outcome(message[0], Errno::from_raw(errno)))
    }

    fn child(&self, own: &UnixStream, program: &Program, around: (Ends, Bounds), parent: Pid) -> ! {
        let (step, errno) = match self.become_program(own, program, around, parent) {
            Ok(Never::Orphan) => exit(1),
            Err(failed) => failed,
        };
        let mut message = [step; 5];
        message[1..].copy_from_slice(&(errno as i32).to_ne_bytes());
        let _ = { own }.write_all(&message); // then the code alone speaks
        let missing = step == STEP_EXEC && matches!(errno, Errno::ENOENT | Errno::ENOTDIR);
        exit(if missing { NOT_FOUND } else { NOT_STARTED })
    }

    fn become_program(
        &self,
        own: &UnixStream,
        program: &Program,
        (ends, bounds): (Ends, Bounds),
        parent: Pid,
    ) -> std::result::Result<Never, (u8, Errno)> {
        let exec = |errno| (STEP_EXEC, errno);
        // SAFETY: the child's own copy, never used again; while it is open the end of the
        // connection would never be read.
        unsafe { libc::close(self.end.as_raw_fd()) };
        setsid().map_err(exec)?;
        // It dies with its supervisor, which may have died already.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(exec)?;
        if getppid() != parent {
            return Ok(Never::Orphan);
        }
        for (fd, target) in [(ends.stdin, 0), (ends.stdout, 1), (ends.stderr, 2)] {
            // SAFETY: 0, 1 and 2 are /dev/null in a supervisor, and nothing owns them.
            if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
                return Err(exec(Errno::last()));
            }
        }
        umask(Mode::from_bits_truncate(0o022));
        default_signals().map_err(exec)?;
        bounds.apply().map_err(|errno| (STEP_BOUNDS, errno))?;
        let mut opened = [0u8; 1];
        loop {
            match nix::unistd::read(own.as_fd(), &mut opened) {
                Ok(1) => break,
                Err(Errno::EINTR) => {}
                _ => return Ok(Never::Orphan),
            }
        }
        chdir(program.dir.as_c_str()).map_err(|errno| (STEP_DIR, errno))?;
        Err(exec(program.exec()))
    }
}

/// Why there is no child.
#[derive(Debug)]
pub enum NotBorn {
    /// There can be none now.
    At(Error),
    /// There can be none in this group.
    There(Errno),
}

/// `fork`, into a group if there is one. The child must do nothing but what may be done between
/// fork and exec, and leave by exec or `_exit` alone.
fn fork_into(group: Option<BorrowedFd>) -> std::result::Result<ForkResult, NotBorn> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let Some(group) = group else {
        // SAFETY: this process has a single thread, so the child may do whatever it likes.
        return unsafe { fork() }.at("fork").map_err(NotBorn::At);
    };
    // The kernel's structure as of 5.7: eleven numbers, of which the first is the flags, the fifth
    // the signal that tells of the child's end, the last the group.
    let mut arguments = [0u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = group.as_raw_fd() as u64;
    // SAFETY: the structure is of the size that is given, and asks for a copy of this process on a
    // copy of its stack, which is what fork is. The C library does not hear of it: the child, of a
    // process with a single thread, makes bare system calls alone and never asks for its thread.
    let child = unsafe {
        libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) as i32
    };
    match child {
        0 => Ok(ForkResult::Child),
        1.. => Ok(ForkResult::Parent { child: Pid::from_raw(child) }),
        _ => Err(match Errno::last() {
            errno @ (Errno::EAGAIN | Errno::ENOMEM) => {
                NotBorn::At(Error::io(std::path::Path::new("clone3"), &io::Error::from(errno)))
            }
            errno => NotBorn::There(errno),
        }),
    }
}

/// Now, in clock ticks after boot.
fn ticks_now() -> Option<u64> {
    // SAFETY: sysconf only reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    let per_tick = 1_000_000_000 / per_second;
    u64::try_from(now.tv_sec() * per_second + now.tv_nsec() / per_tick).ok()
}

/// The child must not start anything.
enum Never {
    Orphan,
}

/// Signals that whoever started this process had ignored are not to be ignored by the jobs, nor
/// here: an ignored SIGCHLD would even cost their exit codes. Those with a handler are reset when
/// a program is executed. Two are ignored here, and reset by the child: SIGPIPE, on which Rust relies,
/// and SIGXFSZ, so that what is over a limit on the length of files is as what a full disk does not take.
pub(super) fn heed_ignored_signals() {
    for number in (1..=64).filter(|number| ![libc::SIGPIPE, libc::SIGXFSZ].contains(number)) {
        // The kernel's own structure: first the handler. Zeros say the default action. The C
        // library refuses the numbers that it has reserved, which are inherited all the same.
        let mut action = [0usize; 16];
        let none = std::ptr::null::<usize>();
        // SAFETY: the buffer is larger than the kernel's structure, and a set of signals has
        // 8 bytes; no handler is involved. Numbers that nobody may change are refused.
        unsafe {
            let call = libc::SYS_rt_sigaction;
            if libc::syscall(call, number as libc::c_long, none, action.as_mut_ptr(), 8usize) == 0
                && action[0] == libc::SIG_IGN
            {
                let default = [0usize; 16];
                libc::syscall(call, number as libc::c_long, default.as_ptr(), none, 8usize);
            }
        }
    }
}

/// What this process ignores a program would inherit, like the mask.
fn default_signals() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGPIPE, Signal::SIGXFSZ] {
        // SAFETY: the default action replaces that of a signal; no handler is involved.
        unsafe { sigaction(signal, &action) }?;
    }
    SigSet::empty().thread_set_mask()
}

fn exit(code: i32) -> ! {
    // SAFETY: leaves the child at once, without running what the parent registered for its exit.
    unsafe { libc::_exit(code) }
}
