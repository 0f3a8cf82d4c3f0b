//! What the start of a program costs: exec, a request that needs nothing, exit; and what of it is
//! read for that.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

use crate::site::Site;
use crate::table::{Limit, Table, median};
#[cfg(target_arch = "x86_64")]
use crate::touched;
use crate::{Bench, Result};

const PROGRAMS: [(&str, &str); 4] = [
    ("scheduler", "cgi-bin/scheduler"),
    ("processor", "cgi-bin/processor"),
    ("nodemgr", "cgi-bin/nodemgr"),
    ("poller", "bin/poller"),
];

/// How a program is asked for nothing.
#[derive(Clone, Copy)]
enum Asked {
    /// A path that it does not have: the root is found, its settings are read, whoever asks is let in.
    Cgi,
    /// What it is.
    Words,
}

/// What one start took.
struct Taken {
    /// Microseconds from before the fork until it was waited for.
    wall: f64,
    /// Microseconds on a processor, its own and the kernel's for it.
    processor: f64,
    /// Pages that were mapped on demand, without and with reading.
    faults: f64,
    /// Bytes that storage was asked for.
    read: f64,
}

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("start"))?;
    let count = bench.size(400, 20);
    let empty = site.dir.join("bin/empty");
    for (name, place) in PROGRAMS {
        let program = site.dir.join(place);
        let size = fs::metadata(&program)?.len() as f64 / f64::from(1 << 20);
        table.figure("start", format!("size of {name}"), "MiB", &[size], None, "");
    }
    let mut asked: Vec<_> = PROGRAMS.map(|(name, place)| (name, place, Asked::Words)).to_vec();
    asked.extend(PROGRAMS[..3].iter().map(|(name, place)| (*name, *place, Asked::Cgi)));
    asked.reverse();
    for (name, place, how) in asked {
        let program = site.dir.join(place);
        let (mut wall, mut processor) = (Vec::new(), Vec::new());
        let (mut faults, mut floor_faults) = (0.0, 0.0);
        for _ in 0..bench.rounds {
            let (mut ours, mut floor) = (Vec::new(), Vec::new());
            for _ in 0..count {
                ours.push(start(&site, &program, how)?);
                floor.push(start(&site, &empty, how)?);
            }
            let middle = |all: &[Taken], what: fn(&Taken) -> f64| {
                median(&all.iter().map(what).collect::<Vec<f64>>())
            };
            wall.push((middle(&ours, |one| one.wall), middle(&floor, |one| one.wall)));
            processor
                .push((middle(&ours, |one| one.processor), middle(&floor, |one| one.processor)));
            faults = middle(&ours, |one| one.faults);
            floor_faults = middle(&floor, |one| one.faults);
        }
        let what = match how {
            Asked::Cgi => format!("{name}, a path that it has not, by an empty static program"),
            Asked::Words => format!("{name} --help by an empty static program"),
        };
        let limit = matches!(how, Asked::Cgi).then_some(Limit::AtMost(1.15, 1.05));
        let note =
            format!("fork, exec, answer, wait; {faults:.0} page faults by {floor_faults:.0}");
        table.ratio("start", what.clone(), "µs", &wall, limit, note);
        let note = "its own time and the kernel's for it: steadier than the clock";
        table.ratio("start", format!("{what}: processor"), "µs", &processor, None, note);
    }
    for (name, place) in PROGRAMS {
        let program = site.dir.join(place);
        let how = if name == "poller" { Asked::Words } else { Asked::Cgi };
        let (mut touched, mut present, mut asked) = (Vec::new(), Vec::new(), 0.0);
        for round in 0..bench.rounds {
            let copy = Copy::new(&program, site.dir.join(format!("{place}-{round}")))?;
            touched.extend(copy.touched(&site, how)?);
            copy.drop_pages()?;
            asked = start(&site, &copy.path, how)?.read / 1024.0;
            present.push(copy.resident()?);
        }
        if !touched.is_empty() {
            let limit = Some(Limit::AtMost(1024.0, 512.0));
            let note = "the pages that it touches, counted by the processor's marks";
            table.figure("start", format!("touched of {name}"), "KiB", &touched, limit, note);
        }
        let note = format!(
            "in memory after a start from storage, which reads {} ahead; {asked:.0} KiB were asked for in all",
            reads_ahead(&site.dir).unwrap_or("so much".into())
        );
        let what = format!("read of {name}");
        table.figure("start", what, "KiB", &present, None, note);
    }
    Ok(())
}

/// How much the device below a directory reads ahead.
fn reads_ahead(dir: &Path) -> Option<String> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let text =
        fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/queue/read_ahead_kb")).ok()?;
    Some(format!("{} KiB", text.trim()))
}

/// A program that is asked for nothing.
fn command(site: &Site, program: &Path, how: Asked) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("CORKBOARD_ROOT", &site.dir).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match how {
        Asked::Words => command.arg("--help"),
        Asked::Cgi => command
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", "GET")
            .env("SCRIPT_NAME", "/cgi-bin/program")
            .env("PATH_INFO", "/nothing/of/that/name")
            .env("SERVER_PROTOCOL", "HTTP/1.0")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("HTTP_HOST", "127.0.0.1"),
    };
    command
}

/// Starts a program and waits for its end.
fn start(site: &Site, program: &Path, how: Asked) -> Result<Taken> {
    let mut command = command(site, program, how);
    let begun = Instant::now();
    let child = command.spawn()?;
    let mut status = 0;
    // SAFETY: all zero is a valid rusage, which holds numbers alone.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals of the right types, and nobody else waits for the child.
    let waited = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
    let wall = begun.elapsed().as_secs_f64() * 1e6;
    if waited < 0 {
        return Err(io::Error::last_os_error().into());
    }
    if status != 0 {
        return Err(format!("{}: wait status {status}", program.display()).into());
    }
    let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    Ok(Taken {
        wall,
        processor: micros(usage.ru_utime) + micros(usage.ru_stime),
        faults: (usage.ru_minflt + usage.ru_majflt) as f64,
        read: usage.ru_inblock as f64 * 512.0,
    })
}

/// A copy of a program, of which this decides what is in memory. It is removed with this.
struct Copy {
    path: PathBuf,
    file: File,
}

impl Copy {
    fn new(program: &Path, path: PathBuf) -> Result<Copy> {
        fs::copy(program, &path)?;
        let file = File::open(&path)?;
        file.sync_all()?; // what is not on the disk yet cannot be dropped
        Ok(Copy { path, file })
    }

    /// Drops all of it from memory.
    fn drop_pages(&self) -> Result<()> {
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        if self.resident()? > 0.0 {
            return Err(format!("{} stays in memory", self.path.display()).into());
        }
        Ok(())
    }

    fn resident(&self) -> Result<f64> {
        resident(&self.file)
    }

    /// KiB of it that a start touches; `None` where that cannot be told.
    #[cfg(target_arch = "x86_64")]
    fn touched(&self, site: &Site, how: Asked) -> Result<Option<f64>> {
        Ok(Some(touched::run(&mut command(site, &self.path, how), &self.path)?))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn touched(&self, _site: &Site, _how: Asked) -> Result<Option<f64>> {
        Ok(None)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // the site is removed with all that is in it
    }
}

fn page_size() -> Result<usize> {
    Ok(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096) as usize)
}

/// KiB of a file that are in memory. To ask brings none in.
fn resident(file: &File) -> Result<f64> {
    let length = file.metadata()?.len() as usize;
    let page = page_size()?;
    let mut present = vec![0u8; length.div_ceil(page)];
    // SAFETY: a fresh mapping of an open file, of its length, at a place that the kernel chooses; it
    // is not read through. `present` has a byte for each of its pages.
    let failed = unsafe {
        let (kind, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        let start = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, kind, fd, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let failed = libc::mincore(start, length, present.as_mut_ptr()) != 0;
        libc::munmap(start, length);
        failed
    };
    if failed {
        return Err(io::Error::last_os_error().into());
    }
    Ok((present.iter().filter(|one| **one & 1 == 1).count() * page) as f64 / 1024.0)
}
