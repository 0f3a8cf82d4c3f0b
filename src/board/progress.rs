//! What jobs have said of their progress: `processor/job/ID/progress` of a run,
//! `scheduler/progress/N` of a job of the head. The last few words, JSON lines; each file is replaced
//! whole under its board's lock. Nothing here is synced: after a power loss the last ones may be
//! missing, and nothing rests on them.

use std::fs::{self, DirBuilder};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::card_feed::Held;
use super::cards::Cards;
use super::files;
use super::lock::Lock;
use super::root::Root;
use super::runs::Runs;
use crate::clock;
use crate::error::{At, Result};
use crate::model::progress::{self, Word};

/// The directory of the head's, made with the first of them.
pub(super) const DIR: &str = "progress";

/// Longer than the file of a run can be.
const LONGEST_FILE: u64 = 4 * (progress::MOST * progress::LONGEST) as u64;

/// Words of a run are told on the node's feed at most once in this time.
pub const TELL_EVERY: Duration = Duration::from_secs(1);

/// The words of a run, and which of them its head was told.
#[derive(Debug, Default)]
pub struct Kept {
    /// The oldest first.
    pub words: Vec<Word>,
    told: Told,
}

/// The first line of a run's file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Told {
    /// When some were last told.
    told: String,
    /// How many, the last ones, were not.
    untold: usize,
}

impl Kept {
    /// Those that were not told, the oldest first.
    pub fn untold(&self) -> &[Word] {
        &self.words[self.words.len().saturating_sub(self.told.untold)..]
    }

    /// Adds one that is to be told.
    pub fn add(&mut self, word: Word) {
        // The same once more within a millisecond says nothing new.
        if progress::keep(&mut self.words, word) {
            self.told.untold = self.told.untold.saturating_add(1).min(progress::MOST);
        }
    }

    /// Whether it is long enough ago that some were told.
    pub fn is_due(&self) -> bool {
        self.due_in().is_zero()
    }

    /// When it will be. A time that is yet to come is that of a clock that was set back.
    pub fn due_in(&self) -> Duration {
        let told = clock::parse_rfc3339(&self.told.told);
        let ago = told.and_then(|told| SystemTime::now().duration_since(told).ok());
        ago.map_or(Duration::ZERO, |ago| TELL_EVERY.saturating_sub(ago))
    }

    /// All of them were told just now.
    pub fn told_now(&mut self) {
        self.told = Told { told: clock::now(), untold: 0 };
    }
}

/// What a run has said; nothing where it has said nothing. Damaged lines are passed over, and so is
/// what the job itself may have put there.
pub fn of_run(runs: &Runs, id: &str) -> Result<Kept> {
    let mut bytes = Vec::new();
    if let Some(file) = files::open_own(&runs.progress_path(id))? {
        let path = runs.progress_path(id);
        file.take(LONGEST_FILE).read_to_end(&mut bytes).at(&path)?;
    }
    let told = bytes.split(|b| *b == b'\n').find_map(|line| serde_json::from_slice(line).ok());
    Ok(Kept { words: parse(&bytes), told: told.unwrap_or_default() })
}

/// Puts them in place of what was kept. The caller holds the node board's lock.
pub fn put_of_run(runs: &Runs, _held: &Lock, id: &str, kept: &Kept) -> Result<()> {
    let mut bytes = files::json_line(&kept.told)?;
    bytes.extend(lines(&kept.words)?);
    replace(&runs.tmp_dir(), &runs.progress_path(id), &bytes)
}

/// What the attempts of a job have said, as far as this head has heard.
pub fn of_job(root: &Root, job: u64) -> Result<Vec<Word>> {
    let path = Cards::new(root).path(&format!("{DIR}/{job}"));
    Ok(files::read(&path)?.map_or_else(Vec::new, |bytes| parse(&bytes)))
}

/// Adds words of a job's attempts; those that are kept already change nothing. The caller holds the
/// head board's lock. Trees of older programs have no directory for them.
pub fn add_to_job(root: &Root, _held: &Held, job: u64, fresh: Vec<Word>) -> Result<()> {
    let cards = Cards::new(root);
    let mut words = of_job(root, job)?;
    let news: Vec<bool> = fresh.into_iter().map(|word| progress::keep(&mut words, word)).collect();
    if !news.contains(&true) {
        return Ok(());
    }
    let dir = cards.path(DIR);
    if files::gone_is_fine(fs::metadata(&dir)).at(&dir)?.is_none() {
        DirBuilder::new().recursive(true).mode(0o750).create(&dir).at(&dir)?;
    }
    replace(&cards.path("tmp"), &dir.join(job.to_string()), &lines(&words)?)
}

fn lines(words: &[Word]) -> Result<Vec<u8>> {
    let lines: Result<Vec<Vec<u8>>> = words.iter().map(files::json_line).collect();
    Ok(lines?.concat())
}

fn parse(bytes: &[u8]) -> Vec<Word> {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut words: Vec<Word> = lines.filter(Word::is_fit).collect();
    words.drain(..words.len().saturating_sub(progress::MOST));
    words
}

/// Whole, or what was there before; a crash can leave the prepared file in `tmp`.
fn replace(tmp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let prepared = tmp.join(files::random_name()?);
    files::create(&prepared, bytes)?;
    let placed = fs::rename(&prepared, path).at(path);
    if placed.is_err() {
        let _ = fs::remove_file(&prepared); // the first error is the one to report
    }
    placed
}
