//! Which pages of a program are touched while it runs: what would be read of it if nothing were read
//! ahead. Whether a kernel reads ahead of a program cannot be switched off everywhere, so what is in
//! memory afterwards tells nothing of it; the processor's own marks of what was accessed do.
//!
//! The program is held before its first instruction. There it is made to map all of its file, by system
//! calls through an instruction that it finds in the vDSO, and all marks are cleared; at its end, before
//! its memory goes, they are counted.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use nix::libc::{self, c_long, c_void, pid_t, user_regs_struct};

use crate::Result;

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Runs a program to its end. KiB of its file that it touched.
pub fn run(command: &mut Command, path: &Path) -> Result<f64> {
    // SAFETY: ptrace alone, between fork and exec, with no memory of this process.
    unsafe {
        command.pre_exec(|| called(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0)).map(|_| ()));
    }
    let pid = command.spawn()?.id() as pid_t;
    let touched = to_its_end(pid, path);
    // SAFETY: a child of this process that is held; it goes on, or is ended.
    unsafe {
        match touched {
            Ok(_) => libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0),
            Err(_) => libc::kill(pid, libc::SIGKILL).into(),
        };
    }
    let status = wait(pid)?;
    if touched.is_ok() && status != 0 {
        return Err(format!("{}: wait status {status}", path.display()).into());
    }
    touched
}

/// Lets the child run from its exec to its end, and counts there.
fn to_its_end(pid: pid_t, path: &Path) -> Result<f64> {
    wait(pid)?;
    let name = path.to_str().ok_or("a path that is no text")?;
    map_all(pid, name)?;
    fs::write(format!("/proc/{pid}/clear_refs"), "1")?;
    let option = libc::PTRACE_O_TRACEEXIT as usize as *mut c_void;
    // SAFETY: a held child of this process; neither call touches memory of this one.
    unsafe {
        called(libc::ptrace(libc::PTRACE_SETOPTIONS, pid, ptr::null_mut::<c_void>(), option))?;
        called(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0))?;
    }
    let status = wait(pid)?;
    if status >> 8 != libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8 {
        return Err(format!("{name}: stopped before its end: wait status {status}").into());
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut of_file, mut kib) = (false, 0.0);
    for line in maps.lines() {
        if let Some(rest) = line.strip_prefix("Referenced:").filter(|_| of_file) {
            kib += rest.trim().trim_end_matches("kB").trim().parse::<f64>()?;
        } else if line.split_once(' ').is_some_and(|(first, _)| first.contains('-')) {
            of_file = line.ends_with(name);
        }
    }
    Ok(kib)
}

/// Has the held child map all that is of its file.
fn map_all(pid: pid_t, name: &str) -> Result<()> {
    let began = registers(pid)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let place = syscall_of(pid, &maps)?;
    for line in maps.lines().filter(|line| line.ends_with(name)) {
        advise(pid, &began, place, range(line)?, libc::MADV_POPULATE_READ)?;
    }
    set_registers(pid, &began)
}

/// Has the held child advise the kernel about addresses of its own.
fn advise(
    pid: pid_t,
    began: &user_regs_struct,
    place: u64,
    (start, end): (u64, u64),
    advice: i32,
) -> Result<()> {
    let asked = user_regs_struct {
        rip: place,
        rax: libc::SYS_madvise as u64,
        orig_rax: u64::MAX, // no call that is under way would be begun anew
        rdi: start,
        rsi: end - start,
        rdx: advice as u64,
        ..*began
    };
    set_registers(pid, &asked)?;
    // SAFETY: lets a held child execute the one instruction that it was pointed to.
    called(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) })?;
    wait(pid)?;
    let answer = registers(pid)?.rax as i64;
    if answer == 0 { Ok(()) } else { Err(format!("madvise in the child: {answer}").into()) }
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
