//! Sweeps of this root's own processor. To end what a dead supervisor left can take seconds: a thread
//! beside the engine does it, so that no other node waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::wake::Wake;
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::processor;

const STACK: usize = 256 << 10;

/// The engine's end of that thread.
#[derive(Default)]
pub struct Sweeper {
    /// Where it is asked; `None` while there is no such thread.
    ask: Arc<Mutex<Option<Sender<()>>>>,
    /// Whether it was asked and has not begun.
    asked: Arc<AtomicBool>,
}

impl Sweeper {
    /// What starts the thread.
    pub fn start<'r>(
        &self,
        root: &'r Root,
        wakes: &Sender<Wake>,
    ) -> impl FnMut() -> Result<()> + use<'r> {
        let (wakes, ask, asked) = (wakes.clone(), self.ask.clone(), self.asked.clone());
        move || {
            let (sender, requests) = channel();
            let (root, wakes, asked) = (root.clone(), wakes.clone(), asked.clone());
            let thread = thread::Builder::new().name("sweep".into()).stack_size(STACK);
            let work = move || work(&root, &requests, &asked, &wakes);
            thread.spawn(work).map_err(|error| {
                Error::new(Kind::Shortage, format!("no thread for sweeps: {error}"))
            })?;
            *ask.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
            Ok(())
        }
    }

    /// Sweeps: now, where no thread does it, else soon.
    pub fn sweep(&self, root: &Root) -> Result<()> {
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ask) = &*ask else {
            return processor::sweep::sweep(root).map(|_| ());
        };
        if !self.asked.swap(true, Ordering::AcqRel) {
            let _ = ask.send(()); // it lives as long as this does
        }
        Ok(())
    }
}

fn work(root: &Root, requests: &Receiver<()>, asked: &AtomicBool, wakes: &Sender<Wake>) {
    while requests.recv().is_ok() {
        asked.store(false, Ordering::Release);
        // With the settings as they are now; wrong ones are told where the node is asked what it gives.
        let now = Root::open(root.dir());
        if let Err(error) = processor::sweep::sweep(now.as_ref().unwrap_or(root))
            && wakes.send(Wake::Swept(error)).is_err()
        {
            return;
        }
    }
}
