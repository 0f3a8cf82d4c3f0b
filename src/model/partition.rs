//! A partition: some of the nodes under a name, with rules of its own for the jobs that are submitted to it.
//! Its record is `state/scheduler/partitions/NAME.json`, which people may edit.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access;
use super::newer;
use super::node::Node;
use super::selector::Selector;

/// The fields of a record.
pub const FIELDS: &[&str] = &[
    "name",
    "constraints",
    "node",
    "exclude",
    "max_jobs",
    "max_cores",
    "max_jobs_per_user",
    "max_cores_per_user",
    "defaults",
    "users",
    "priority",
];

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its name, an id; also its file's name, which counts.
    #[serde(default)]
    pub name: String,
    /// What the labels of its nodes have to be, as in a job's request.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    constraints: Map<String, Value>,
    /// Names of its nodes, one or a list; all that its constraints take if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Value>,
    /// Names of nodes that are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<Value>,
    /// Most jobs of it that nodes have at a time; no bound if absent, as of those below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_jobs: Option<u64>,
    /// Most cores of these in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cores: Option<u64>,
    /// Most jobs of it of one user that nodes have at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_jobs_per_user: Option<u64>,
    /// Most cores of these in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cores_per_user: Option<u64>,
    /// Fields of a request that a job is given where its own does not say: see [`super::defaults`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub defaults: Map<String, Value>,
    /// The users who may submit jobs to it; everybody if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<BTreeSet<String>>,
    /// Added to the priority of its jobs where these are placed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// Which nodes are in it, where not all are.
    #[serde(skip)]
    pub selector: Option<Arc<Selector>>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A record that this program cannot go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// A newer program wrote it, and more in it than this one knows: what that is.
    Newer(String),
    /// It is torn, or somebody wrote a wrong value: which.
    Damaged(String),
}

impl Partition {
    /// Reads the record of the partition of this name.
    ///
    /// Errors: a field that is not known may mean anything, so that it is a newer program's; whatever else is
    /// wrong is a damage, which whoever edited it can mend. Its defaults are not looked into.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Partition, Unread> {
        let read = serde_json::from_slice::<Value>(bytes);
        let fields = match read.map_err(|why| Unread::Damaged(why.to_string()))? {
            Value::Object(fields) => fields,
            _ => return Err(Unread::Damaged("not a JSON object".into())),
        };
        if let Some(field) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(Unread::Newer(format!("unknown field {field:?}")));
        }
        Partition::of(name, fields).map_err(Unread::Damaged)
    }

    /// The partition of this name that these fields describe.
    ///
    /// Errors: what is wrong with them, for whoever wrote them. Its defaults are not looked into.
    pub fn of(name: &str, fields: Map<String, Value>) -> Result<Partition, String> {
        let read = serde_json::from_value::<Partition>(Value::Object(fields));
        let read = read.map_err(|why| newer::what(&why))?;
        let mut selector = Selector::of_labels(&read.constraints)?;
        read.node.as_ref().map_or(Ok(()), |names| selector.only(names))?;
        read.exclude.as_ref().map_or(Ok(()), |names| selector.except(names))?;
        let caps = [
            ("max_jobs", read.max_jobs),
            ("max_cores", read.max_cores),
            ("max_jobs_per_user", read.max_jobs_per_user),
            ("max_cores_per_user", read.max_cores_per_user),
        ];
        if let Some((cap, _)) = caps.iter().find(|(_, most)| *most == Some(0)) {
            return Err(format!("{cap} must be at least 1; without it there is no bound"));
        }
        let users = read.users.iter().flatten();
        if let Some(odd) = users.into_iter().find(|user| !access::may_be_owner(user)) {
            return Err(format!("users: {odd:?} cannot be a user's name"));
        }
        let selector = (!selector.is_any()).then(|| Arc::new(selector));
        Ok(Partition { name: name.to_string(), selector, ..read })
    }

    /// Whether a node is in it.
    pub fn has(&self, node: &Node) -> bool {
        self.selector.as_ref().is_none_or(|by| by.takes(&node.name, &node.labels))
    }

    /// Why a node is not in it, for a person; nothing where it is.
    pub fn objection(&self, node: &Node) -> Option<String> {
        let why = self.selector.as_ref()?.objection(&node.name, &node.labels)?;
        Some(format!("not in partition {}: {why}", self.name))
    }

    /// Whether a user may submit jobs to it.
    pub fn admits(&self, user: Option<&str>) -> bool {
        self.users.as_ref().is_none_or(|users| user.is_some_and(|user| users.contains(user)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: &Value) -> Result<Partition, Unread> {
        Partition::parse("p", value.to_string().as_bytes())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = json!({"name": "other", "constraints": {"disk": "ssd"}, "node": ["a", "b"],
            "exclude": "b", "max_jobs": 4, "max_cores_per_user": 2, "users": ["ben", "ada"],
            "defaults": {"timeout": "1h"}, "priority": -3});
        let read = parse(&written).unwrap();
        assert_eq!((read.name.as_str(), read.max_cores), ("p", None), "its file's name counts");
        assert!(read.admits(Some("ada")) && !read.admits(Some("cleo")) && !read.admits(None));
        assert_eq!(parse(&json!(read)), Ok(read.clone()));
        let node = |name: &str, disk: &str| {
            let mut node = Node { name: name.into(), ..Node::localhost() };
            node.labels.insert("disk".into(), disk.into());
            node
        };
        assert!(read.has(&node("a", "ssd")) && read.objection(&node("a", "ssd")).is_none());
        for (name, disk, why) in [
            ("a", "hdd", "not in partition p: label disk is hdd"),
            ("b", "ssd", "not in partition p: excluded"),
            ("c", "ssd", "not in partition p: it is not the node that is asked for"),
        ] {
            assert!(!read.has(&node(name, disk)));
            assert_eq!(read.objection(&node(name, disk)).as_deref(), Some(why));
        }
        let all = parse(&json!({})).unwrap();
        assert!(all.selector.is_none() && all.admits(None));
    }

    #[test]
    fn what_is_newer_and_what_is_wrong() {
        let newer = parse(&json!({"max_gpus": 3, "max_jobs": 0}));
        assert_eq!(newer, Err(Unread::Newer("unknown field \"max_gpus\"".into())));
        for (value, why) in [
            (json!([]), "not a JSON object"),
            (json!({"max_jobs": 0}), "max_jobs must be at least 1"),
            (json!({"max_cores": -1}), "invalid value"),
            (json!({"max_cores": 1.5}), "invalid type"),
            (json!({"constraints": {"disk": {"like": 1}}}), "no operator \"like\""),
            (json!({"constraints": "disk"}), "invalid type"),
            (json!({"node": []}), "node must name a node"),
            (json!({"exclude": ["../x"]}), "exclude must be"),
            (json!({"users": ["a\nb"]}), "cannot be a user's name"),
            (json!({"users": "ada"}), "invalid type"),
            (json!({"defaults": []}), "invalid type"),
            (json!({"priority": "high"}), "invalid type"),
        ] {
            match parse(&value) {
                Err(Unread::Damaged(said)) => assert!(said.contains(why), "{value}: {said}"),
                other => panic!("{value}: {other:?}"),
            }
        }
        for torn in ["", "{\"max_jobs\": ", "\0\0"] {
            assert!(matches!(Partition::parse("p", torn.as_bytes()), Err(Unread::Damaged(_))));
        }
    }
}
