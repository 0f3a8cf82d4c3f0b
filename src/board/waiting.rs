//! `state/scheduler/waiting/USER`: which jobs of a user wait, where a setting bounds them. Never the truth,
//! which is in `queue/`: without this file it is made anew from there.
//!
//! The first line says how many waited when the file was last gone through; each other has a job's number
//! and its bytes. Lines of jobs that wait no more are taken out once they are as many as the others, or
//! where the bound seems to be reached. A crash may leave a job out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::cards::Cards;
use super::lock;
use super::root::Root;
use super::{files, owners, uploads};
use crate::error::{At, Error, Kind, Result};
use crate::model::card::{Accepted, Column};
use crate::model::ids;

/// The file is gone through once it has so many lines more than twice what waited.
const SLACK: usize = 64;

/// What of a user's jobs waits. Nobody else submits for this user while it is there.
#[derive(Debug)]
pub struct Waiting<'c, 'r> {
    cards: &'c Cards<'r>,
    user: String,
    file: File,
    path: PathBuf,
    /// Numbers and bytes.
    jobs: Vec<(u64, u64)>,
    /// How many there were when the file was last gone through.
    gone_through: usize,
}

/// A job's bytes: those of its request, and of its files.
pub fn bytes(accepted: &Accepted, files: u64) -> Result<u64> {
    Ok(files::json_line(&accepted.request)?.len() as u64 + files)
}

/// Those of files that are gone meanwhile, or cannot be read, count for nothing.
fn size_of_files(root: &Root, job: u64) -> u64 {
    uploads::list(root, job).map_or(0, |files| files.iter().map(|file| file.size).sum())
}

/// How many there were when the file was last gone through, and what waits by its lines. `None` for one that is
/// not whole.
fn whole(bytes: &[u8]) -> Option<(usize, Vec<(u64, u64)>)> {
    let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
    let count = lines.next()?.strip_prefix("waiting ")?.parse().ok()?;
    let job = |line: &str| {
        let (job, bytes) = line.split_once(' ')?;
        Some((job.parse().ok()?, bytes.parse().ok()?))
    };
    let jobs: Vec<(u64, u64)> = lines.map(job).collect::<Option<_>>()?;
    (jobs.len() >= count).then_some((count, jobs))
}

impl<'c, 'r> Waiting<'c, 'r> {
    /// Those of this user; `None` where no setting bounds them. Nobody counts what comes then: what was known
    /// is forgotten.
    pub fn of(cards: &'c Cards<'r>, user: &str) -> Result<Option<Waiting<'c, 'r>>> {
        let root = cards.root();
        let settings = &root.settings;
        let dir = root.state("scheduler/waiting");
        // What cannot be a file's name as it is: users of 0.1 may be called `token 12ab`.
        let name = match ids::is_valid(user) {
            true => user.to_string(),
            false => base16ct::lower::encode_string(&Sha256::digest(user)),
        };
        let path = dir.join(name);
        if settings.max_waiting_per_user.is_none() && settings.max_waiting_bytes_per_user.is_none()
        {
            files::gone_is_fine(fs::remove_file(&path)).at(&path)?;
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o750).create(&dir).at(&dir)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(&path).at(&path)?;
        lock::wait_for(&file, &path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at(&path)?;
        let (user, known) = (user.to_string(), whole(&bytes));
        let mut waiting = Waiting { cards, user, file, path, jobs: Vec::new(), gone_through: 0 };
        match known {
            Some((count, jobs)) => (waiting.gone_through, waiting.jobs) = (count, jobs),
            None => waiting.find()?,
        }
        Ok(Some(waiting))
    }

    /// Refuses with 503 what would be more than may wait, by number and by bytes.
    pub fn admit(&mut self, jobs: usize, bytes: u64) -> Result<()> {
        if self.jobs.len() > self.gone_through * 2 + SLACK || self.excess(jobs, bytes).is_some() {
            self.go_through()?;
        }
        let Some(what) = self.excess(jobs, bytes) else { return Ok(()) };
        let (user, count) = (&self.user, self.jobs.len());
        let why = format!(
            "{user} has {count} jobs that wait, and with this {what}: try again when some have started"
        );
        Err(Error::new(Kind::Unavailable, why))
    }

    fn excess(&self, jobs: usize, bytes: u64) -> Option<String> {
        let settings = &self.cards.root().settings;
        let count = self.jobs.len().saturating_add(jobs);
        let sum = self.jobs.iter().fold(bytes, |sum, (_, bytes)| sum.saturating_add(*bytes));
        if let Some(most) = settings.max_waiting_per_user.filter(|most| count > *most) {
            return Some(format!("more than {most} (setting max_waiting_per_user)"));
        }
        let most = settings.max_waiting_bytes_per_user.filter(|most| sum > *most)?;
        Some(format!("more than {most} bytes (setting max_waiting_bytes_per_user)"))
    }

    /// Notes jobs that wait from now on.
    pub fn note(mut self, jobs: impl IntoIterator<Item = (u64, u64)>) -> Result<()> {
        let lines: String =
            jobs.into_iter().map(|(job, bytes)| format!("{job} {bytes}\n")).collect();
        self.file.seek(SeekFrom::End(0)).at(&self.path)?;
        self.file.write_all(lines.as_bytes()).at(&self.path)
    }

    /// Takes out those that wait no more.
    fn go_through(&mut self) -> Result<()> {
        let cards = self.cards;
        let mut failed = Ok(());
        self.jobs.retain(|(job, _)| {
            cards.card_path(Column::Queue, *job).try_exists().unwrap_or_else(|error| {
                failed = Err(error);
                true
            })
        });
        failed.at(&self.path)?;
        self.write()
    }

    /// Looks for this user's among all that wait.
    fn find(&mut self) -> Result<()> {
        self.jobs.clear();
        for job in self.cards.numbers(Column::Queue)? {
            // What cannot be read is nobody's.
            let Ok(Some(card)) = self.cards.read_in(Column::Queue, job) else { continue };
            if owners::of(self.cards, &card)?.as_deref() == Some(&self.user) {
                let files = card.accepted.files.is_some();
                let files = if files { size_of_files(self.cards.root(), job) } else { 0 };
                self.jobs.push((job, bytes(&card.accepted, files)?));
            }
        }
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.gone_through = self.jobs.len();
        let mut text = format!("waiting {}\n", self.gone_through);
        text.extend(self.jobs.iter().map(|(job, bytes)| format!("{job} {bytes}\n")));
        self.file.set_len(0).at(&self.path)?; // a crash behind this: it is made anew
        self.file.seek(SeekFrom::Start(0)).at(&self.path)?;
        self.file.write_all(text.as_bytes()).at(&self.path)
    }
}
