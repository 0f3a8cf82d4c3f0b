//! A time of day that is set while programs run: they are traced, and every call that tells them the
//! time of day, or that of a file, tells another one. What goes on steadily does so.
//!
//! A program reads the clock from a page that the kernel maps for it. A program that does not find
//! that page, since the entry that names it was hidden when it was executed, asks the kernel.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{io, mem, thread};

use nix::libc;

use crate::common::{SOON, signal, until};

/// In seconds.
pub const YEAR: i64 = 365 * 86_400;

const AT_NULL: u64 = 0;
const AT_IGNORE: u64 = 1;
const AT_SYSINFO_EHDR: u64 = 33;

/// The clock of the programs that are started by it.
#[derive(Clone, Default)]
pub struct Clock {
    /// Since when, by the machine's own clock, it has been off by how many seconds.
    set: Arc<Mutex<Vec<(i64, i64)>>>,
}

/// A program that was started; it, and all that it has started, dies with the test.
pub struct Traced {
    pub pid: i32,
    ended: Receiver<i32>,
}

impl Traced {
    /// Waits until it has ended; its exit code, or 128 and the signal that ended it.
    pub fn ended(self) -> i32 {
        self.ended.recv_timeout(SOON).expect("it has not ended")
    }

    /// Sends it a signal, and waits likewise.
    pub fn end(self, name: &str) -> i32 {
        signal(self.pid, name);
        self.ended()
    }
}

impl Clock {
    /// From now on it is off by so many seconds.
    pub fn set(&self, offset: i64) {
        // What was written before has an earlier time, in whole seconds.
        let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let before = second();
        until("the next second has begun", || second() > before);
        self.set.lock().unwrap().push((now(), offset));
    }

    /// Starts a program that goes by this clock, and so does all that it starts.
    pub fn start(&self, mut command: Command) -> Traced {
        let (tell, ended) = channel();
        let (tell_pid, pid) = channel();
        let clock = self.clone();
        // A process is traced by one thread.
        #[allow(clippy::zombie_processes)] // it is waited for as what is traced
        thread::spawn(move || {
            // SAFETY: one system call between fork and exec.
            unsafe {
                command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0, 0));
            }
            let child = command.spawn().unwrap();
            let pid = child.id() as i32;
            tell_pid.send(pid).unwrap();
            Tracer { clock, main: pid, known: HashSet::from([pid]), calls: HashMap::new() }
                .run(|code| tell.send(code).unwrap_or(()));
        });
        Traced { pid: pid.recv_timeout(SOON).unwrap(), ended }
    }

    /// What it says at this time of the machine's clock.
    fn shown(&self, time: i64) -> i64 {
        let set = self.set.lock().unwrap();
        let offset = set.iter().rev().find(|(since, _)| *since <= time);
        time + offset.map_or(0, |(_, offset)| *offset)
    }

    fn offset(&self) -> i64 {
        self.set.lock().unwrap().last().map_or(0, |(_, offset)| *offset)
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

struct Tracer {
    clock: Clock,
    main: i32,
    known: HashSet<i32>,
    /// The calls that are under way: number and arguments.
    calls: HashMap<i32, (i64, [u64; 6])>,
}

impl Tracer {
    fn run(mut self, ended: impl Fn(i32)) {
        let mut begun = false;
        loop {
            let mut status = 0;
            // SAFETY: it fills in an integer of ours. Of this thread's children alone.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => continue,
                    _ => return, // none is left
                }
            }
            if !libc::WIFSTOPPED(status) {
                self.known.remove(&pid);
                if pid == self.main {
                    ended(match libc::WIFEXITED(status) {
                        true => libc::WEXITSTATUS(status),
                        false => 128 + libc::WTERMSIG(status),
                    });
                }
                continue;
            }
            if !begun {
                begun = true;
                let options = libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_TRACECLONE
                    | libc::PTRACE_O_TRACEFORK
                    | libc::PTRACE_O_TRACEVFORK
                    | libc::PTRACE_O_TRACEEXEC
                    | libc::PTRACE_O_EXITKILL;
                ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as usize).unwrap();
                let _ = hide_page(pid);
                let _ = ptrace(libc::PTRACE_SYSCALL, pid, 0, 0);
                continue;
            }
            let (stop, event) = (libc::WSTOPSIG(status), status >> 16);
            // What is killed meanwhile is told of next.
            let passed_on = match stop {
                _ if stop == libc::SIGTRAP | 0x80 => {
                    let _ = self.call(pid);
                    0
                }
                libc::SIGTRAP if event == libc::PTRACE_EVENT_EXEC => {
                    let _ = hide_page(pid);
                    0
                }
                libc::SIGTRAP => 0,
                libc::SIGSTOP if self.known.insert(pid) => 0, // it has just been made
                other => other,
            };
            let _ = ptrace(libc::PTRACE_SYSCALL, pid, 0, passed_on as usize);
        }
    }

    /// A system call begins or ends.
    fn call(&mut self, pid: i32) -> io::Result<()> {
        let info = info(pid)?;
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: what it is says which part of the union is there.
                let entry = unsafe { info.u.entry };
                let (number, args) = (entry.nr as i64, entry.args);
                self.calls.insert(pid, (number, args));
                if number == libc::SYS_utimensat && args[2] != 0 {
                    let memory = Memory::of(pid)?;
                    for time in [args[2], args[2] + 16] {
                        let nanos = memory.read(time + 8)? as i64;
                        if ![libc::UTIME_NOW, libc::UTIME_OMIT].contains(&nanos) {
                            memory.shift(time, |time| time - self.clock.offset())?;
                        }
                    }
                }
                Ok(())
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: likewise.
                let failed = unsafe { info.u.exit.is_error } != 0;
                let Some((number, args)) = self.calls.remove(&pid).filter(|_| !failed) else {
                    return Ok(());
                };
                let is_of_day = |id: u64| id == 0 || id == 5; // CLOCK_REALTIME, and the coarse one
                let times: Vec<u64> = match number {
                    libc::SYS_clock_gettime if is_of_day(args[0]) => {
                        return Memory::of(pid)?.shift(args[1], |time| time + self.clock.offset());
                    }
                    libc::SYS_gettimeofday if args[0] != 0 => {
                        return Memory::of(pid)?.shift(args[0], |time| time + self.clock.offset());
                    }
                    libc::SYS_stat | libc::SYS_lstat | libc::SYS_fstat => of_stat(args[1]),
                    libc::SYS_newfstatat => of_stat(args[2]),
                    libc::SYS_statx => [64, 80, 96, 112].map(|at| args[4] + at).to_vec(),
                    _ => return Ok(()),
                };
                let memory = Memory::of(pid)?;
                times.into_iter().try_for_each(|at| memory.shift(at, |t| self.clock.shown(t)))
            }
            _ => Ok(()),
        }
    }
}

/// Where the times of a `struct stat` are.
fn of_stat(stat: u64) -> Vec<u64> {
    [72, 88, 104].map(|at| stat + at).to_vec()
}

/// Hides where the kernel's page is from a program that is about to begin.
fn hide_page(pid: i32) -> io::Result<()> {
    let memory = Memory::of(pid)?;
    let mut at = info(pid)?.stack_pointer;
    at += 8 + 8 * (memory.read(at)? + 1); // how many arguments, and they
    while memory.read(at)? != 0 {
        at += 8; // the environment
    }
    at += 8;
    loop {
        match memory.read(at)? {
            AT_NULL => return Ok(()),
            AT_SYSINFO_EHDR => memory.write(at, AT_IGNORE)?,
            _ => {}
        }
        at += 16;
    }
}

/// The memory of a process that is stopped.
struct Memory(File);

impl Memory {
    fn of(pid: i32) -> io::Result<Memory> {
        File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).map(Memory)
    }

    fn read(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn write(&self, at: u64, value: u64) -> io::Result<()> {
        self.0.write_all_at(&value.to_ne_bytes(), at)
    }

    fn shift(&self, at: u64, to: impl Fn(i64) -> i64) -> io::Result<()> {
        self.write(at, to(self.read(at)? as i64) as u64)
    }
}

fn info(pid: i32) -> io::Result<libc::ptrace_syscall_info> {
    // SAFETY: zeros are a value of this structure of numbers.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let (size, at) = (size_of_val(&info), (&raw mut info).addr());
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, at)?;
    Ok(info)
}

/// The calls of ptrace(2) whose result is no value.
fn ptrace(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: none of the requests here touches memory of ours but that of `info`, which has the size
    // that is told.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
