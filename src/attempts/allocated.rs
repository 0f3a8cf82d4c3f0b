//! What the jobs that nodes have were given, by the cards.

use std::collections::BTreeMap;

use crate::board::cards::Cards;
use crate::board::owners;
use crate::board::root::Root;
use crate::error::Result;
use crate::model::card::Column;
use crate::model::resources::Resources;
use crate::placement::{Cap, InUse};

/// More running cards than so many are not read for it: each takes 20 µs or so.
const MOST: usize = 5_000;

/// What is allocated on each node that has any job, those included that were sent ahead and wait there;
/// `None` where that takes too long to find out. A card that cannot be read counts for nothing.
pub fn by_node(root: &Root) -> Result<Option<BTreeMap<String, Resources>>> {
    let cards = Cards::new(root);
    let running = cards.numbers(Column::Running)?;
    if running.len() > MOST {
        return Ok(None);
    }
    let mut allocated: BTreeMap<String, Resources> = BTreeMap::new();
    for job in running {
        if let Ok(Some(card)) = cards.read_in(Column::Running, job) {
            for attempt in card.with_nodes() {
                let known = allocated.entry(attempt.node.clone()).or_insert(Resources::NONE);
                *known = known.plus(&card.spec.resources);
            }
        }
    }
    Ok(Some(allocated))
}

/// What a user's jobs have of all nodes; nothing where that takes too long to find out.
pub fn of_user(root: &Root, user: &str) -> Result<Option<InUse>> {
    let cards = Cards::new(root);
    let running = cards.numbers(Column::Running)?;
    if running.len() > MOST {
        return Ok(None);
    }
    let mut used = InUse::default();
    for job in running {
        let Ok(Some(card)) = cards.read_in(Column::Running, job) else { continue };
        if owners::of(&cards, &card).is_ok_and(|owner| owner.as_deref() == Some(user)) {
            card.with_nodes().for_each(|_| used.add(&card.spec.resources));
        }
    }
    Ok(Some(used))
}

/// What each user may have, by the settings of this root.
pub fn cap(root: &Root) -> Cap {
    Cap { jobs: root.settings.max_jobs_per_user, cores: root.settings.max_cores_per_user }
}

/// Why a job of this user has to wait for others of theirs, for a person, by the settings of this root.
pub fn at_cap(root: &Root, user: Option<&str>, asked: &Resources) -> Result<Option<String>> {
    let cap =
        Cap { jobs: root.settings.max_jobs_per_user, cores: root.settings.max_cores_per_user };
    let Some(user) = user.filter(|_| cap != Cap::default()) else { return Ok(None) };
    let used = of_user(root, user)?;
    Ok(used.and_then(|used| cap.objection(used, asked.cores)))
}
