//! What is sent with an order, as it comes from the head.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;

use super::heads::Head;
use super::heard::{Heard, Spell};
use crate::error::Result;

/// See the module. It comes to its end only in the spell in which it was ordered.
pub(super) struct Fetched {
    from: Box<dyn Read>,
    left: u64,
    heard: Arc<Heard>,
    spell: Spell,
    broke: Broke,
}

/// Whether it broke off: what is made of it then says nothing of the order.
#[derive(Debug, Clone, Default)]
pub(super) struct Broke(Rc<Cell<bool>>);

impl Broke {
    /// See the type.
    pub(super) fn off(&self) -> bool {
        self.0.get()
    }
}

impl Fetched {
    /// What is sent with this order, how long it is, and whether it broke off.
    pub(super) fn of(
        order: &str,
        head: &Head,
        heard: &Arc<Heard>,
        spell: Spell,
    ) -> Result<(Fetched, u64, Broke)> {
        let (from, left) = head.fetch(order)?;
        let broke = Broke::default();
        let heard = heard.clone();
        Ok((Fetched { from, left, heard, spell, broke: broke.clone() }, left, broke))
    }

    fn broken(&self, error: io::Error) -> io::Error {
        self.broke.0.set(true);
        error
    }
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Ok(0) if self.left > 0 && !buffer.is_empty() => {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
            read => read.map_err(|error| self.broken(error))?,
        };
        self.left = self.left.saturating_sub(read as u64);
        if self.left == 0 && !self.heard.is_yet(self.spell) {
            return Err(self.broken(io::Error::other("the head was not heard of for too long")));
        }
        Ok(read)
    }
}
