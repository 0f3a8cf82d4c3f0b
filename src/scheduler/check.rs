//! `scheduler check`: every invariant of the head's board, one line for each violation; `--repair`
//! mends what has one right answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use crate::board::boxes;
use crate::board::cards::Cards;
use crate::board::leftovers;
use crate::board::partitions::Recorded;
use crate::board::root::Root;
use crate::board::walk::{self, Entry};
use crate::board::{nodes, numbers, partitions, vault};
use crate::check::Found;
use crate::error::{Error, Kind, Result};
use crate::model::card::{Card, Column, Event, State, What};
use crate::model::node::DriverKind;
use crate::processor::list;

/// Checks the board, and repairs it if asked to. Returns what is wrong (and was not repaired).
/// What cannot be looked at is wrong, too, and the rest is checked all the same. Cards may come
/// and move meanwhile: what looks wrong is looked at again under the lock.
pub fn check(root: &Root, repair: bool) -> Result<Found> {
    let mut wrong = Vec::new();
    let tree = told(walk::tree(root), &mut wrong);
    wrong.extend(tree.into_iter().flatten());
    let mut noticed = Noticed::default();
    let cards = Cards::new(root);
    let mut places: HashMap<u64, Column> = HashMap::new();
    let mut with_nodes = false;
    for entry in walk::cards(root) {
        match entry {
            Entry::Card { column, job, path } => {
                if let Some(other) = places.insert(job, column)
                    && told(lies_twice(&cards, job), &mut wrong) == Some(true)
                {
                    wrong.push(format!("job {job} lies in two columns: {column:?} and {other:?}"));
                }
                match check_card(&cards, column, job, &path, repair, &mut noticed) {
                    Ok((found, belongs)) => {
                        wrong.extend(found);
                        with_nodes |= belongs == Some(Column::Running);
                    }
                    Err(e) => wrong.push(e.message),
                }
            }
            Entry::Stray { path, why } => wrong.push(format!("{}: {why}", path.display())),
        }
    }
    // Read after the walk: numbers are given out before their cards are published.
    if let Some(limit) = told(numbers::limit(root), &mut wrong) {
        let unknown = places.keys().filter(|job| limit.is_none_or(|next| **job >= next));
        wrong.extend(unknown.map(|job| format!("job {job}: its number was never given out (seq)")));
    }
    let mut children: HashMap<u64, Option<HashSet<u64>>> = HashMap::new();
    for (parent, child) in walk::parents(root, places.keys().copied()) {
        let listed = children.entry(parent).or_insert_with(|| {
            let read = told(cards.children(parent), &mut wrong)?;
            Some(read.into_iter().collect())
        });
        if listed.as_ref().is_none_or(|known| known.contains(&child)) {
            continue;
        }
        let is_there = match cards.peek(parent) {
            Ok(card) => card.is_some(),
            Err(error) => !is_gone(&error),
        };
        if !is_there {
            continue; // its list was cleaned up with it
        }
        if repair {
            told(walk::mend_child(root, parent, child), &mut wrong);
        } else {
            wrong.push(format!(
                "job {child}: its parent {parent} does not list it (children/{parent})"
            ));
        }
    }
    for found in [
        walk::damaged_batches(root),
        walk::records(root),
        walk::claims(root, &places, repair),
        walk::put_aside(root),
        leftovers::stray_progress(root, repair),
        boxes::strays(root, repair),
    ] {
        let found = told(found, &mut wrong);
        wrong.extend(found.into_iter().flatten());
    }
    for node in told(nodes::list(root), &mut wrong).into_iter().flatten() {
        if let Some(why) = node.newer_reason() {
            noticed.notes.push(format!("node {}: its record was {why}", node.name));
        } else if node.uri.is_none() && node.driver != DriverKind::Local {
            wrong.push(format!("node {}: has no uri", node.name));
        }
    }
    if let Some((found, noted)) = told(partitions::check(root), &mut wrong) {
        wrong.extend(found);
        noticed.notes.extend(noted);
    }
    noticed.note_without_partition(root);
    match numbers::known_cluster(root) {
        Err(e) if with_nodes || numbers::has_cluster(root) => wrong.push(e.message),
        Ok(Some(cluster)) => {
            let found = told(orphans(root, &cluster), &mut wrong);
            wrong.extend(found.into_iter().flatten());
        }
        _ => {}
    }
    match vault::known_attempt_secret(root) {
        // To others than its owner it is closed, as it must be.
        Err(e) if root.is_own() && (with_nodes || vault::has_attempt_secret(root)) => {
            wrong.push(e.message);
        }
        _ => {}
    }
    Ok(Found { wrong, notes: noticed.notes })
}

/// What is noticed of cards and is no violation.
#[derive(Default)]
struct Noticed {
    notes: Vec<String>,
    /// How many jobs wait, or some of their tasks, for each partition.
    waiting: BTreeMap<String, usize>,
}

impl Noticed {
    /// Notes partitions for which jobs wait, or into which the setting has them go, and that are not there.
    fn note_without_partition(&mut self, root: &Root) {
        let by_setting = root.settings.partition.as_ref();
        for name in self.waiting.keys().chain(by_setting.filter(|n| !self.waiting.contains_key(*n)))
        {
            if !partitions::look(root, name).is_ok_and(|found| found == Recorded::Absent) {
                continue; // whatever is wrong with one has been said
            }
            let what = match self.waiting.get(name) {
                None => "it is the setting, and jobs that name none are refused".to_string(),
                Some(1) => "1 job waits for it".to_string(),
                Some(count) => format!("{count} jobs wait for it"),
            };
            self.notes.push(format!("partition {name} is not there: {what}"));
        }
    }
}

/// The value; what cannot be looked at is wrong.
fn told<T>(result: Result<T>, wrong: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| wrong.push(error.message)).ok()
}

/// Attempts of this cluster that this machine has, and whose jobs have no card that can be read.
fn orphans(root: &Root, cluster: &str) -> Result<Vec<String>> {
    let cards = Cards::new(root);
    let mut wrong = Vec::new();
    for id in list::unfinished(root)? {
        let Some(id) = id.nodejob().filter(|id| id.cluster() == cluster) else { continue };
        if cards.find(id.job).is_err_and(|e| is_gone(&e)) {
            wrong.push(format!(
                "{id} has not ended on this machine, and job {} has no card that can be read; `processor jobs {id} kill` ends it",
                id.job
            ));
        }
    }
    Ok(wrong)
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::Gone)
}

/// Whether a card lies in two columns, with the board held still.
fn lies_twice(cards: &Cards, job: u64) -> Result<bool> {
    let _lock = cards.lock()?;
    let columns = [Column::Queue, Column::Running, Column::Done];
    Ok(columns.into_iter().filter(|column| cards.card_path(*column, job).exists()).count() > 1)
}

/// What is wrong with a card, and the column in which it belongs.
fn check_card(
    cards: &Cards,
    column: Column,
    job: u64,
    path: &Path,
    repair: bool,
    noticed: &mut Noticed,
) -> Result<(Vec<String>, Option<Column>)> {
    let mut wrong = Vec::new();
    let Some(bytes) = crate::board::files::read(path)? else { return Ok((wrong, None)) };
    let card = match Card::parse(&bytes) {
        Ok(card) => card,
        Err(why) if repair => {
            let lock = cards.lock()?;
            return match cards.change(&lock, job, |_| Ok(Vec::new())) {
                Ok(_) => Ok((wrong, None)), // it can be read by now
                Err(e) if is_gone(&e) => {
                    eprintln!("repaired: {}: {why}; {}", path.display(), e.message);
                    Ok((wrong, None))
                }
                Err(e) => Err(e),
            };
        }
        Err(why) => return Ok((vec![format!("{}: {why}", path.display())], None)),
    };
    if card.job() != job {
        return Ok((vec![format!("{}: is the card of job {}", path.display(), card.job())], None));
    }
    if let Some(why) = card.newer_reason() {
        noticed.notes.push(format!("{}: {why}", path.display()));
        return Ok((wrong, Some(column)));
    }
    if let Some(partition) = card.spec.partition.as_ref().filter(|_| card.is_waiting()) {
        *noticed.waiting.entry(partition.clone()).or_default() += 1;
    }
    wrong.extend(story(&card));
    let belongs = card.column();
    if belongs != column {
        let lock = cards.lock()?;
        // Held still: it may just have been on its way.
        let again = cards.read_in(column, job)?;
        if again.is_none_or(|card| card.column() == column) {
            return Ok((wrong, Some(belongs)));
        }
        if repair {
            cards.change(&lock, job, |_| Ok(Vec::new()))?.sync.commit()?;
            eprintln!("repaired: job {job} moved to where its story says");
        } else {
            wrong.push(format!("{}: belongs in {belongs:?}", path.display()));
        }
    }
    Ok((wrong, Some(belongs)))
}

/// What must hold of an array's tasks: ranges are placed from those that wait alone, each once.
fn tasks(card: &Card) -> Vec<String> {
    let job = card.job();
    let mut wrong = Vec::new();
    let placed = |event: &&Event| matches!(event.what, What::Placed { .. });
    let placed = card.events.iter().filter(placed).count();
    if placed != card.attempts.len() {
        wrong.push(format!("job {job}: a range was placed whose tasks did not wait"));
    }
    if card.tasks.is_finished() && card.state != State::Stopped {
        wrong.push(format!("job {job}: all its tasks have ended, and it has not"));
    }
    if !card.tasks.is_finished() && card.state == State::Stopped {
        wrong.push(format!("job {job}: it has ended, and some of its tasks have not"));
    }
    wrong
}

/// What must hold within a story.
fn story(card: &Card) -> Vec<String> {
    let mut wrong = Vec::new();
    if card.is_array() {
        wrong.extend(tasks(card));
    }
    let mut expected = 1;
    for attempt in &card.attempts {
        if attempt.attempt != expected {
            wrong.push(format!(
                "job {}: attempt {} where {expected} was due",
                card.job(),
                attempt.attempt
            ));
        }
        expected = attempt.attempt.saturating_add(1);
    }
    let (job, retries, allowed) =
        (card.job(), card.tasks.most_retries(), card.spec.max_retry_count);
    if retries > allowed {
        wrong.push(match card.is_array() {
            true => format!("job {job}: a task was retried {retries} times, {allowed} are allowed"),
            false => format!("job {job}: {retries} retries where {allowed} are allowed"),
        });
    }
    wrong
}
