//! Which of the nodes that have room a job is given.

use std::sync::Arc;

use super::ask::Ask;
use super::candidates::Turn;
use super::ends::NEVER;
use super::rooms::Rooms;
use super::spots::{PlaceId, Spot, scatter};
use crate::model::request::Spec;
use crate::strategy::Strategy;

impl Rooms {
    /// The node for the job of this turn, which asks for this; `None` if none has room. One that has room now
    /// comes before one to which it would be sent ahead, one on which nothing is reserved before one where it
    /// may pass, and one to be avoided comes last.
    pub(super) fn choose(&self, ask: &Ask, turn: Turn, avoid: &[String]) -> Option<PlaceId> {
        let avoided = |name: &str| avoid.iter().any(|other| other == name);
        let others = &ask.resources.others;
        for free in [true, false] {
            let wanted = |spot: &Spot| {
                self.sites.is_taken(ask.site, spot.class)
                    && !avoided(&spot.name)
                    && (others.is_empty() || {
                        let room = self.room(spot.place);
                        let left =
                            |name: &Arc<str>| if free { room.free(name) } else { room.left(name) };
                        others.iter().all(|(name, amount)| amount <= left(name))
                    })
            };
            let mut best = match ask.strategy {
                Strategy::Spread | Strategy::Pack => self.first(ask, free, &wanted),
                Strategy::RoundRobin => {
                    let after =
                        |spot: &Spot| self.last.as_ref().is_none_or(|last| spot.name > *last);
                    self.first(ask, free, &|spot| after(spot) && wanted(spot))
                        .or_else(|| self.first(ask, free, &wanted))
                }
                Strategy::Random => {
                    let from = scatter([turn.1].into_iter());
                    self.first(ask, free, &|spot| spot.order >= from && wanted(spot))
                        .or_else(|| self.first(ask, free, &wanted))
                }
            };
            if ask.strategy == Strategy::Spread {
                // Where a node to be avoided is the first of its group, another one is in its place.
                let in_place: Option<Spot> = self
                    .avoided(ask, avoid)
                    .filter_map(|place| {
                        let alike = self.groups.get(&self.group(place))?;
                        let (_, _, next) = alike.iter().find(|(_, name, _)| !avoided(name))?;
                        self.takes(*next, ask, turn, free).then(|| self.spot(*next, ask.strategy))
                    })
                    .min();
                best = [best, in_place].into_iter().flatten().min();
            }
            let reserved =
                || self.reserved_for(ask, turn, free).filter(|spot| !avoided(&spot.name));
            if let Some(spot) = best.or_else(|| reserved().min()) {
                return Some(spot.place);
            }
        }
        [true, false].into_iter().find_map(|free| {
            let last_resort =
                self.avoided(ask, avoid).filter(|place| self.takes(*place, ask, turn, free));
            last_resort.map(|place| self.spot(place, ask.strategy)).min().map(|spot| spot.place)
        })
    }

    /// Nodes on which something is reserved that the job may have all the same.
    fn reserved_for<'a>(
        &'a self,
        ask: &'a Ask,
        turn: Turn,
        free: bool,
    ) -> impl Iterator<Item = Spot> + 'a {
        let good = move |place: &PlaceId| {
            self.sites.is_taken(ask.site, self.class(*place)) && self.takes(*place, ask, turn, free)
        };
        self.reserved_places().filter(good).map(|place| self.spot(place, ask.strategy))
    }

    /// Nodes among these that the job may use.
    fn avoided<'a>(
        &'a self,
        ask: &'a Ask,
        avoid: &'a [String],
    ) -> impl Iterator<Item = PlaceId> + 'a {
        let known = avoid.iter().filter_map(|name| self.place_of(name));
        known.filter(|place| {
            self.room(*place).open && self.sites.is_taken(ask.site, self.class(*place))
        })
    }

    /// Whether a node has room for a job of this turn: now if `free`, else where it is sent ahead.
    pub(super) fn takes(&self, place: PlaceId, ask: &Ask, turn: Turn, free: bool) -> bool {
        let room = self.room(place);
        if let Some(reservation) = self.reservation_against(place, turn) {
            return free
                && room.has_room(&ask.resources)
                && reservation.lets_past(&ask.resources, ask.lasts, self.now);
        }
        match free {
            true => room.has_room(&ask.resources),
            false => room.takes(&ask.resources),
        }
    }

    /// Whether a job of this turn may be placed there, now or ahead.
    pub(super) fn might_take(&self, place: PlaceId, ask: &Ask, turn: Turn) -> bool {
        [true, false].iter().any(|free| self.takes(place, ask, turn, *free))
            && self.sites.is_taken(ask.site, self.class(place))
    }

    /// The node for a job of nobody's that asks for this; `None` if none has room.
    pub fn choose_for(&mut self, spec: &Spec) -> Option<String> {
        let ask = Ask {
            resources: spec.resources.clone(),
            lasts: NEVER,
            site: self.site(spec.selector.as_ref(), None),
            strategy: Strategy::Spread,
        };
        let turn = (std::cmp::Reverse(i64::MAX), 0); // nothing is reserved that it has to mind
        self.choose(&ask, turn, &[]).map(|place| self.name(place).to_string())
    }

    /// Notes that this node was chosen in turn.
    pub(super) fn pass_turn(&mut self, place: PlaceId) {
        self.last = Some(self.name(place).clone());
    }
}
