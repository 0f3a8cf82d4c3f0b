//! The first half of a round: what has come since the last one. It is taken in before anything is
//! concluded from silence.

use std::collections::BTreeSet;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime};

use super::engine::{AFTER_TROUBLE, Engine};
use super::wake::{News, Wake};
use crate::attempts::Said;
use crate::error::{Kind, Result};

impl Engine<'_> {
    /// What has come, or comes within this time. `failed`: what was due last time could not be done.
    pub(super) fn next_wakes(&mut self, patience: Duration, failed: bool) -> Vec<Wake> {
        let soon = self.index.next_time().map(|time| {
            let left = time.duration_since(SystemTime::now()).unwrap_or_default();
            // It is due still, and would be over and over.
            if failed { left.max(AFTER_TROUBLE) } else { left }
        });
        let patience = soon.map_or(patience, |soon| soon.min(patience));
        // A round for cron writes the records at its end.
        let records = self.nodes.due().filter(|_| !self.once);
        let dues = [self.outbox.due(), self.gathered.due(), records];
        let now = Instant::now();
        let left = dues.into_iter().flatten().map(|due| due.saturating_duration_since(now));
        let patience = left.fold(patience, Duration::min);
        let silent = [self.presence.patience(), self.unheard.patience()];
        let patience = silent.into_iter().flatten().fold(patience, Duration::min);
        let patience = if self.once { patience.min(Duration::from_millis(100)) } else { patience };
        match self.wakes.recv_timeout(patience) {
            Ok(first) => std::iter::once(first).chain(self.wakes.try_iter()).collect(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }

    /// Wake-ups that come until the deadline.
    pub(super) fn wakes_until(&mut self, deadline: Instant) -> Vec<Wake> {
        let patience = deadline.saturating_duration_since(Instant::now());
        self.wakes.recv_timeout(patience).into_iter().collect()
    }

    /// Takes in what came.
    pub(super) fn hear(&mut self, wakes: Vec<Wake>) {
        let mut reports = Vec::new();
        let mut touched = BTreeSet::new();
        let mut records = false;
        let missed = wakes.iter().any(|wake| matches!(wake, Wake::Overflow)); // there may be many
        for wake in wakes {
            let heeded = self.heed(wake, &mut reports, &mut touched, &mut records);
            self.told(heeded);
        }
        if missed {
            self.looks.begin_anew();
            self.scan();
        }
        if records {
            let loaded = self.load_partitions();
            self.told(loaded);
            let loaded = self.load_nodes();
            self.told(loaded);
        }
        let recorded = self.record(reports);
        self.told(recorded);
        if self.outbox.due().is_some_and(|at| at <= Instant::now()) {
            self.acknowledge();
        }
        for job in touched {
            let looked = self.look(job);
            self.told(looked);
        }
    }

    fn heed(
        &mut self,
        wake: Wake,
        reports: &mut Vec<Said>,
        touched: &mut BTreeSet<u64>,
        records: &mut bool,
    ) -> Result<()> {
        match wake {
            Wake::Card(job) => {
                touched.insert(job);
            }
            Wake::Batch | Wake::Overflow => {}
            Wake::Records => *records = true, // there may be many
            Wake::End => self.ending = true,
            Wake::Saved { failed } => self.saved(failed),
            Wake::Swept(result) => self.swept(result),
            // One that is closed may have led to another machine.
            Wake::Node { node, line, news } => {
                if self.lines.is(&node, line) {
                    return self.heed_node(&node, news, reports);
                }
            }
        }
        Ok(())
    }

    fn heed_node(&mut self, node: &str, news: News, reports: &mut Vec<Said>) -> Result<()> {
        self.note_silent_word(node, &news);
        match news {
            News::Up(info) => self.up(node, *info),
            News::Info(info) => self.informed(node, *info),
            News::Down(error) => self.down(node, &error)?,
            News::Feed(events) => {
                // Taken in whatever else goes wrong: the feed does not come back to them.
                let said = self.believed(node, events);
                self.heard(node);
                let said = said?;
                let index = &self.index;
                let known = said
                    .iter()
                    .filter_map(|said| Some((&*said.status, &index.on_node(&said.id)?.resources)));
                self.paces.note(node, known);
                reports.extend(said);
            }
            News::Sent { ids, results } => self.sent(node, ids, results),
            News::Statuses { ids, answers } => {
                reports.extend(self.statuses(node, ids, answers)?);
            }
            News::Forbidden { id, answer } => self.forbidden(node, &id, answer),
            News::Unacknowledged { ids, error } => self.not_acknowledged(node, ids, &error),
            News::Listed(ids) => self.listed(node, ids)?,
            News::Killed { id, status } => reports.extend(self.killed(node, &id, status)?),
        }
        Ok(())
    }

    /// Whatever a node did not answer, it is the node that did not.
    fn note_silent_word(&mut self, node: &str, news: &News) {
        if let News::Killed { status: Err(error), .. } | News::Forbidden { answer: Err(error), .. } =
            news
            && error.kind == Kind::GatewayTimeout
        {
            let noted = self.down(node, error);
            self.told(noted);
        }
    }
}
