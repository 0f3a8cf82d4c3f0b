//! Which pages of a program are touched while it runs: what would be read of it if nothing were read
//! ahead.
//!
//! The program is held before its first instruction. There it is made to say, by a system call that it
//! finds in the vDSO, that its file will be read at random, so that from then on each page is read for
//! itself; what was read for the exec is dropped; then it goes on.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::{self, c_long, c_void, pid_t, user_regs_struct};

use crate::Result;

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Pages that the file's own count misses: that of its head, which exec reads, and that of its data's
/// end, of which the process has a copy by then.
pub const OTHERS: usize = 2;

/// Runs a program to its end, nothing of its file being read ahead.
pub fn run(command: &mut Command, file: &File, path: &Path) -> Result<()> {
    // SAFETY: ptrace alone, between fork and exec, with no memory of this process.
    unsafe {
        command.pre_exec(|| called(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)).map(|_| ()));
    }
    let pid = command.spawn()?.id() as pid_t;
    let done = hold(pid, path).and_then(|()| {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
    });
    // SAFETY: a child of this process that is held; it goes on, or is ended.
    unsafe {
        match done {
            Ok(()) => libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0),
            Err(_) => libc::kill(pid, libc::SIGKILL).into(),
        };
    }
    let status = wait(pid)?;
    done?;
    if status == 0 {
        Ok(())
    } else {
        Err(format!("{}: wait status {status}", path.display()).into())
    }
}

/// Waits until the child is held, then advises the kernel about all that it has mapped of its file.
fn hold(pid: pid_t, path: &Path) -> Result<()> {
    wait(pid)?;
    let began = registers(pid)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let place = syscall_of(pid, &maps)?;
    let name = path.to_str().ok_or("a path that is no text")?;
    for line in maps.lines().filter(|line| line.ends_with(name)) {
        let (start, end) = range(line)?;
        let asked = user_regs_struct {
            rip: place,
            rax: libc::SYS_madvise as u64,
            orig_rax: u64::MAX, // no call that is under way would be begun anew
            rdi: start,
            rsi: end - start,
            rdx: libc::MADV_RANDOM as u64,
            ..began
        };
        set_registers(pid, &asked)?;
        // SAFETY: lets a held child execute the one instruction that it was pointed to.
        called(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) })?;
        wait(pid)?;
        let answer = registers(pid)?.rax as i64;
        if answer != 0 {
            return Err(format!("madvise in the child: {answer}").into());
        }
    }
    set_registers(pid, &began)
}

/// Where the child finds a system call that is not in its file.
fn syscall_of(pid: pid_t, maps: &str) -> Result<u64> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).ok_or("no vDSO")?;
    let (start, end) = range(line)?;
    let mut code = vec![0; usize::try_from(end - start)?];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut code, start)?;
    let at = code.windows(SYSCALL.len()).position(|bytes| bytes == SYSCALL);
    Ok(start + at.ok_or("no system call in the vDSO")? as u64)
}

/// The addresses of a line of `maps`.
fn range(line: &str) -> Result<(u64, u64)> {
    let range = line.split(' ').next().and_then(|range| range.split_once('-'));
    let (start, end) = range.ok_or("a line without a range")?;
    Ok((u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?))
}

fn registers(pid: pid_t) -> Result<user_regs_struct> {
    // SAFETY: numbers alone, for which zeros are valid; the call fills them.
    let mut registers: user_regs_struct = unsafe { mem::zeroed() };
    // SAFETY: the last argument is a structure of the kind that the kernel writes.
    called(unsafe {
        libc::ptrace(libc::PTRACE_GETREGS, pid, ptr::null_mut::<c_void>(), &raw mut registers)
    })?;
    Ok(registers)
}

fn set_registers(pid: pid_t, registers: &user_regs_struct) -> Result<()> {
    // SAFETY: the last argument is a structure of the kind that the kernel reads.
    called(unsafe {
        libc::ptrace(libc::PTRACE_SETREGS, pid, ptr::null_mut::<c_void>(), ptr::from_ref(registers))
    })?;
    Ok(())
}

fn wait(pid: pid_t) -> Result<i32> {
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited == pid { Ok(status) } else { Err(io::Error::last_os_error().into()) }
}

fn called(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
