//! What is to be told to the head. It goes in parcels, one at a time, and one that was not taken goes again
//! before everything else: the head hears in order, of everything at least once.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model::run_status::RunStatus;
use crate::wire::worker::{Answer, News};

/// Most answers in a parcel: each has [`crate::wire::worker::SMALL`] bytes at most.
const MOST_ANSWERS: usize = 64;

/// Of a parcel with more events than so many the next one waits...
const BUSY: usize = 4;

/// ...so that it has more to tell.
const GATHER: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What waits.
    news: News,
    /// A parcel is on its way.
    is_sent: bool,
    /// When the next one may go.
    not_before: Option<Instant>,
    /// Orders that were got and are not answered, as far as the head knows.
    in_hand: BTreeSet<String>,
    /// Whether a claim is held: what is told then goes by itself.
    is_held: bool,
    /// It is to end.
    over: bool,
}

/// What goes at once. It has to be given back: [`Outbox::taken`], or [`Outbox::returned`].
#[must_use]
pub(super) struct Parcel(pub News);

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits looks again.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    /// Waits until there is an answer, or for so long.
    fn wait_for<T>(
        &self,
        at_most: Duration,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + at_most;
        let mut state = self.state();
        loop {
            let found = look(&mut state);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing that was told leads to what is told from now on.
    pub(super) fn begin_anew(&self) {
        self.change(|state| state.news.anew = true);
    }

    /// Tells what happened, and waits until it is on its way: what happens meanwhile stays where it is.
    pub(super) fn tell_events(&self, events: Vec<RunStatus>) {
        self.change(|state| state.news.events.extend(events));
        let is_gone = |state: &mut State| state.news.events.is_empty().then_some(());
        while self.wait_for(Duration::from_secs(60), is_gone).is_none() {}
    }

    /// Tells what this machine has.
    pub(super) fn tell_info(&self, info: Value) {
        self.change(|state| state.news.info = Some(info));
    }

    /// Gives an answer.
    pub(super) fn tell_answer(&self, answer: Answer) {
        self.change(|state| state.news.answers.push(answer));
    }

    /// This order is in hand; `false` if it was, or nothing more is begun.
    pub(super) fn take_on(&self, order: &str) -> bool {
        self.change(|state| !state.over && state.in_hand.insert(order.to_string()))
    }

    /// This order is not any more: it is answered, or will be handed out again.
    pub(super) fn let_go(&self, order: &str) {
        self.change(|state| state.in_hand.remove(order));
    }

    /// Orders in hand.
    pub(super) fn in_hand(&self) -> Vec<String> {
        self.state().in_hand.iter().cloned().collect()
    }

    /// Waits until every order in hand has an answer that is to be told, or for so long.
    pub(super) fn wait_for_answers(&self, at_most: Duration) {
        self.wait_for(at_most, |state| {
            let answered = state.news.answers.len();
            (answered >= state.in_hand.len()).then_some(())
        });
    }

    /// What goes with a claim: all that there is, perhaps nothing. `None`: what is on its way does not
    /// arrive.
    pub(super) fn for_claim(&self, at_most: Duration) -> Option<Parcel> {
        self.wait_for(at_most, |state| (!state.is_sent).then(|| state.parcel()))
    }

    /// What goes by itself, as soon as there is something and a claim is held. `None`: it is to end.
    pub(super) fn for_report(&self) -> Option<Parcel> {
        loop {
            let wait = self.state().not_before.map_or(Duration::from_secs(60), |time| {
                time.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
            });
            let found = self.wait_for(wait, |state| {
                if state.over {
                    return Some(None);
                }
                let is_due = state.not_before.is_none_or(|time| time <= Instant::now());
                let goes = state.is_held && !state.is_sent && is_due && is_news(&state.news);
                goes.then(|| Some(state.parcel()))
            });
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// The head has taken this.
    pub(super) fn taken(&self, Parcel(news): Parcel) {
        if !is_news(&news) {
            return; // another one may be on its way
        }
        self.change(|state| {
            state.is_sent = false;
            state.not_before = (news.events.len() > BUSY).then(|| Instant::now() + GATHER);
            for answer in &news.answers {
                state.in_hand.remove(&answer.order);
            }
        });
    }

    /// The head has perhaps not taken this.
    pub(super) fn returned(&self, Parcel(mut news): Parcel) {
        if !is_news(&news) {
            return;
        }
        self.change(|state| {
            state.is_sent = false;
            let later = std::mem::take(&mut state.news);
            news.anew |= later.anew;
            news.events.extend(later.events);
            news.answers.extend(later.answers);
            news.info = later.info.or(news.info);
            state.news = news;
        });
    }

    /// A claim is held, or is not.
    pub(super) fn note_held(&self, is_held: bool) {
        self.change(|state| state.is_held = is_held);
    }

    /// It is to end: nothing is begun, or reported by itself, any more.
    pub(super) fn end(&self) {
        self.change(|state| state.over = true);
    }
}

impl Parcel {
    /// Whether there is anything in it.
    pub(super) fn is_news(&self) -> bool {
        is_news(&self.0)
    }
}

fn is_news(News { anew, events, answers, info, .. }: &News) -> bool {
    *anew || !events.is_empty() || !answers.is_empty() || info.is_some()
}

impl State {
    fn parcel(&mut self) -> Parcel {
        let mut news = std::mem::take(&mut self.news);
        if news.answers.len() > MOST_ANSWERS {
            self.news.answers = news.answers.split_off(MOST_ANSWERS);
        }
        self.is_sent = is_news(&news); // nothing is on its way that has to come before anything
        Parcel(news)
    }
}
