//! A node's record, `state/scheduler/nodes/NAME.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::about::{About, Live};
use super::ids::NodejobId;
use super::newer::{self, written_by_newer};
use super::resources::Resources;
use super::selector::Labels;
use crate::error::{Error, Result};

/// How the head reaches a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// The processor of this very root, by its files; needs no server.
    Local,
    /// The processor of another root (or this one) by HTTP.
    Http,
    /// The processor of another root, which nobody needs to reach: it asks here for its orders.
    Worker,
}

/// Where a node's programs are, and how they are reached. An attempt's is on its card: it is asked
/// about there and nowhere else, whatever is registered under the node's name later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// How.
    pub driver: DriverKind,
    /// Where, for drivers that need it.
    pub uri: Option<String>,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not asked yet.
    Unknown,
    /// It answered when last asked.
    Connected,
    /// It did not.
    Disconnected,
}

/// A row of failures to answer. Times are seconds of this boot's clock, which nobody sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSilence {
    /// The head's boot in which it began.
    pub boot: String,
    /// When the first failure was over.
    pub since: u64,
    /// The last failure that counted.
    pub latest: u64,
    /// How many counted.
    pub failures: u32,
}

/// A node as registered, and what the poller last saw of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, an id; also its file's name.
    #[serde(default)]
    pub name: String,
    /// The user whose jobs alone it takes, and who may change it; everybody's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How it is reached.
    #[serde(default = "http")]
    pub driver: DriverKind,
    /// Where its programs are, of the `http` driver; of a worker which root it is, as `worker:ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The file of certificates to one of which the certificate of an `https` node has to lead;
    /// without one: those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The file of the certificate that an `https` node is shown; without one: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    /// The file of its key; that of the certificate if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For people and for scripts; nothing here depends on it.
    #[serde(default)]
    pub ipv4: Vec<String>,
    /// For people and for scripts; nothing here depends on it.
    #[serde(default)]
    pub hostname: String,
    /// What it gives to jobs in all; what it says of itself where nobody fixed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What it says that it is like, such as `arch`; kept by the poller.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What else it tells of itself; kept by the poller.
    #[serde(default, skip_serializing_if = "About::is_empty")]
    pub about: About,
    /// How busy its machine is, as it was about a minute ago; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// Whether the resources were fixed when it was registered, and are not asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// Why no new jobs are placed on it for now, as an admin says; those that it has go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
    /// No new jobs are placed on it; those that it has go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// Whether it answers; kept by the poller.
    #[serde(default = "unknown")]
    pub state: NodeState,
    /// Since when `state` is so; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it is disconnected; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it last answered, to about a minute; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Whether its reports prove to be about this head's attempts, as those of 0.1 cannot. Once
    /// they did they must always; kept by the poller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proves: Option<bool>,
    /// That it failed to answer in rounds from cron, one after the other; kept by `poller --once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<RecordedSilence>,
    /// Attempts that the head gave up and that may still run there, or come there late: asked
    /// about, and killed, when it answers again; kept by the poller.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<NodejobId>,
    /// Set if a newer program wrote the record, and more in it than this one knows: then the node
    /// is left alone, and the other fields say nothing of it.
    #[serde(skip)]
    pub newer: Option<Newer>,
}

/// What a newer program wrote of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newer {
    /// What of it is not known here, in words.
    pub what: String,
    /// All of it.
    pub record: Map<String, Value>,
}

fn http() -> DriverKind {
    DriverKind::Http
}

fn unknown() -> NodeState {
    NodeState::Unknown
}

impl Node {
    /// The node that every root has until something registers that name otherwise.
    pub fn localhost() -> Node {
        Node {
            name: "localhost".into(),
            owner: None,
            driver: DriverKind::Local,
            uri: None,
            ca: None,
            cert: None,
            key: None,
            ipv4: vec!["127.0.0.1".into()],
            hostname: "localhost".into(),
            resources: None,
            labels: Labels::new(),
            about: About::default(),
            live: None,
            fixed: false,
            pause: None,
            drain: false,
            state: NodeState::Unknown,
            since: None,
            reason: None,
            last_seen: None,
            proves: None,
            silence: None,
            given_up: Vec::new(),
            newer: None,
        }
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        Address { driver: self.driver, uri: self.uri.clone() }
    }

    /// Whether only those of its reports count that prove to be about this head's attempts. The
    /// processor of this very root has the programs of this head, and of 0.1 there are no workers.
    pub fn must_prove(&self) -> bool {
        self.driver != DriverKind::Http || self.proves == Some(true)
    }

    /// What is doubtful about it, for a person.
    fn warning(&self) -> Option<&'static str> {
        (self.proves == Some(false)).then_some(
            "its reports do not prove to be about this head's attempts (programs of 0.1): whoever may run jobs there could forge them; replace its programs",
        )
    }

    /// Reads the record of the node of this name. One that is whole and not known is a newer
    /// program's, see [`Node::newer`]; any other that cannot be read is an error.
    pub fn parse(name: &str, bytes: &[u8]) -> std::result::Result<Node, String> {
        let why = match serde_json::from_slice::<Node>(bytes) {
            Ok(node) => return Ok(Node { name: name.to_string(), ..node }),
            Err(why) => why,
        };
        let Ok(Value::Object(record)) = serde_json::from_slice(bytes) else {
            return Err(why.to_string());
        };
        let what = newer::what(&why);
        let newer = Some(Newer { what, record });
        Ok(Node { name: name.to_string(), ipv4: Vec::new(), newer, ..Node::localhost() })
    }

    /// Why this program leaves the node alone, if it does.
    pub fn newer_reason(&self) -> Option<String> {
        let newer = self.newer.as_ref()?;
        Some(written_by_newer(&newer.what))
    }

    /// Refuses with 409 what this program may not touch, nor talk to.
    pub fn for_use(&self) -> Result<()> {
        match self.newer_reason() {
            None => Ok(()),
            Some(why) => Err(Error::conflict(format!("node {}: its record was {why}", self.name))),
        }
    }

    /// As it is shown: with what is doubtful about it; a record that is not known as it is, with the
    /// reason.
    pub fn shown(&self) -> Value {
        let Some(newer) = &self.newer else {
            let mut shown = serde_json::json!(self);
            shown["duty"] = self.duty().into();
            if let (Some(warning), Some(fields)) = (self.warning(), shown.as_object_mut()) {
                fields.insert("warning".into(), warning.into());
            }
            return shown;
        };
        let mut record = newer.record.clone();
        record.insert("name".into(), self.name.clone().into());
        record.insert("reason".into(), self.newer_reason().into());
        Value::Object(record)
    }

    /// Takes over what the poller has seen of this node, unless it is registered elsewhere by now.
    /// What was fixed, or given up, is not seen.
    pub fn take_observed(&mut self, seen: &Node) {
        if self.newer.is_some() || self.address() != seen.address() {
            return;
        }
        self.state = seen.state;
        self.since.clone_from(&seen.since);
        self.reason.clone_from(&seen.reason);
        self.last_seen.clone_from(&seen.last_seen);
        self.labels.clone_from(&seen.labels);
        self.about.clone_from(&seen.about);
        self.live.clone_from(&seen.live);
        self.silence.clone_from(&seen.silence);
        if !self.fixed && !seen.fixed {
            self.resources.clone_from(&seen.resources);
        }
    }

    /// Whether jobs may be placed on it now.
    pub fn takes_jobs(&self) -> bool {
        self.is_open() && self.state == NodeState::Connected && self.resources.is_some()
    }

    /// Whether nobody has said that it is to get no new jobs.
    pub fn is_open(&self) -> bool {
        !self.drain && self.pause.is_none()
    }

    /// Whether it may get new jobs, and else why not, for a person: open, drained, or paused.
    pub fn duty(&self) -> String {
        match (&self.pause, self.drain) {
            (Some(why), _) => format!("paused: {why}"),
            (None, true) => "drained".into(),
            (None, false) => "open".into(),
        }
    }

    /// Whether it takes jobs of this user, if it takes any.
    pub fn takes_jobs_of(&self, user: Option<&str>) -> bool {
        self.owner.is_none() || self.owner.as_deref() == user
    }

    /// Whether it is known to have as much as this in all.
    pub fn may_hold(&self, asked: &Resources) -> bool {
        self.resources.as_ref().is_some_and(|total| asked.fits(total))
    }

    /// Why it cannot be given jobs though it is registered for them, for a person; nothing where it can.
    pub fn absence(&self) -> Option<String> {
        match self.state {
            NodeState::Connected => {
                self.resources.is_none().then(|| "it has not said what it has".into())
            }
            NodeState::Unknown => Some("it has not answered yet".into()),
            NodeState::Disconnected => Some(format!(
                "disconnected: {}",
                self.reason.as_deref().unwrap_or("it does not answer")
            )),
        }
    }

    /// Why the jobs that it has cannot be asked about, for a person; nothing while it answers.
    pub fn trouble(&self) -> Option<String> {
        if let Some(why) = self.newer_reason() {
            return Some(format!("the record of node {} was {why}", self.name));
        }
        (self.state == NodeState::Disconnected).then(|| {
            format!(
                "node {} is disconnected since {}: {}",
                self.name,
                self.since.as_deref().unwrap_or("an unknown time"),
                self.reason.as_deref().unwrap_or("it does not answer")
            )
        })
    }
}
