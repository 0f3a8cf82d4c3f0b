//! What users have had of the nodes: cores × seconds, of which half is forgotten in each half-life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Core seconds by user, and when that was so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// When, by the clock: for people, and for another boot.
    pub at: String,
    /// In which boot...
    pub boot: String,
    /// ...and when, by the seconds of its clock, which nobody sets.
    pub clock: u64,
    /// Half of what was had is forgotten in so many seconds. Nothing is forgotten where it is 0.
    pub half_life: u64,
    /// Core seconds.
    pub had: BTreeMap<String, f64>,
}

/// As much is not worth being remembered.
const LEAST: f64 = 0.01;

impl Shares {
    /// Time passed, in which users had so many cores.
    pub fn pass<'a>(&mut self, seconds: f64, cores: impl Iterator<Item = (&'a str, u128)>) {
        if seconds <= 0.0 {
            return;
        }
        let half_life = self.half_life as f64;
        let kept = if self.half_life == 0 { 1.0 } else { (-seconds / half_life).exp2() };
        // What was had meanwhile is forgotten by and by, too: the integral of the same.
        let counted = match self.half_life {
            0 => seconds,
            _ => (1.0 - kept) * half_life / std::f64::consts::LN_2,
        };
        self.had.values_mut().for_each(|had| *had *= kept);
        for (user, cores) in cores.filter(|(_, cores)| *cores > 0) {
            *self.had.entry(user.to_string()).or_insert(0.0) += cores as f64 * counted;
        }
    }

    /// Forgets what is not worth being remembered.
    pub fn forget_little(&mut self) {
        self.had.retain(|_, had| *had >= LEAST);
    }

    /// What a user has had, in whole core seconds.
    pub fn of(&self, user: &str) -> u64 {
        self.had.get(user).map_or(0, |had| *had as u64) // no less than 0, and cut off at the most
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_is_forgotten_in_each_half_life_however_often_one_looks() {
        let mut once = Shares { half_life: 100, ..Shares::default() };
        once.had.insert("ada".into(), 1000.0);
        let mut often = once.clone();
        once.pass(300.0, [("ben", 2)].into_iter());
        (0..3000).for_each(|_| often.pass(0.1, [("ben", 2)].into_iter()));
        assert_eq!(once.of("ada"), 125);
        for user in ["ada", "ben"] {
            assert!((once.had[user] - often.had[user]).abs() < 0.01, "{once:?} {often:?}");
        }
        // Whoever always has two cores tends to what they had in a half-life and a half.
        assert!((once.had["ben"] - 2.0 * 100.0 / std::f64::consts::LN_2 * 0.875).abs() < 0.01);
        once.pass(1e9, [].into_iter());
        once.forget_little();
        assert!(once.had.is_empty());
    }

    #[test]
    fn nothing_is_forgotten_without_a_half_life_and_no_time_passes_backwards() {
        let mut shares = Shares::default();
        shares.pass(10.0, [("ada", 3)].into_iter());
        shares.pass(-5.0, [("ada", 3)].into_iter());
        assert_eq!((shares.of("ada"), shares.of("ben")), (30, 0));
    }
}
