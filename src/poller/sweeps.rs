//! Sweeps of this root's own processor, as far as the engine knows: one at a time.

/// See the module. Whoever asks while one is being made has another one made after it: it may have looked
/// already where there is something now.
#[derive(Debug, Default)]
pub struct Sweeps {
    is_at_work: bool,
    is_asked_again: bool,
}

impl Sweeps {
    /// One is wanted; whether it is to be begun now.
    pub fn ask(&mut self) -> bool {
        self.is_asked_again = self.is_at_work;
        !std::mem::replace(&mut self.is_at_work, true)
    }

    /// The one that was made is over; whether another one is wanted.
    pub fn end(&mut self) -> bool {
        self.is_at_work = false;
        std::mem::take(&mut self.is_asked_again)
    }

    /// Whether one is being made.
    pub fn is_at_work(&self) -> bool {
        self.is_at_work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_made_one_after_the_other_and_none_is_forgotten() {
        let mut sweeps = Sweeps::default();
        assert!(!sweeps.is_at_work());
        assert!(sweeps.ask(), "the first begins at once");
        assert!(!sweeps.ask() && !sweeps.ask() && sweeps.is_at_work());
        assert!(sweeps.end(), "one for all that asked meanwhile");
        assert!(sweeps.ask());
        assert!(!sweeps.end() && !sweeps.is_at_work());
    }
}
