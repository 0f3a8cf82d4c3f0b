//! Whether any node could ever have what is submitted. For one request: each node's record is read once,
//! each partition's, and each kind of job is looked into once, however many jobs there are.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use crate::board::nodes::{self, Registered};
use crate::board::partitions::Partitions;
use crate::board::root::Root;
use crate::model::asked::Asked;
use crate::model::card::Accepted;
use crate::model::request::Spec;
use crate::model::resources::Resources;
use crate::model::selector::Selector;

/// Fields by which a job asks nodes for more than any of them has.
const ASKING: &[&str] = &["requested_resources", "constraints", "node", "exclude"];

/// What of a job decides it: amounts, which nodes, whose it is, and its partition.
type Kind = (Resources, Option<Selector>, Option<String>, Option<String>);

/// See the module.
pub struct Possible<'r> {
    root: &'r Root,
    names: OnceCell<Option<Vec<String>>>,
    registered: Registered<'r>,
    partitions: Partitions<'r>,
    told: RefCell<HashMap<Kind, Option<String>>>,
}

impl<'r> Possible<'r> {
    /// Nothing is read yet.
    pub fn new(root: &'r Root) -> Possible<'r> {
        Possible {
            root,
            names: OnceCell::new(),
            registered: Registered::new(root),
            partitions: Partitions::new(root),
            told: RefCell::default(),
        }
    }

    /// The root whose nodes they are.
    pub fn root(&self) -> &'r Root {
        self.root
    }

    /// What is to be said of a job that no node could ever run, as the nodes are now. Asked of jobs that want
    /// more than the least alone: any node has that.
    pub fn warning(&self, accepted: &Accepted) -> Option<String> {
        let request = accepted.whole_request();
        let partition = match request.get("partition") {
            Some(name) => Some(self.partitions.look(name.as_str()?).ok()?.known()?),
            None => None,
        };
        let is_part = partition.as_ref().is_some_and(|partition| partition.selector.is_some());
        if !is_part && !ASKING.iter().any(|field| request.contains_key(*field)) {
            return None;
        }
        let (spec, _) = Spec::of_card(&request);
        self.none_has(&spec.asked(accepted.user().as_deref(), partition.as_deref()))
    }

    /// Says so where no node could ever have this, as they are registered, and of every one that takes jobs of
    /// this user it is known what it has. Reads nodes' records until one fits, each 20 µs or so.
    pub fn none_has(&self, asked: &Asked) -> Option<String> {
        let kind = (
            asked.resources.clone(),
            asked.selector.cloned(),
            asked.user.map(str::to_string),
            asked.partition.map(|partition| partition.name.clone()),
        );
        if let Some(known) = self.told.borrow().get(&kind) {
            return known.clone();
        }
        let found = self.look(asked);
        self.told.borrow_mut().insert(kind, found.clone());
        found
    }

    fn look(&self, asked: &Asked) -> Option<String> {
        let names = self.names.get_or_init(|| nodes::names(self.root).ok());
        for name in names.as_ref()? {
            let node = self.registered.find(name).ok()?; // one that cannot be read may have it
            if node.is_some_and(|node| asked.might_go_to(&node)) {
                return None;
            }
        }
        Some(format!("no node has {}", asked.human()))
    }
}
