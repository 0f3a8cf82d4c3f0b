//! The GPUs of this machine: what `nvidia-smi` tells of them, once in each boot.
//!
//! Finding out may take seconds, so it is done only where somebody needs to know: a node that is asked how it
//! is, or is given a job that asks for GPUs. What was found is noted, and all else goes by the note. What could
//! not be found out is not known, which is not the same as that there are none: it is tried again, first after
//! seconds, then less and less often. A supervisor has no time for that, and no children beside its jobs':
//! it starts another process that finds out and then has what waits started.

use std::env;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::board::gpus::{self, Found};
use crate::board::root::{Root, boot_id};
use crate::descriptors;
use crate::error::{At, Error, Kind, Result};
use crate::model::about::Gpu;

/// What is known of the GPUs that are given to jobs.
#[derive(Debug, Clone)]
pub enum Known {
    /// They are these.
    These(Vec<Gpu>),
    /// There may be some; why nobody knows yet.
    NotYet(String),
}

/// Who tells of them.
const TELLER: &str = "nvidia-smi";

/// What it is asked.
const QUESTION: [&str; 2] =
    ["--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"];

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What could not be found out is tried again after so many seconds, then after twice as many...
const AGAIN: u64 = 5;

/// ...and at last after so many.
const AT_LAST: u64 = 600;

/// Longest answer.
const LONGEST: u64 = 64 << 10;

/// Longest line of it that is repeated.
const LONGEST_SAID: usize = 200;

/// What it says where there are none...
const NO_DEVICES: &str = "No devices were found";

/// ...and the code by which it ends then.
const FINDS_NONE: i32 = 6;

/// Where programs are looked for whose starter has no `PATH`.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

impl Known {
    /// Those that are known.
    pub fn all(&self) -> &[Gpu] {
        match self {
            Known::These(gpus) => gpus,
            Known::NotYet(_) => &[],
        }
    }
}

/// What is known already.
pub fn known(root: &Root) -> Known {
    let noted = gpus::read(root);
    if root.settings.gpus.is_some() {
        return as_set(root, noted);
    }
    match noted.map(told_by) {
        Some(known) => known,
        None if teller().is_none() => Known::These(Vec::new()),
        None => Known::NotYet(format!("{TELLER} was not asked since the machine began")),
    }
}

/// The same; finds out where nobody knows, unless that has failed just now.
pub fn told(root: &Root) -> Known {
    let (known, left) = found_out(root);
    if let Some(mut child) = left {
        thread::spawn(move || child.wait());
    }
    known
}

/// The same of a process that is there for nothing else, and stays until who was asked has ended.
pub(super) fn find_out(root: &Root) -> Option<Child> {
    found_out(root).1
}

/// Whether it is time to find out.
pub(super) fn is_due(root: &Root) -> bool {
    root.settings.gpus.is_none() && is_due_by(gpus::read(root).as_ref(), seconds())
}

/// Whether programs here might find GPUs: then each is told which it may use, if any. On a machine that
/// neither says nor can tell that it has any, programs are told nothing.
pub(super) fn are_possible(root: &Root, known: &Known) -> bool {
    let is_known = matches!(known, Known::These(gpus) if gpus.is_empty());
    root.settings.gpus.is_some() || !is_known || teller().is_some()
}

/// So many as the settings say, with what else is known of them.
fn as_set(root: &Root, noted: Option<Found>) -> Known {
    let known = noted.map_or(Vec::new(), |found| found.gpus);
    let bare =
        |index| Gpu { index, name: String::new(), memory: 0, compute_capability: String::new() };
    let of = |index| known.iter().find(|gpu| gpu.index == index).cloned();
    let number = root.settings.gpus.unwrap_or(0);
    Known::These((0..number).map(|index| of(index).unwrap_or_else(|| bare(index))).collect())
}

fn told_by(found: Found) -> Known {
    match found.error {
        Some(why) => Known::NotYet(why),
        None => Known::These(found.gpus),
    }
}

fn is_due_by(noted: Option<&Found>, now: u64) -> bool {
    noted.is_none_or(|found| found.error.is_some() && found.again.is_none_or(|at| at <= now))
}

/// What is known, or was found out just now; with a process that was asked and does not end.
fn found_out(root: &Root) -> (Known, Option<Child>) {
    let noted = gpus::read(root);
    if root.settings.gpus.is_some() {
        return (as_set(root, noted), None);
    }
    let boot = boot_id().ok().filter(|_| is_due_by(noted.as_ref(), seconds()));
    let (Some(teller), Some(boot)) = (teller(), boot) else { return (known(root), None) };
    let (asked, left) = ask(&teller, PATIENCE);
    let now = seconds();
    let found = match asked {
        Ok(gpus) => Found { boot, seconds: now, gpus, error: None, again: None },
        Err(error) => {
            let waited = |found: &Found| Some(found.again?.saturating_sub(found.seconds));
            let before = noted.as_ref().and_then(waited);
            let wait = before.map_or(AGAIN, |waited| (waited * 2).clamp(AGAIN, AT_LAST));
            let why = format!("{}: {}", teller.display(), error.message);
            eprintln!("processor: which GPUs there are is not known: {why}");
            let again = Some(now.saturating_add(wait));
            Found { boot, seconds: now, gpus: Vec::new(), error: Some(why), again }
        }
    };
    if let Err(error) = gpus::write(root, &found) {
        eprintln!("processor: which GPUs there are is not noted: {}", error.message);
    }
    (told_by(found), left)
}

fn seconds() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().unsigned_abs())
}

/// Where it is. Also looked for where programs usually are: who starts this one may have an odd `PATH`.
fn teller() -> Option<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&own).chain(env::split_paths(PATH));
    let mut programs = dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(TELLER));
    programs.find(|program| program.is_file())
}

/// Asks it; with the child that was asked, if it does not even end when it is killed.
fn ask(teller: &Path, patience: Duration) -> (Result<Vec<Gpu>>, Option<Child>) {
    let deadline = Instant::now() + patience;
    let mut command = Command::new(teller);
    command.args(QUESTION).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    descriptors::as_given(&mut command);
    let mut child = match command.spawn().at(teller) {
        Ok(child) => child,
        Err(error) => return (Err(error), None),
    };
    let told = answer(&mut child, deadline).and_then(|text| {
        let ended = ends(&mut child, deadline)?.ok_or_else(late)?;
        read(&text, ended)
    });
    if told.is_ok() {
        return (told, None);
    }
    let _ = child.kill(); // it may be gone by now
    let gone = ends(&mut child, Instant::now() + Duration::from_secs(1));
    (told, matches!(gone, Ok(None)).then_some(child))
}

/// What it has told with this end.
fn read(text: &str, ended: ExitStatus) -> Result<Vec<Gpu>> {
    let text = text.trim();
    if text == NO_DEVICES || ended.code() == Some(FINDS_NONE) {
        return Ok(Vec::new());
    }
    if !ended.success() {
        let said = text.lines().next().filter(|line| line.len() <= LONGEST_SAID);
        let said = said.map_or(String::new(), |line| format!(", says {line:?}"));
        return Err(Error::new(Kind::Unavailable, format!("ends with {ended}{said}")));
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

/// How it has ended, if it has before this time.
fn ends(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait().at(TELLER)?;
        if ended.is_some() || Instant::now() >= deadline {
            return Ok(ended);
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
