//! What a node has room for, as jobs that wait for room look at it.

use super::candidates::Turn;
use super::ends::NEVER;
use super::kdtree::Window;
use super::room::Room;
use super::rooms::Rooms;
use super::spots::PlaceId;
use crate::model::resources::{Others, Resources};

/// What may be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Cores and memory.
    pub window: Window<2>,
    /// The most of each countable.
    pub others: Others,
    /// For how long at most.
    pub lasts: u64,
    /// By jobs of higher priority than that of this turn alone.
    pub above: Option<Turn>,
}

impl Offer {
    /// Whether one of this turn may.
    pub fn is_for(&self, turn: Turn) -> bool {
        self.above.is_none_or(|other| turn.0 < other.0)
    }
}

/// All that a node offers.
pub(super) fn offers(rooms: &Rooms, place: PlaceId) -> impl Iterator<Item = Offer> {
    let room = rooms.room(place);
    let reservation = rooms.reservation(place);
    let above = reservation.map(|known| known.turn);
    let of = |window, others, lasts, above| Offer { window, others, lasts, above };
    let whole = room.window().map(|window| of(window, room.left_of_others(), NEVER, above));
    let now = room.now().map(|most| (Window { from: [0, 0], to: most }, room.free_others()));
    let is_more = |now: &Window<2>| {
        whole
            .as_ref()
            .is_none_or(|whole| !(whole.window.holds(&now.from) && whole.window.holds(&now.to)))
    };
    // Where a node is over-full of what it was sent ahead, it may have room now for what it does not take then.
    let plain = now.clone().filter(|(window, _)| is_more(window));
    let plain = plain.map(|(window, others)| of(window, others, NEVER, above));
    let past = reservation.zip(now).map(|(known, (window, others))| {
        let short = of(window, others.clone(), known.time_left(rooms.now), None);
        let Resources { cores, memory, others: spare } = &known.spare;
        let most = [window.to[0].min(*cores), window.to[1].min(*memory)];
        let long = of(Window { from: [0, 0], to: most }, others.least(spare), NEVER, None);
        [short, long]
    });
    whole.into_iter().chain(plain).chain(past.into_iter().flatten())
}

impl Room {
    /// How much of each countable may be asked for.
    fn left_of_others(&self) -> Others {
        match self.used.others.is_empty() {
            true => self.total.others.clone(),
            false => self.total.minus(&self.used.minus(&self.leaving)).others,
        }
    }

    /// How much of each nobody has.
    fn free_others(&self) -> Others {
        match self.used.others.is_empty() {
            true => self.total.others.clone(),
            false => self.total.minus(&self.used).others,
        }
    }
}
