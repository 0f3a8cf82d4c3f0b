//! Open nodes as they are searched for one that has room.

use super::ask::Ask;
use super::kdtree::{Point, Window};
use super::room::Basic;
use super::rooms::{Place, Rooms};
use super::sites::NamesId;
use super::spots::{Group, Listing, PlaceId, Spot, Totals, scatter};
use crate::strategy::Strategy;

const MOST: u64 = u64::MAX;

impl Rooms {
    /// Makes sure that nodes are listed for a strategy.
    pub(super) fn use_strategy(&mut self, strategy: Strategy) {
        if strategy == Strategy::Spread || self.strategies.contains(&strategy) {
            return;
        }
        self.strategies.push(strategy);
        for place in self.all_places() {
            if self.is_listed(place) {
                let spot = self.spot(place, strategy);
                self.enter(place, strategy, spot);
            }
        }
    }

    /// A reserved one is looked at by itself: see [`super::reservations`].
    fn is_listed(&self, place: PlaceId) -> bool {
        let Place { room, reserved, .. } = self.at(place);
        room.open && !reserved
    }

    pub(super) fn group(&self, place: PlaceId) -> Group {
        let Place { room, class, .. } = self.at(place);
        Group {
            class: *class,
            total: Basic::of(&room.total),
            ahead: room.ahead,
            like: Basic::of(&room.like),
            leaving: Basic::of(&room.leaving),
            cores: room.used.cores,
            alone: (!room.total.others.is_empty()).then_some(place),
        }
    }

    pub(super) fn spot(&self, place: PlaceId, strategy: Strategy) -> Spot {
        let Place { name, room, class, .. } = self.at(place);
        let order = match strategy {
            Strategy::Spread => room.load(),
            Strategy::Pack => u64::MAX - room.load(),
            Strategy::RoundRobin => 0,
            Strategy::Random => scatter(name.bytes().map(u64::from)),
        };
        let memory = if strategy == Strategy::Spread { room.used.memory } else { 0 };
        Spot { order, memory, name: name.clone(), place, class: *class }
    }

    /// Makes an open node findable.
    pub(super) fn list(&mut self, place: PlaceId) {
        if !self.is_listed(place) {
            return;
        }
        let Place { name, room, .. } = self.at(place);
        let own = (room.used.memory, name.clone(), place);
        let alike = self.groups.entry(self.group(place)).or_default();
        let first = alike.first().cloned();
        alike.insert(own.clone());
        if first.as_ref().is_none_or(|first| own < *first) {
            if let Some((_, _, first)) = first {
                self.withdraw(first, Strategy::Spread);
            }
            let spot = self.spot(place, Strategy::Spread);
            self.enter(place, Strategy::Spread, spot);
        }
        for index in 0..self.strategies.len() {
            let strategy = self.strategies[index];
            let spot = self.spot(place, strategy);
            self.enter(place, strategy, spot);
        }
    }

    /// Undoes [`Rooms::list`].
    pub(super) fn unlist(&mut self, place: PlaceId) {
        if !self.is_listed(place) {
            return;
        }
        for index in 0..self.strategies.len() {
            self.withdraw(place, self.strategies[index]);
        }
        let Place { name, room, .. } = self.at(place);
        let own = (room.used.memory, name.clone(), place);
        let group = self.group(place);
        let Some(alike) = self.groups.get_mut(&group) else { return };
        let was_first = alike.first() == Some(&own);
        alike.remove(&own);
        let next = alike.first().map(|(_, _, next)| *next);
        if next.is_none() {
            self.groups.remove(&group);
        }
        if was_first {
            self.withdraw(place, Strategy::Spread);
            if let Some(next) = next {
                let spot = self.spot(next, Strategy::Spread);
                self.enter(next, Strategy::Spread, spot);
            }
        }
    }

    /// Makes findable what an open node has in all.
    pub(super) fn list_total(&mut self, place: PlaceId) {
        if let Some((names, point, spot)) = self.total_of(place) {
            if self.totals.len() <= names.place() {
                self.totals.resize_with(names.place() + 1, Totals::default);
            }
            self.totals[names.place()].insert(point, spot);
        }
    }

    /// Undoes [`Rooms::list_total`].
    pub(super) fn unlist_total(&mut self, place: PlaceId) {
        if let Some((names, point, spot)) = self.total_of(place)
            && let Some(own) = self.totals.get_mut(names.place())
        {
            own.remove(point, spot);
        }
    }

    fn total_of(&self, place: PlaceId) -> Option<(NamesId, Point<4>, Spot)> {
        let Place { room, class, .. } = self.at(place);
        let names = self.sites.names(*class);
        let first = self.sites.names_in(names).first();
        let first = first.map_or(0, |name| room.total.others.get(name));
        let spot = self.spot(place, Strategy::Random);
        let point = [room.total.cores, room.total.memory, first, spot.order];
        room.open.then_some((names, point, spot))
    }

    fn listing(&mut self, names: NamesId, strategy: Strategy) -> &mut Listing {
        if self.listings.len() <= names.place() {
            self.listings.resize_with(names.place() + 1, Vec::new);
        }
        let own = &mut self.listings[names.place()];
        let known = own.iter().position(|(known, _)| *known == strategy);
        let index = known.unwrap_or_else(|| {
            own.push((strategy, Listing::default()));
            own.len() - 1
        });
        &mut own[index].1
    }

    /// Where a node lies in both trees of a listing.
    fn points(&self, place: PlaceId) -> (Option<Point<3>>, Option<Point<5>>) {
        let Place { room, class, .. } = self.at(place);
        let first = self.sites.names_in(self.sites.names(*class)).first();
        let now = room
            .now()
            .map(|[cores, memory]| [cores, memory, first.map_or(0, |name| room.free(name))]);
        let stretched = room.window().filter(|_| room.is_stretched()).map(|window| {
            let left = first.map_or(0, |name| room.left(name));
            [window.to[0], window.to[1], window.from[0], window.from[1], left]
        });
        (now, stretched)
    }

    fn enter(&mut self, place: PlaceId, strategy: Strategy, spot: Spot) {
        let (now, stretched) = self.points(place);
        let listing = self.listing(self.sites.names(self.class(place)), strategy);
        if let Some(point) = stretched {
            listing.stretched.insert(point, spot.clone());
        }
        if let Some(point) = now {
            listing.firsts.insert(point, spot);
        }
    }

    fn withdraw(&mut self, place: PlaceId, strategy: Strategy) {
        let spot = self.spot(place, strategy);
        let (now, stretched) = self.points(place);
        let listing = self.listing(self.sites.names(self.class(place)), strategy);
        if let Some(point) = stretched {
            listing.stretched.remove(point, spot.clone());
        }
        if let Some(point) = now {
            listing.firsts.remove(point, spot);
        }
    }

    /// The first that has room among those that are good.
    pub(super) fn first(
        &self,
        ask: &Ask,
        free: bool,
        good: &dyn Fn(&Spot) -> bool,
    ) -> Option<Spot> {
        let mut best: Option<&Spot> = None;
        let Basic { cores, memory } = Basic::of(&ask.resources);
        let marks = self.sites.marks_of(ask.site);
        for (names, first) in self.names_with(ask) {
            let Some(own) = self.listings.get(names.place()) else { continue };
            let listing = own.iter().find(|(strategy, _)| *strategy == ask.strategy);
            let Some((_, listing)) = listing else { continue };
            if free {
                let window = Window { from: [cores, memory, first], to: [MOST; 3] };
                listing.firsts.search(&window, marks, good, &mut best);
            } else {
                // They take as much at most, or more, and as much at least, or less.
                let window = Window {
                    from: [cores, memory, 0, 0, first],
                    to: [MOST, MOST, cores, memory, MOST],
                };
                listing.stretched.search(&window, marks, good, &mut best);
            }
        }
        best.cloned()
    }

    /// The first in the order of [`Totals`], from there on, of those good ones that have as much in all, but for
    /// what is counted beside.
    pub(super) fn first_total(
        &self,
        ask: &Ask,
        from: u64,
        good: &dyn Fn(&Spot) -> bool,
    ) -> Option<Spot> {
        let mut best: Option<&Spot> = None;
        let Basic { cores, memory } = Basic::of(&ask.resources);
        let marks = self.sites.marks_of(ask.site);
        for (names, first) in self.names_with(ask) {
            let Some(own) = self.totals.get(names.place()) else { continue };
            let window = Window { from: [cores, memory, first, from], to: [MOST; 4] };
            own.search(&window, marks, good, &mut best);
        }
        best.cloned()
    }

    /// The things to count of those that have all that is asked for, however much of it, each with how much is
    /// asked for of their first.
    fn names_with<'a>(&'a self, ask: &'a Ask) -> impl Iterator<Item = (NamesId, u64)> + 'a {
        let others = &ask.resources.others;
        self.sites
            .all_names()
            .filter(|(_, all)| others.iter().all(|(name, _)| all.binary_search(name).is_ok()))
            .map(|(names, all)| (names, all.first().map_or(0, |name| others.get(name))))
    }
}
