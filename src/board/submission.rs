//! Publishing one card.

use super::cards::{Cards, vanished};
use super::claims;
use super::files;
use super::sync_set::SyncSet;
use crate::error::Result;
use crate::model::card::{Accepted, Card};

/// What became of a submission.
#[derive(Debug)]
pub enum Submitted {
    /// The card was published.
    New,
    /// The request id is in use: the card that has it. The caller compares the requests.
    Existing(Box<Card>),
}

impl Cards<'_> {
    /// Publishes a card: afterwards it is in `queue/`, whole and durable. With `who` the request
    /// id is claimed as theirs first; if it is in use, the card that has it is brought to where
    /// the first submitter would have brought it, and returned.
    ///
    /// A crash before the rename leaves `tmp/N.job`. If that has a second name in `requests/`, a
    /// repeat of the request, or the poller, finishes it; else nobody was told and it is litter.
    pub fn submit(&self, accepted: &Accepted, who: Option<&str>) -> Result<Submitted> {
        let job = accepted.job;
        let mut sync = SyncSet::new();
        if let Some(parent) = accepted.parent {
            self.add_child(parent, &[job], &mut sync)?;
        }
        let prepared = self.prepared(job);
        let file = files::create(&prepared, &files::json_line(accepted)?)?;
        if let Err(error) = files::sync(&file, &prepared) {
            files::remove(&prepared)?;
            return Err(error);
        }
        if let Some(who) = who {
            let claim = self.claim_path(who, &accepted.request_id);
            match claims::claim_one(self, &prepared, &claim) {
                Ok(None) => sync.dir(&self.path("requests")),
                taken => {
                    files::remove(&prepared)?;
                    taken?;
                    return self.finish_claim(&claim).map(|card| Submitted::Existing(card.into()));
                }
            }
        }
        let published = match self.publish_prepared(accepted) {
            Ok(true) => Ok(()),
            // With a claim, somebody who repeated the request may have moved it already.
            Ok(false) => Err(vanished(&prepared)),
            Err(error) => Err(error),
        };
        if let Err(error) = published
            && self.take_back(accepted, who).map_err(files::unknown)?
        {
            return Err(error);
        }
        sync.dir(&self.path("queue"));
        sync.commit()?;
        Ok(Submitted::New)
    }
}
