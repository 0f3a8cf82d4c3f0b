//! Processes that are ended with their guard, and what the kernel knows of a process.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;

/// A child that is ended when this is dropped.
pub struct Guarded(pub Child);

impl Guarded {
    pub fn start(command: &mut Command) -> Result<Guarded> {
        let name = command.get_program().to_string_lossy().into_owned();
        // SAFETY: prctl alone, between fork and exec.
        unsafe {
            // Should this process be killed, nobody is left to drop the guard.
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        command.spawn().map(Guarded).map_err(|e| format!("{name}: {e}").into())
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits until it has ended by itself; an error if it takes too long or fails.
    pub fn finish(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("process {}: {status}", self.pid()).into()),
                None if Instant::now() > deadline => {
                    return Err(format!("process {} takes too long", self.pid()).into());
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Not waited for yet, so the pid is still its own.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// From now on this process is the parent of what its descendants leave behind.
pub fn adopt_orphans() -> Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Ends descendants of this process whose program lies in this directory: supervisors, which their
/// starters leave behind.
pub fn end_those_of(dir: &Path) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let pids = running_from(dir);
            if pids.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                break;
            }
            for pid in pids {
                let _ = kill(Pid::from_raw(pid), signal); // it may have ended meanwhile
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a process descends from this one.
fn is_ours(pid: i32) -> bool {
    let own = std::process::id() as i32;
    let mut next = pid;
    while let Ok(above) = parent(next) {
        if above == own {
            return true;
        }
        if above <= 1 {
            return false;
        }
        next = above;
    }
    false
}

fn running_from(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(dir))
                && is_ours(*pid)
        })
        .collect()
}

/// Fields of `/proc/PID/stat`, from the third on.
fn stat(pid: i32) -> Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(") ").ok_or("no name in stat")?.1;
    Ok(rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

/// Its parent.
pub fn parent(pid: i32) -> Result<i32> {
    Ok(i32::try_from(stat(pid)?[1])?)
}

/// Time on a processor so far, in seconds, of the threads that it has. Finer than ticks.
pub fn cpu(pid: i32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended since has nothing to say.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let on_processor = text.split(' ').next().and_then(|field| field.parse().ok());
        nanoseconds += on_processor.unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// Proportional and resident memory, in MiB.
pub fn memory(pid: i32) -> Result<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok()
            })
            .map(|kib: f64| kib / 1024.0)
            .ok_or_else(|| format!("no {name} in smaps_rollup"))
    };
    Ok((field("Pss:")?, field("Rss:")?))
}
