//! Threads that work beside the engine for as long as it does.

use crate::error::{Error, Result};

/// What such threads are to do that could not be started yet: where no thread is to be had it is tried
/// again. Each is started once.
#[derive(Default)]
pub struct Beside<'r> {
    to_start: Vec<Box<dyn FnMut() -> Result<()> + 'r>>,
}

impl<'r> Beside<'r> {
    /// One more, which `start` starts.
    pub fn add(&mut self, start: impl FnMut() -> Result<()> + 'r) {
        self.to_start.push(Box::new(start));
    }

    /// Starts those that are not at work; why others could not be.
    pub fn start(&mut self) -> Vec<Error> {
        let mut failed = Vec::new();
        self.to_start.retain_mut(|start| match start() {
            Ok(()) => false,
            Err(error) => {
                failed.push(error);
                true
            }
        });
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_started_once() {
        let (mut tries, mut starts) = (0, 0);
        let mut beside = Beside::default();
        beside.add(|| {
            tries += 1;
            if tries < 3 { Err(Error::bad("no thread")) } else { Ok(()) }
        });
        beside.add(|| {
            starts += 1;
            Ok(())
        });
        let failed: Vec<usize> = (0..5).map(|_| beside.start().len()).collect();
        assert_eq!(failed, [1, 1, 0, 0, 0]);
        drop(beside);
        assert_eq!((tries, starts), (3, 1));
    }
}
