//! Which reports are about attempts that this head made. Their nodes show it by a digest of the
//! attempt's key, which the head makes again: nothing is stored.

use std::time::Duration;

use subtle::ConstantTimeEq;

use super::Said;
use super::kills::KillOrder;
use crate::auth;
use crate::board::root::Root;
use crate::board::{numbers, vault};
use crate::error::Result;
use crate::model::ids::NodejobId;
use crate::model::kill::Wish;
use crate::model::proof;
use crate::model::run_status::RunStatus;

/// What a report is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Worth {
    /// It counts, if its node was given the attempt.
    Counts(Said),
    /// It shows nothing, and its node can. So it is where the node's programs were replaced by
    /// those of 0.1, where a request is damaged, and where nothing came under the id.
    Unproven(Said),
    /// It is about a run that somebody else put there under the attempt's id.
    Strangers(Said),
    /// It is not about a job of this head.
    NotOurs,
}

/// What the proofs of this head's attempts are made of.
pub struct Proofs {
    cluster: String,
    secret: Vec<u8>,
}

impl Proofs {
    /// Reads it.
    pub fn read(root: &Root) -> Result<Proofs> {
        Ok(Proofs { cluster: numbers::cluster(root)?, secret: vault::attempt_secret(root)? })
    }

    /// What the node of an attempt is to be told, if somebody wants its end: no other run is to be
    /// ended.
    pub fn wish(&self, id: &NodejobId, grace: Option<Duration>, kill: KillOrder) -> Result<Wish> {
        let KillOrder { by, tasks } = kill;
        Ok(Wish { id: id.run().clone(), proof: Some(self.of(id)?), grace, by, tasks })
    }

    fn of(&self, id: &NodejobId) -> Result<String> {
        Ok(proof::of_key(&auth::attempt_key(&self.secret, id)?))
    }

    /// What a node's report is worth, the node being one that `must_prove` what it reports or not.
    pub fn judge(&self, node: &str, must_prove: bool, status: RunStatus) -> Result<Worth> {
        let status = Box::new(status);
        let id = status.id.as_deref().and_then(NodejobId::parse);
        let Some(id) = id.filter(|id| id.cluster() == self.cluster) else {
            return Ok(Worth::NotOurs);
        };
        let Some(shown) = &status.proof else {
            let said = Said { node: node.to_string(), id, proven: false, status };
            return Ok(if must_prove { Worth::Unproven(said) } else { Worth::Counts(said) });
        };
        let proven: bool = self.of(&id)?.as_bytes().ct_eq(shown.as_bytes()).into();
        let said = Said { node: node.to_string(), id, proven, status };
        Ok(if proven { Worth::Counts(said) } else { Worth::Strangers(said) })
    }
}
