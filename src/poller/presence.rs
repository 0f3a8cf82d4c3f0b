//! Which nodes answer, as this process has seen it, and which have not for so long that their jobs are to
//! be given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::silence::Silences;
use crate::error::Error;

/// Of a node that answers it is noted so seldom that it does.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// See the module. Whoever is to be given up has failed since it last answered.
#[derive(Debug)]
pub struct Presence {
    /// When it was last noted of each node how it is.
    seen: BTreeMap<String, Instant>,
    /// When it was last noted of each how busy it is.
    told: BTreeMap<String, Instant>,
    silences: Silences,
    /// Those that have been silent for too long.
    lost: BTreeSet<String>,
    /// Those that could not be asked for want of something here, and what that is.
    unasked: BTreeMap<String, Error>,
}

impl Presence {
    /// Nothing was seen.
    pub fn new(now: Instant) -> Presence {
        Presence {
            seen: BTreeMap::new(),
            told: BTreeMap::new(),
            silences: Silences::new(now),
            lost: BTreeSet::new(),
            unasked: BTreeMap::new(),
        }
    }

    /// The node was asked how it is, and answered, be it that it can do nothing.
    pub fn is_up(&mut self, node: &str, now: Instant) {
        self.has_answered(node);
        self.seen.insert(node.to_string(), now);
    }

    /// The node answered, whatever it was asked.
    pub fn has_answered(&mut self, node: &str) {
        self.silences.end(node);
        self.lost.remove(node);
        self.unasked.remove(node);
    }

    /// The node could not be asked.
    pub fn is_unasked(&mut self, node: &str, why: Error) {
        self.unasked.insert(node.to_string(), why);
    }

    /// Why nodes could not be asked that have not answered since.
    pub fn unasked(&self) -> Vec<Error> {
        self.unasked.values().cloned().collect()
    }

    /// The node, which has answered, is seen; whether that is to be noted, as it was not lately.
    pub fn see(&mut self, node: &str, now: Instant) -> bool {
        let recent = |seen: &Instant| now.saturating_duration_since(*seen) < SEEN_EVERY;
        let is_news = !self.seen.get(node).is_some_and(recent);
        if is_news {
            self.seen.insert(node.to_string(), now);
        }
        is_news
    }

    /// The node tells how busy it is; whether that is to be noted, as it was not lately, or is asked
    /// for `anew`.
    pub fn tells(&mut self, node: &str, now: Instant, anew: bool) -> bool {
        let recent = |told: &Instant| now.saturating_duration_since(*told) < SEEN_EVERY;
        let is_news = anew || !self.told.get(node).is_some_and(recent);
        if is_news {
            self.told.insert(node.to_string(), now);
        }
        is_news
    }

    /// The node failed to answer; whether it has been silent for `lost_after`.
    pub fn is_down(&mut self, node: &str, now: Instant, lost_after: Duration) -> bool {
        self.seen.insert(node.to_string(), now);
        self.silences.note(node, lost_after)
    }

    /// The node, which has failed to answer, is to be given up unless it answers before.
    pub fn give_up(&mut self, node: &str) {
        self.lost.insert(node.to_string());
    }

    /// Takes out those that are to be given up now.
    pub fn take_lost(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.lost)
    }

    /// Whether it is known how the node is, since it was last asked anew.
    pub fn knows(&self, node: &str) -> bool {
        self.seen.contains_key(node)
    }

    /// The node is asked anew.
    pub fn ask_anew(&mut self, node: &str) {
        self.seen.remove(node);
    }

    /// See [`Silences::pass`].
    pub fn pass(&mut self, now: Instant) {
        self.silences.pass(now);
    }

    /// See [`Silences::patience`].
    pub fn patience(&self) -> Option<Duration> {
        self.silences.patience()
    }

    /// Forgets the silence of nodes that are not registered any more.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.unasked.retain(|node, _| is_there(node));
        self.told.retain(|node, _| is_there(node));
        self.silences.retain(is_there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_node_that_answers_is_given_up_no_more() {
        let now = Instant::now();
        let answers: [fn(&mut Presence, Instant); 2] =
            [|presence, now| presence.is_up("n", now), |presence, _| presence.has_answered("n")];
        for answer in answers {
            let mut presence = Presence::new(now);
            assert!(!presence.is_down("n", now, MINUTE) && presence.patience().is_some());
            presence.give_up("n");
            answer(&mut presence, now);
            assert!(presence.patience().is_none() && presence.take_lost().is_empty());
        }
        let mut presence = Presence::new(now);
        presence.is_down("n", now, MINUTE);
        presence.give_up("n");
        assert_eq!(presence.take_lost().len(), 1);
        assert!(presence.take_lost().is_empty(), "once");
    }

    #[test]
    fn what_kept_a_node_from_being_asked_is_told_unless_it_has_answered_since() {
        let mut presence = Presence::new(Instant::now());
        for (node, why) in [("a", "one"), ("a", "two"), ("b", "three"), ("c", "four")] {
            presence.is_unasked(node, Error::bad(why));
        }
        presence.has_answered("b");
        presence.retain(|node| node != "c");
        let left: Vec<String> = presence.unasked().into_iter().map(|why| why.message).collect();
        assert_eq!(left, ["two"]);
    }

    #[test]
    fn that_a_node_answers_is_noted_once_a_minute_and_anew_where_it_is_asked_anew() {
        let now = Instant::now();
        let mut presence = Presence::new(now);
        assert!(!presence.knows("n"));
        assert!(presence.see("n", now) && presence.knows("n"));
        assert!(!presence.see("n", now + MINUTE / 2));
        assert!(presence.see("n", now + MINUTE));
        presence.is_up("n", now + MINUTE * 2);
        assert!(!presence.see("n", now + MINUTE * 2));
        let later = now + MINUTE * 3;
        assert!(presence.tells("n", later, false) && !presence.tells("n", later, false));
        assert!(
            presence.tells("n", later, true) && !presence.tells("n", later + MINUTE / 2, false)
        );
        assert!(presence.tells("n", later + MINUTE, false));
        presence.ask_anew("n");
        assert!(!presence.knows("n"));
        presence.is_down("n", now, MINUTE);
        assert!(presence.knows("n"), "it is known that it does not answer");
    }
}
