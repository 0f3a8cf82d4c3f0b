//! What a job asks of nodes, and whether a node, as it is registered, could ever have it.

use super::node::Node;
use super::partition::Partition;
use super::resources::{Resources, human_size};
use super::selector::Selector;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Amounts.
    pub resources: &'a Resources,
    /// Which nodes will do, where not all will.
    pub selector: Option<&'a Selector>,
    /// The user whose job it is, where that is known.
    pub user: Option<&'a str>,
    /// The partition to which the nodes belong, if it is for one.
    pub partition: Option<&'a Partition>,
}

impl Asked<'_> {
    /// Whether a node could have it.
    pub fn may_go_to(&self, node: &Node) -> bool {
        node.takes_jobs_of(self.user) && self.selects(node) && node.may_hold(self.resources)
    }

    /// Whether a node is one of those that will do, whatever it has.
    pub fn selects(&self, node: &Node) -> bool {
        self.partition.is_none_or(|partition| partition.has(node))
            && self.selector.is_none_or(|by| by.takes(&node.name, &node.labels))
    }

    /// Whether it is not known of a node yet that it could not have it.
    pub fn might_go_to(&self, node: &Node) -> bool {
        // What it is like is told with what it has.
        node.takes_jobs_of(self.user) && (node.resources.is_none() || self.may_go_to(node))
    }

    /// Why a node will never have it, for a person; nothing where it may.
    pub fn never(&self, node: &Node) -> Option<String> {
        if !node.takes_jobs_of(self.user) {
            return Some(format!(
                "takes only {}'s jobs",
                node.owner.as_deref().unwrap_or_default()
            ));
        }
        let total = node.resources.as_ref()?;
        let outside = self.partition.and_then(|partition| partition.objection(node));
        let own = || self.selector.and_then(|by| by.objection(&node.name, &node.labels));
        let objection = outside.or_else(own);
        if objection.is_some() {
            return objection;
        }
        (!self.resources.fits(total)).then(|| format!("has only {}", only(self.resources, total)))
    }

    /// As a person reads it: "8 cores, label disk = ssd, in partition gpu".
    pub fn human(&self) -> String {
        let selector = self.selector.map(|selector| selector.human());
        let partition = self.partition.map(|partition| format!("in partition {}", partition.name));
        let parts = [Some(self.resources.human()), selector, partition];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Those amounts of a node of which a job asks for more.
fn only(asked: &Resources, total: &Resources) -> String {
    let mut short = Vec::new();
    if asked.cores > total.cores {
        short.push(if total.cores == 1 {
            "1 core".into()
        } else {
            format!("{} cores", total.cores)
        });
    }
    if asked.memory > total.memory {
        short.push(format!("{} memory", human_size(total.memory)));
    }
    let others = asked.others.iter().filter(|(name, amount)| *amount > total.others.get(name));
    short.extend(others.map(|(name, _)| format!("{} {name}", total.others.get(name))));
    short.join(", ")
}
