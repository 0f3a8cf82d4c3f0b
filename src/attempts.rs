//! Attempts: what is sent to a node, and what its reports do to the card. Which tasks the next one has:
//! [`ranges`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::auth;
use crate::board::cards::{CARDS_PER_LOCK, Cards};
use crate::board::changes::Changed;
use crate::board::root::Root;
use crate::board::sync_set::SyncSet;
use crate::board::{addresses, numbers, uploads, vault};
use crate::driver::Run;
use crate::error::{Error, Kind, Result};
use crate::model::card::{Attempt, Card, What};
use crate::model::draft;
use crate::model::ids::NodejobId;
use crate::model::node::Node;
use crate::model::outcome::{Cause, Outcome};
use crate::model::proof::KEY_VARIABLE;
use crate::model::request_fields::{NODE_FIELDS, RANGE_FIELD};
use crate::model::run_status::{RunState, RunStatus};
use crate::model::tasks::TaskSet;

pub mod allocated;
pub mod kills;
pub mod lasting;
mod progress;
pub mod proofs;
pub mod ranges;
pub mod waits;

/// The line that places these tasks of a card of this cluster on a node: its next attempt; a plain job's
/// one is not named. Where no number is left for one, the line that ends the job.
pub fn place(cluster: &str, card: &Card, node: &Node, tasks: TaskSet) -> What {
    let next = card.attempts.last().map_or(Some(1), |last| last.attempt.checked_add(1));
    let Some(attempt) = next else {
        let why = "no number is left for another attempt".to_string();
        let outcome = Outcome::error(Cause::Aborted, why);
        return What::Stopped { attempt: None, outcome, usage: None };
    };
    let Some(nodejob) = NodejobId::new(cluster, card.job(), attempt) else {
        let why = format!("the cluster's name {cluster:?} is none of which an id can be made");
        let outcome = Outcome::error(Cause::Aborted, why);
        return What::Stopped { attempt: None, outcome, usage: None };
    };
    What::Placed {
        attempt,
        node: node.name.clone(),
        nodejob,
        driver: node.driver,
        uri: node.uri.clone(),
        tasks: card.is_array().then_some(tasks),
    }
}

/// The line that notes what the system behind a node calls an attempt that it has; none where the card
/// says so already.
pub fn name(card: &Card, id: &NodejobId, reference: &str) -> Vec<What> {
    match card.current(id) {
        Some(attempt) if attempt.reference.as_deref() != Some(reference) => {
            vec![What::Ref { attempt: id.attempt, reference: reference.to_string() }]
        }
        _ => Vec::new(),
    }
}

/// What the requests of one round have in common.
pub struct Common {
    secret: Vec<u8>,
    url: Option<String>,
}

impl Common {
    /// Reads it.
    pub fn read(root: &Root) -> Result<Common> {
        Ok(Common { secret: vault::attempt_secret(root)?, url: root.advertised()? })
    }
}

/// What the node of a card's attempt is sent. The same at every repeat, unless the address at
/// which this head can be reached has changed.
pub fn run(root: &Root, common: &Common, card: &Card, attempt: &Attempt) -> Result<Run> {
    let mut request: Map<String, Value> = card
        .accepted
        .whole_request()
        .iter()
        .filter(|(field, _)| NODE_FIELDS.contains(&field.as_str()) && *field != "action")
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    let mut environment: Map<String, Value> = card
        .spec
        .environment
        .iter()
        .filter(|(name, _)| !name.starts_with("CORKBOARD_"))
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    let mut set = |name: &str, value: String| environment.insert(name.into(), value.into());
    set("CORKBOARD_JOB", card.job().to_string());
    set(KEY_VARIABLE, auth::attempt_key(&common.secret, &attempt.nodejob)?);
    if let Some(url) = &common.url {
        set("CORKBOARD_URL", url.clone());
        // It runs beside its own board, and may use the programs there as commands.
        if attempt.uri.as_ref().is_some_and(|uri| addresses::is_same_server(url, uri)) {
            root.dir().to_str().and_then(|dir| set("CORKBOARD_ROOT", dir.into()));
        }
    }
    request.insert("environment".into(), Value::Object(environment));
    request.insert("request_id".into(), attempt.nodejob.to_string().into());
    if let Some(tasks) = &attempt.tasks {
        request.insert(RANGE_FIELD.into(), tasks.to_string().into());
    }
    Ok(Run {
        id: attempt.nodejob.run().clone(),
        request: Value::Object(request),
        uploads: uploads::list(root, card.job())?,
    })
}

/// What a node said of a run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The node that said it, by its name here.
    pub node: String,
    /// Of which attempt.
    pub id: NodejobId,
    /// Whether it proved to be about this head's attempt.
    pub proven: bool,
    /// What it said.
    pub status: Box<RunStatus>,
}

impl Said {
    /// Whether it is about an attempt of this card that this very node was given. Any other node
    /// knows nothing of it, whatever it says.
    fn is_from_holder(&self, card: &Card) -> bool {
        card.attempts.iter().any(|a| a.nodejob == self.id && a.node == self.node)
    }

    fn is_end(&self) -> bool {
        self.status.state == RunState::Stopped
    }
}

/// What nodes' reports about one job, in the order in which they were made, do to the card. Those
/// of a node that was not given the attempt do nothing.
pub fn decide(card: &Card, reports: &[Said]) -> Vec<What> {
    let reports: Vec<(&NodejobId, &RunStatus)> = reports
        .iter()
        .filter(|said| said.is_from_holder(card))
        .map(|said| (&said.id, &*said.status))
        .collect();
    draft::decide(card, &reports)
}

/// What reports did. Ids come with the node that has the attempt.
#[derive(Debug, Default)]
pub struct Applied {
    /// Cards that changed, as they are now.
    pub cards: Vec<Card>,
    /// Results that are safe here now: the node may forget them.
    pub safe: Vec<(String, NodejobId)>,
    /// Attempts that run though the head has given them up, or has no card of them...
    pub stale: Vec<(String, NodejobId)>,
    /// ...and those that run though their nodes have refused them: nobody knows of them any more.
    pub taken_back: Vec<(String, NodejobId)>,
    /// Attempts that have ended.
    pub ended: Vec<NodejobId>,
    /// What went wrong with cards by themselves, or with all from one on: their reports are still with the
    /// nodes.
    pub errors: Vec<Error>,
    /// Ends that could not be recorded, or of which nobody knows whether that is durable: to be recorded
    /// again. Their nodes may not tell of them by themselves.
    pub again: Vec<Said>,
    /// Attempts that these nodes said something of and were never given.
    pub foreign: BTreeSet<(String, NodejobId)>,
    /// Nodes that said something that counted, and whether they proved any of it.
    pub proves: BTreeMap<String, bool>,
}

/// Records what nodes said on the cards, all with one sync, and only then returns. Where it cannot go on it
/// says so beside what it has done. Reports on jobs of other heads, on jobs that are not on this board, and
/// of nodes that were not given the attempt change nothing.
pub fn record(root: &Root, reports: Vec<Said>) -> Applied {
    let mut applied = Applied::default();
    let cluster = match numbers::cluster(root) {
        Ok(cluster) => cluster,
        Err(error) => {
            applied.errors.push(error);
            applied.put_off(reports.into_iter());
            return applied;
        }
    };
    let mut by_job: BTreeMap<u64, Vec<Said>> = BTreeMap::new();
    for said in reports {
        if said.id.cluster() == cluster {
            by_job.entry(said.id.job).or_default().push(said);
        }
    }
    let cards = Cards::new(root);
    let mut sync = SyncSet::new();
    let mut jobs: Vec<_> = by_job.into_iter().collect();
    let mut taken = 0;
    for jobs in jobs.chunks(CARDS_PER_LOCK) {
        let lock = match cards.lock() {
            Ok(lock) => lock,
            // What was applied of the others is told.
            Err(error) => {
                applied.errors.push(error);
                break;
            }
        };
        taken += jobs.len();
        for (job, reports) in jobs {
            match cards.change(&lock, *job, |card| Ok(decide(card, reports))) {
                Ok(Changed { card, sync: changed }) => {
                    progress::note(root, &lock, &card, reports);
                    let any_end = note(&card, reports, &mut applied);
                    if !changed.is_empty() {
                        sync.merge(changed);
                        applied.cards.push(card);
                    } else if any_end {
                        // The node is about to be told that it is safe here.
                        match cards.sync_of(*job) {
                            Ok(set) => sync.merge(set),
                            Err(error) => {
                                applied.safe.retain(|(_, id)| id.job != *job);
                                applied.errors.push(error);
                            }
                        }
                    }
                }
                // Cleaned up, or unreadable: nobody will ask for this result. What runs may have been
                // given up before.
                Err(e) if matches!(e.kind, Kind::NotFound | Kind::Gone) => {
                    for said in reports {
                        let of_node = (said.node.clone(), said.id.clone());
                        if !said.is_end() {
                            applied.stale.push(of_node);
                            continue;
                        }
                        applied.ended.push(said.id.clone());
                        applied.safe.extend(said.proven.then_some(of_node));
                    }
                }
                // A newer program's card: its node keeps the result until that program asks for it.
                Err(e) if e.kind == Kind::Conflict => {}
                Err(e) => applied.errors.push(e),
            }
        }
    }
    let left = jobs.split_off(taken);
    if let Err(error) = sync.commit() {
        applied.errors.push(error);
        applied.take_back(jobs.into_iter().flat_map(|(_, reports)| reports));
    }
    applied.put_off(left.into_iter().flat_map(|(_, reports)| reports));
    applied
}

impl Applied {
    /// These were not looked at.
    fn put_off(&mut self, reports: impl Iterator<Item = Said>) {
        self.again.extend(reports.filter(Said::is_end));
    }

    /// What was recorded may not survive: nobody is to be told of it, and reports of an end are recorded
    /// again, for their nodes do not tell of them by themselves.
    fn take_back(&mut self, reports: impl Iterator<Item = Said>) {
        let safe: BTreeSet<(String, NodejobId)> = self.safe.drain(..).collect();
        let is_again =
            |said: &Said| said.is_end() && safe.contains(&(said.node.clone(), said.id.clone()));
        self.again.extend(reports.filter(is_again));
        self.cards.clear();
        self.ended.clear();
    }
}

/// Notes what follows for the nodes; whether an attempt has ended.
fn note(card: &Card, reports: &[Said], applied: &mut Applied) -> bool {
    let mut any_end = false;
    for said in reports {
        let id = &said.id;
        if !said.is_from_holder(card) {
            applied.foreign.insert((said.node.clone(), id.clone()));
            continue;
        }
        *applied.proves.entry(said.node.clone()).or_default() |= said.proven;
        if said.is_end() {
            any_end = true;
            applied.ended.push(id.clone());
            applied.safe.push((said.node.clone(), id.clone()));
        } else if !card.is_current(id) {
            let refused = |a: &Attempt| a.attempt == id.attempt && a.refused.is_some();
            let is_refused = said.proven && card.attempts.iter().any(refused);
            let stale = if is_refused { &mut applied.taken_back } else { &mut applied.stale };
            stale.push((said.node.clone(), id.clone()));
        }
    }
    any_end
}
