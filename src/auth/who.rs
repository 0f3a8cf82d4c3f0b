//! Somebody who asks, and what they may do.

use crate::error::{Error, Kind, Result};
use crate::model::access::{self, Need, Reach, Rights, Role, Share, Whose};
use crate::model::ids;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Who {
    /// As the cards' `by` says it, and under which their request ids are claimed: the user, or the job
    /// whose key they have.
    pub name: String,
    /// The user whose things are theirs. A job's key speaks for the job's owner.
    pub user: Option<String>,
    /// What they are called on cards that 0.1 wrote: their earlier requests are found under it.
    pub former: Option<String>,
    /// By which means they showed who they are, as the audit says it: `token ID`, `shell`.
    pub means: String,
    /// The token that they have.
    pub token: Option<String>,
    /// The node for which alone they act.
    pub node: Option<String>,
    /// What they may do.
    pub rights: Rights,
    /// Whether they only look, whatever else they might do.
    pub read_only: bool,
    /// Whether runs on a node under ids of a head's form are theirs to make, end and forget.
    pub may_be_head: bool,
    /// The run whose key they have: they speak for it alone.
    pub run: Option<String>,
}

impl Who {
    /// A user; a head, too.
    pub(super) fn of_user(user: String, rights: Rights, means: impl Into<String>) -> Who {
        Who {
            name: user.clone(),
            user: Some(user),
            former: None,
            means: means.into(),
            token: None,
            node: None,
            rights,
            read_only: false,
            may_be_head: true,
            run: None,
        }
    }

    /// The worker of this root, who carries out what its head orders.
    pub fn of_worker() -> Who {
        Who::of_user("head".into(), Rights::Shell, "worker")
    }

    /// Who has the key of a run.
    pub(super) fn of_run(name: String, user: Option<String>, rights: Rights, run: String) -> Who {
        Who {
            name,
            user,
            former: None,
            means: format!("key of {run}"),
            token: None,
            node: None,
            rights,
            read_only: false,
            may_be_head: false,
            run: Some(run),
        }
    }

    /// The user whose share of what this root can bear is counted. What works for the root is not held up
    /// by what users do, nor are admins, who have to mend it.
    pub fn counted(&self) -> Option<&str> {
        match self.rights {
            Rights::Role(Role::User | Role::Provider | Role::Viewer | Role::Join)
            | Rights::Job(_) => self.user.as_deref(),
            Rights::Shell | Rights::Run | Rights::Role(Role::Admin | Role::Head | Role::Worker) => {
                None
            }
        }
    }

    /// The job for which a running attempt speaks.
    pub fn job(&self) -> Option<u64> {
        match self.rights {
            Rights::Job(job) => Some(job),
            _ => None,
        }
    }

    /// Whether they may see the values in the environment of a job that they may read: people put
    /// passwords there. What runs here, or works for this root, has no need of them.
    pub fn sees_values(&self) -> bool {
        match self.rights {
            Rights::Shell | Rights::Role(Role::Admin | Role::User | Role::Provider) => true,
            Rights::Role(Role::Viewer | Role::Head | Role::Worker | Role::Join)
            | Rights::Job(_)
            | Rights::Run => false,
        }
    }

    /// How far they may go in this.
    pub fn reach(&self, need: Need) -> Reach {
        if self.read_only && !matches!(need, Need::Look | Need::Read) {
            return Reach::None;
        }
        let reach = access::reach(self.rights, need);
        // In 0.1 heads had the role user.
        let is_old_head = self.may_be_head && self.rights == Rights::Role(Role::User);
        if is_old_head { reach.max(access::reach(Rights::Role(Role::Head), need)) } else { reach }
    }

    /// Whether they may do this to a thing.
    pub fn may(&self, need: Need, whose: Whose) -> bool {
        access::may(self.reach(need), need, whose)
    }

    /// Whose a thing of this owner is, for them.
    pub fn whose(&self, owner: Option<&str>, share: Option<Share>) -> Whose {
        match share {
            _ if owner.is_some() && owner == self.user.as_deref() => Whose::Own,
            Some(share) => Whose::Shared(share),
            None => Whose::Others,
        }
    }

    /// Refuses with 403 what only a head may do to a run under this id: whoever had it before the
    /// head would answer in its job's name.
    pub fn check_run_id(&self, id: &str) -> Result<()> {
        if self.may_be_head { Ok(()) } else { ids::check_not_a_heads(id) }
    }

    /// Refuses with 403 whoever has no business to say how far this run is: one with a key speaks for
    /// the run alone that has it, and nobody else for runs of heads that are not theirs.
    pub fn check_speaks_for(&self, id: &str) -> Result<()> {
        match &self.run {
            None => self.check_run_id(id),
            Some(own) if own == id => Ok(()),
            Some(own) => {
                let why = format!("{} may not do that: its key is that of {own}", self.name);
                Err(Error::new(Kind::Forbidden, why))
            }
        }
    }
}

/// Refuses with 403 what somebody may not do, even to what is their own.
pub fn allow(who: &Who, need: Need) -> Result<()> {
    if who.reach(need) != Reach::None {
        return Ok(());
    }
    let how = match need {
        Need::Shell => "this is done at a shell of the machine, not over HTTP",
        _ if who.rights == Rights::Role(Role::Join) => {
            "a token of the role join registers one node by nodes/join, and nothing else"
        }
        Need::Join => "this is for a token of the role join: nodes/new registers a node, too",
        Need::Admin => "this needs a token with the role admin",
        Need::Work => "this is for the token of a worker, to do for its node",
        Need::Nodes if !who.read_only => "this needs a token with the role admin or provider",
        _ if who.rights == Rights::Run => "a run says here how far it is, and nothing else",
        _ if who.read_only => "this token only looks",
        Need::Run if who.job().is_some() => {
            "a job submits others at its head, to scheduler/jobs/new"
        }
        Need::Run | Need::Tend => "this needs a token with the role head, user or admin",
        _ => "this needs a token with the role user or admin",
    };
    Err(Error::new(Kind::Forbidden, format!("{} may not do that: {how}", who.name)))
}

/// Refuses with 403 what somebody may do only to their own.
pub fn allow_to(who: &Who, need: Need, whose: Whose) -> Result<()> {
    if who.may(need, whose) {
        return Ok(());
    }
    let how = "this is for its owner and for admins";
    Err(Error::new(Kind::Forbidden, format!("{} may not do that: {how}", who.name)))
}
