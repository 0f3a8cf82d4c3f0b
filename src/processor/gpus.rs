//! The GPUs of this machine: what `nvidia-smi` tells of them, once in each boot.
//!
//! Finding out may take seconds, so it is done only where a node is asked how it is; what was found is
//! noted, and all else goes by the note. What could not be found out is tried again later.

use std::env;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::board::gpus::{self, Found};
use crate::board::root::{Root, boot_id};
use crate::descriptors;
use crate::error::{At, Error, Kind, Result};
use crate::model::about::Gpu;

/// Who tells of them.
const TELLER: &str = "nvidia-smi";

/// What it is asked.
const QUESTION: [&str; 2] =
    ["--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"];

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What could not be found out is tried again after so many seconds.
const AGAIN: u64 = 600;

/// Longest answer.
const LONGEST: u64 = 64 << 10;

/// Where programs are looked for whose starter has no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// The indices of those that are given to jobs, going by what is known already.
pub fn indices(root: &Root) -> Vec<u32> {
    match root.settings.gpus {
        Some(number) => (0..number).collect(),
        None => known(root).iter().map(|gpu| gpu.index).collect(),
    }
}

/// What is known of this machine's GPUs.
fn known(root: &Root) -> Vec<Gpu> {
    gpus::read(root).map_or(Vec::new(), |found| found.gpus)
}

/// The GPUs that are given to jobs; finds out which there are, where nobody knows.
pub fn told(root: &Root) -> Vec<Gpu> {
    let Some(number) = root.settings.gpus else { return found_out(root) };
    let known = known(root);
    let bare =
        |index| Gpu { index, name: String::new(), memory: 0, compute_capability: String::new() };
    let of = |index| known.iter().find(|gpu| gpu.index == index).cloned();
    (0..number).map(|index| of(index).unwrap_or_else(|| bare(index))).collect()
}

fn found_out(root: &Root) -> Vec<Gpu> {
    let now = seconds();
    match gpus::read(root) {
        Some(found) if found.error.is_none() || now.saturating_sub(found.seconds) < AGAIN => {
            return found.gpus;
        }
        _ => {}
    }
    let (Some(teller), Ok(boot)) = (teller(), boot_id()) else { return Vec::new() };
    let asked = ask(&teller, PATIENCE);
    if let Err(error) = &asked {
        eprintln!("processor: {}: {}", teller.display(), error.message);
    }
    let error = asked.as_ref().err().map(|error| error.message.clone());
    let found = Found { boot, seconds: now, gpus: asked.unwrap_or_default(), error };
    if let Err(error) = gpus::write(root, &found) {
        eprintln!("processor: which GPUs there are is not noted: {}", error.message);
    }
    found.gpus
}

fn seconds() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().unsigned_abs())
}

fn teller() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| PATH.into());
    env::split_paths(&path).map(|dir| dir.join(TELLER)).find(|program| program.is_file())
}

/// Asks it. A child that does not end is waited for by a thread of its own.
fn ask(teller: &Path, patience: Duration) -> Result<Vec<Gpu>> {
    let deadline = Instant::now() + patience;
    let mut command = Command::new(teller);
    command.args(QUESTION).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    descriptors::as_given(&mut command);
    let mut child = command.spawn().at(teller)?;
    let text = answer(&mut child, deadline);
    let ended = text.is_ok() && ends(&mut child, deadline)?;
    if !ended {
        let _ = child.kill(); // it may be gone by now
        if !ends(&mut child, Instant::now() + Duration::from_secs(1))? {
            thread::spawn(move || child.wait());
        }
    }
    let text = text?;
    if !ended {
        return Err(late());
    }
    text.lines().filter(|line| !line.trim().is_empty()).map(gpu).collect()
}

fn late() -> Error {
    Error::new(Kind::Unavailable, format!("did not answer within {} s", PATIENCE.as_secs()))
}

/// What it writes until it closes its output.
fn answer(child: &mut Child, deadline: Instant) -> Result<String> {
    let Some(mut output) = child.stdout.take() else { return Ok(String::new()) };
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let ready = match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], patience) {
            Err(nix::Error::EINTR) => continue,
            ready => ready.at("pipe")?,
        };
        if ready == 0 {
            return Err(late());
        }
        let mut piece = [0; 4096];
        match output.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).at("pipe"),
        }
        if bytes.len() as u64 > LONGEST {
            return Err(Error::new(Kind::Internal, "its answer is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it has ended before this time, well.
fn ends(child: &mut Child, deadline: Instant) -> Result<bool> {
    loop {
        if child.try_wait().at(TELLER)?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A line such as `0, NVIDIA A100, 40960, 8.0`, of which what is not known is in brackets.
fn gpu(line: &str) -> Result<Gpu> {
    let mut fields = line.split(',').map(str::trim);
    let mut next = || fields.next().unwrap_or_default();
    let (index, name, mebibytes, capability) = (next(), next(), next(), next());
    let nonsense = || Error::new(Kind::Internal, format!("answers nonsense: {line:?}"));
    let is_capability = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    Ok(Gpu {
        index: index.parse().map_err(|_| nonsense())?,
        name: name.to_string(),
        memory: mebibytes.parse::<u64>().unwrap_or(0).saturating_mul(1 << 20),
        compute_capability: Some(capability)
            .filter(|text| is_capability(text))
            .unwrap_or("")
            .into(),
    })
}

/// The least memory of these, and the least that they can do, as far as all are known.
pub fn least(gpus: &[Gpu]) -> (Option<u64>, Option<&str>) {
    let memory = gpus.iter().map(|gpu| gpu.memory).min().filter(|memory| *memory > 0);
    let ability = |text: &str| {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    let capabilities = gpus.iter().map(|gpu| gpu.compute_capability.as_str());
    let least = capabilities.min_by_key(|text| ability(text));
    (memory, least.filter(|text| ability(text).is_some()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_gpus() {
        let one = gpu("1, NVIDIA A100-SXM4-40GB, 40960, 8.0").unwrap();
        assert_eq!((one.index, one.memory), (1, 40 << 30));
        assert_eq!((&*one.name, &*one.compute_capability), ("NVIDIA A100-SXM4-40GB", "8.0"));
        let old = gpu("0, Tesla K80, [N/A], [N/A]").unwrap();
        assert_eq!((old.memory, &*old.compute_capability), (0, ""));
        assert!(gpu("No devices were found").is_err());
        let other = Gpu { memory: 80 << 30, compute_capability: "10.0".into(), ..one.clone() };
        assert_eq!(least(&[other.clone(), one.clone()]), (Some(40 << 30), Some("8.0")));
        assert_eq!(least(&[other, old, one]), (None, None));
        assert_eq!(least(&[]), (None, None));
    }
}
