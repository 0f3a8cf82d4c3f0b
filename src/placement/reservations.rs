//! A job that needs much is not starved: what is reserved for it is closed to others.
//!
//! Where a job is about to be placed past one that comes before it and fits nowhere now, that one is given a
//! node, the one of those looked at on which there will be room for it first. From then on a job that does
//! not come before by its priority has the room of this node only if it will have ended by the time of which
//! that is known (`until`), or if it can stay beside the other (`spare`): backfilling, as of the EASY
//! scheduler (Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6),
//! 2001), with several reservations. So none is put off by what was let past it. The job itself is placed
//! wherever it has room first.
//!
//! A node with a reservation is in no index but looked at by itself: there are few.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::ask::Ask;
use super::candidates::Turn;
use super::ends::{Millis, NEVER};
use super::reservation::Reservation;
use super::rooms::Rooms;
use super::spots::{PlaceId, scatter};
use crate::model::resources::Resources;

/// So many nodes that could have it are looked at for the one to be reserved: all, where there are few, else any.
const LOOKED_AT: usize = 16;

/// Times that differ by less are the same: what is counted anew is not the same to the millisecond.
const ABOUT: Millis = 1000;

/// So long a node is kept where nobody knows when there will be room, the first time.
const FIRST_PATIENCE: Millis = 600_000;

/// What became of a wish to have something reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It is.
    Made,
    /// The nodes that could have the job are reserved for others.
    Taken,
    /// No open node could ever have it.
    Never,
}

impl Rooms {
    /// Takes over what somebody else has reserved on a node: by then at the latest there will be room for it.
    pub fn keep(
        &mut self,
        node: &str,
        (job, priority): (u64, i64),
        needs: &Resources,
        until: Millis,
    ) {
        let turn = (Reverse(priority), job);
        let Some(place) = self.place_of(node).filter(|place| self.reservation(*place).is_none())
        else {
            return;
        };
        self.close(place, turn, needs, until);
    }

    fn close(&mut self, place: PlaceId, turn: Turn, needs: &Resources, until: Millis) {
        self.unlist(place);
        self.at_mut(place).reserved = true;
        let (needs, since) = (needs.clone(), self.now);
        let reservation = Reservation { turn, needs, until, spare: Resources::NONE, since };
        self.reservations.push((place, reservation));
        self.look_at(place);
    }

    /// Reserves a node for a job that fits nowhere now. One that is reserved for a job of lower priority is taken
    /// from that one.
    pub(super) fn reserve(&mut self, ask: &Ask, turn: Turn, avoid: &[String]) -> Reserved {
        let mut found = self.looked_at(ask, turn);
        if found.is_empty() {
            return if self.is_possible(ask) { Reserved::Taken } else { Reserved::Never };
        }
        found.sort_by_cached_key(|place| {
            let room = self.room(*place);
            let until = room.ends.room_for(&ask.resources, (&room.total, &room.used), self.now);
            let lacks = ask.resources.minus(&room.total.minus(&room.used));
            let name = self.name(*place);
            (
                avoid.iter().any(|other| **other == **name),
                until,
                self.tried.get(&turn.1).is_some_and(|(tried, _)| tried == place),
                lacks.cores,
                lacks.memory,
                name.clone(),
            )
        });
        let place = found[0];
        self.cancel_on(place);
        self.close(place, turn, &ask.resources, NEVER);
        Reserved::Made
    }

    /// Some nodes that could have a job, and are not reserved for others that come before it.
    fn looked_at(&self, ask: &Ask, turn: Turn) -> Vec<PlaceId> {
        let may = |place: PlaceId| {
            let reservation = self.reservation(place);
            reservation.is_none_or(|other| turn.0 < other.turn.0) && self.might_have(place, ask)
        };
        let begin = scatter([turn.1].into_iter());
        let mut found = Vec::new();
        let mut known = HashSet::new();
        for from in [begin, 0] {
            let mut from = Some(from);
            while let Some(least) = from.filter(|_| found.len() < LOOKED_AT) {
                let Some(spot) = self.first_total(ask, least, &|spot| may(spot.place)) else {
                    break;
                };
                if !known.insert(spot.place) {
                    break; // all the way round
                }
                found.push(spot.place);
                from = spot.order.checked_add(1);
            }
        }
        found
    }

    /// Whether some open node could ever have it.
    pub(super) fn is_possible(&self, ask: &Ask) -> bool {
        self.first_total(ask, 0, &|spot| self.might_have(spot.place, ask)).is_some()
    }

    /// Whether a node has as much in all.
    fn might_have(&self, place: PlaceId, ask: &Ask) -> bool {
        let room = self.room(place);
        room.open
            && ask.resources.fits(&room.total)
            && self.sites.is_taken(ask.site, self.class(place))
    }

    /// What is reserved there.
    pub(super) fn reservation(&self, place: PlaceId) -> Option<&Reservation> {
        let reserved = self.at(place).reserved.then_some(&self.reservations)?;
        reserved.iter().find(|(other, _)| *other == place).map(|(_, reservation)| reservation)
    }

    /// What is reserved there that a job of this turn has to mind.
    pub(super) fn reservation_against(&self, place: PlaceId, turn: Turn) -> Option<&Reservation> {
        self.reservation(place).filter(|other| other.turn != turn && other.turn.0 <= turn.0)
    }

    /// Nodes on which something is.
    pub(super) fn reserved_places(&self) -> impl Iterator<Item = PlaceId> + '_ {
        self.reservations.iter().map(|(place, _)| *place)
    }

    /// Whether something is reserved for a job that is, and asks, as it did.
    pub(super) fn is_reserved(&self, turn: Turn, needs: &Resources) -> bool {
        let same = |known: &Reservation| known.turn == turn && known.needs == *needs;
        self.reservations.iter().any(|(_, known)| same(known))
    }

    /// Of all nodes on which something is the one whose job comes last, and its turn.
    pub(super) fn last_reserved(&self) -> Option<(PlaceId, Turn)> {
        let all = self.reservations.iter().map(|(place, known)| (*place, known.turn));
        all.max_by_key(|(_, turn)| *turn)
    }

    /// Jobs that lost theirs since this was last asked.
    pub(super) fn take_lost(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.lost)
    }

    /// Looks again at those whose time has passed, and gives up for another node what nobody knows the time of for
    /// so long: each time for twice as long, so that each node is kept for long enough in the end.
    pub(super) fn pass_reserved(&mut self) {
        self.look_at_changed();
        let passed = self.reservations.iter().filter(|(_, known)| known.until < self.now);
        let passed: Vec<PlaceId> = passed.map(|(place, _)| *place).collect();
        passed.into_iter().for_each(|place| self.look_at(place));
        let now = self.now;
        let patience = |job: u64| self.tried.get(&job).map_or(FIRST_PATIENCE, |(_, span)| *span);
        let vain = self.reservations.iter().filter(|(_, known)| {
            known.until == NEVER && now.saturating_sub(known.since) >= patience(known.turn.1)
        });
        let vain: Vec<(PlaceId, u64, Millis)> =
            vain.map(|(place, known)| (*place, known.turn.1, patience(known.turn.1))).collect();
        for (place, job, span) in vain {
            self.tried.insert(job, (place, span.saturating_mul(2)));
            self.cancel_on(place);
        }
    }

    /// What is reserved: the job, the node, and when there will be room, where that is known.
    pub fn reserved(&self) -> impl Iterator<Item = (u64, &str, Option<Millis>)> {
        self.reservations.iter().map(|(place, known)| {
            let until = Some(known.until).filter(|until| *until != NEVER);
            (known.turn.1, &**self.name(*place), until)
        })
    }

    /// Nothing is reserved for this job any more, if anything was.
    pub(super) fn cancel(&mut self, job: u64) {
        self.tried.remove(&job);
        let own = self.reservations.iter().find(|(_, reservation)| reservation.turn.1 == job);
        if let Some((place, _)) = own.cloned() {
            self.open_again(place);
        }
    }

    /// The same of what is reserved on a node; whose it was is in [`Rooms::lost`].
    pub(super) fn cancel_on(&mut self, place: PlaceId) {
        if let Some(job) = self.reservation(place).map(|reservation| reservation.turn.1) {
            self.open_again(place);
            self.lost.push(job);
        }
    }

    fn open_again(&mut self, place: PlaceId) {
        self.reservations.retain(|(other, _)| *other != place);
        self.at_mut(place).reserved = false;
        self.list(place);
        self.grown.insert(place);
        self.opened += 1;
    }

    /// What is in use of a node may be different from before: it is looked at with the next decision. By then what was
    /// taken out to be taken in anew is there again.
    pub(super) fn look_again(&mut self, place: PlaceId) {
        if self.at(place).reserved {
            self.unlooked.insert(place);
        }
    }

    /// Looks at what is reserved where something is different from before.
    pub(super) fn look_at_changed(&mut self) {
        for place in std::mem::take(&mut self.unlooked) {
            self.look_at(place);
        }
    }

    /// The time of a reservation only ever comes nearer, but where it has passed. Where somebody of higher priority
    /// has put it off, the job is given another.
    fn look_at(&mut self, place: PlaceId) {
        let Some(known) = self.reservation(place) else { return };
        let (room, now) = (self.room(place), self.now);
        let found = room.ends.room_for(&known.needs, (&room.total, &room.used), now);
        let is_over = known.until < now;
        if !is_over && known.until != NEVER && found > known.until.saturating_add(ABOUT) {
            return self.cancel_on(place);
        }
        let until = if is_over { found } else { known.until.min(found) };
        let stays = room.used.minus(&room.ends.by(until.saturating_add(ABOUT).min(NEVER - 1)));
        let spare = room.total.minus(&stays).minus(&known.needs);
        let later = until > known.until;
        for (other, known) in &mut self.reservations {
            if *other == place {
                (known.until, known.spare) = (until, spare.clone());
            }
        }
        if later {
            self.grown.insert(place); // others may last longer now
        }
    }
}
