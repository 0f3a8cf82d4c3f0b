//! How a node is talked to. Every kind of node answers the same questions, and nothing above this
//! module knows which kind it is.
//!
//! - [`local`]: the processor of this very root, by its files.
//! - [`http`]: the processor of a root, by HTTP, asked by the [client](crate::client).
//! - `worker`: the processor of a root that nobody reaches: it asks for its orders, which lie in its box.
//!
//! What the last two are asked, and what their answers mean, is the same (`asked`), whatever carries it
//! (`carrier`). What a node says in words is bounded (`said`).

use std::io::{self, Read};
use std::time::Duration;

use serde_json::Value;

use crate::board::root::Root;
use crate::board::uploads::Upload;
use crate::cgi::alarm::LONGEST_ARRIVAL;
use crate::client::knock::Knock;
use crate::error::{Error, Kind, Result};
use crate::model::ids::RunId;
use crate::model::kill::Wish;
use crate::model::log::{LogPiece, LogQuery};
use crate::model::node::{DriverKind, Node};
use crate::model::run_status::RunStatus;
use crate::wire::feed::{FeedPage, Since};
use crate::wire::node::Info;

mod asked;
mod carrier;
pub mod http;
pub mod local;
mod said;
mod worker;

/// An attempt to run on a node.
#[derive(Debug)]
pub struct Run {
    /// Its id there.
    pub id: RunId,
    /// The node's request, with `request_id` = `id`.
    pub request: Value,
    /// Files that go with it, which are read when it is sent.
    pub uploads: Vec<Upload>,
}

/// What a node says of an attempt that it has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// What the system behind it calls the attempt, short and plain; it goes onto the card, once.
    /// `None` where that is the attempt's id, as on nodes of Corkboard's own.
    pub reference: Option<String>,
}

impl Taken {
    /// As the attempt that the system behind the node knows by this name.
    pub fn called(name: &str) -> Taken {
        Taken { reference: Some(said::name(name)) }
    }
}

/// Slowest that files are sent, in bytes a second, before a node counts as one that does not answer.
const SLOWEST: u64 = 256 << 10;

/// How much longer than any other request one with these files may take.
pub fn longest_sending(uploads: &[Upload]) -> Duration {
    longest_passing(uploads.iter().map(|upload| upload.size).sum())
}

/// The same by their length.
fn longest_passing(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST).min(LONGEST_ARRIVAL)
}

/// What a node says of one job.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Where it is.
    Known(Box<RunStatus>),
    /// The node never heard of it, or has forgotten it.
    Unknown,
    /// It was cancelled before it came, or given back, and will never run there: why, in words.
    Cancelled(String),
}

impl Answer {
    /// What is known of a job, or why it is not: that nobody knows it, or that it never will run, is an
    /// answer, too.
    fn of(known: Result<RunStatus>) -> Result<Answer> {
        match known {
            Ok(status) => Ok(Answer::Known(Box::new(status))),
            Err(e) if e.kind == Kind::NotFound => Ok(Answer::Unknown),
            Err(e) if e.kind == Kind::Gone => Ok(Answer::Cancelled(e.message)),
            Err(e) => Err(e),
        }
    }
}

/// The questions about jobs that every kind of node answers, and that change nothing. Each call
/// ends within the settings' timeouts.
///
/// Errors: `Unavailable` (503): the node did nothing and says to try later. `GatewayTimeout`
/// (504): no answer; what it did is unknown. `BadGateway` (502): nonsense; likewise. Others: the
/// node refused, and did nothing. Which of them are the node's own word is said by [`Error::is_said`]:
/// a node that says what is wrong with it is not given up.
pub trait Questions {
    /// What the node knows of these jobs, in order. An error in the place of one: the node cannot
    /// say just now, for a reason that concerns this job alone.
    fn statuses(&self, ids: &[RunId]) -> Result<Vec<Result<Answer>>>;

    /// What the node knows of these jobs, in order, or why it cannot say it of one of them.
    fn status(&self, ids: &[RunId]) -> Result<Vec<Answer>> {
        self.statuses(ids)?.into_iter().collect()
    }

    /// A piece of a job's log.
    fn log(&self, id: &RunId, query: &LogQuery) -> Result<LogPiece>;

    /// Names of the files in a job's work directory.
    fn files(&self, id: &RunId) -> Result<Vec<String>>;

    /// One file of a job's work directory, and its length, to be read once.
    fn file(&self, id: &RunId, name: &str) -> Result<(Box<dyn Read>, u64)>;
}

/// All that a node is asked, and told to do; calls end and fail as those of [`Questions`].
pub trait Driver: Questions + Send {
    /// Jobs are about to be sent: does what can be done before it is known that they are. Says
    /// nothing of them, and fails at nothing.
    fn prepare(&self) {}

    /// Starts attempts: one result for each, in order. Repeating it with the same ids starts
    /// nothing twice, and says the same of them.
    fn run(&self, runs: Vec<Run>) -> Result<Vec<Result<Taken>>>;

    /// Kills a job, or only some tasks of a range: SIGTERM, then after the grace SIGKILL. What has
    /// not been started never is; of a range that has not come yet only all tasks can be killed. A
    /// run that is not the one that is meant is left alone, and the answer is what is known of it.
    fn kill(&self, wish: &Wish) -> Result<RunStatus>;

    /// Forbids the start of an attempt that is not there; one that is there is left alone. The
    /// answer is the node's durable word: `Cancelled`, or what it knows of it.
    fn forbid(&self, id: &RunId, by: &str) -> Result<Answer>;

    /// Ids of the jobs that the node has, newest first.
    fn list(&self) -> Result<Vec<RunId>>;

    /// Ids of those of them that have not ended.
    fn unfinished(&self) -> Result<Vec<RunId>>;

    /// What changed since a cursor, waiting for it at most so long; without a cursor, just the
    /// present one. 410 for a cursor of another epoch.
    fn feed(&self, since: &Since) -> Result<FeedPage>;

    /// Tells the node that these results are safe here.
    fn acknowledge(&self, ids: &[RunId]) -> Result<()>;

    /// What the node gives to jobs.
    fn info(&self) -> Result<Info>;
}

/// The driver for a node. 409 for one whose record a newer program wrote.
pub fn open(root: &Root, node: &Node) -> Result<Box<dyn Driver>> {
    node.for_use()?;
    Ok(match node.driver {
        DriverKind::Local => Box::new(local::Local::new(root.clone())),
        DriverKind::Http => Box::new(asked::Asked(by_http(root, node)?)),
        DriverKind::Worker => Box::new(asked::Asked(worker::Inbox::new(root, &node.name)?)),
    })
}

/// The same for questions alone: a program that only asks has nothing in it of what the others do.
pub fn ask(root: &Root, node: &Node) -> Result<Box<dyn Questions>> {
    node.for_use()?;
    Ok(match node.driver {
        DriverKind::Local => Box::new(local::Local::new(root.clone())),
        DriverKind::Http => Box::new(asked::Asked(by_http(root, node)?)),
        DriverKind::Worker => Box::new(asked::Asked(worker::Inbox::new(root, &node.name)?)),
    })
}

/// Begins to find out whether a node that did not answer does now; `None` for kinds of nodes that
/// do not take long to say so themselves. A name may be looked up for it.
pub fn knock(root: &Root, node: &Node) -> Result<Option<Knock>> {
    match node.driver {
        DriverKind::Local => Ok(None),
        DriverKind::Http => by_http(root, node)?.knock().map(Some),
        DriverKind::Worker => worker::Inbox::new(root, &node.name)?.is_in_touch().map(|()| None),
    }
}

/// What is wrong with a node whose [`Knock`] has failed.
pub fn unanswered(node: &Node, error: &io::Error) -> Error {
    http::unanswered(&node.name, error)
}

fn by_http(root: &Root, node: &Node) -> Result<http::Http> {
    let no_uri = || Error::new(Kind::Internal, format!("node {} has no uri", node.name));
    http::Http::new(root, &node.name, node.uri.as_deref().ok_or_else(no_uri)?)
}
