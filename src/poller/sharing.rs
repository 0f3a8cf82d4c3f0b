//! When the engine counts what users have had, and writes it down: see [`super::fairness`].

use super::engine::Engine;

impl Engine<'_> {
    /// To be called after the first scan: what runs has run since it was last written down.
    ///
    /// Whether it could be read; until then nothing is written down in its place.
    pub(super) fn take_up_shares(&mut self) -> bool {
        let taken = self.fairness.take_up(self.root, &self.index);
        self.count_shares(); // whose turn it is goes by it at once
        self.told(taken).is_some()
    }

    pub(super) fn count_shares(&mut self) {
        self.fairness.count(&mut self.index);
    }

    pub(super) fn write_shares(&mut self, at_once: bool) {
        if at_once {
            self.count_shares();
        }
        let written = self.fairness.write(self.root, at_once);
        self.told(written);
    }
}
