//! Sweeps of this root's own processor. To end what a dead supervisor left can take seconds, and to start
//! one is starting a process: a thread beside the engine does it, so that no other node waits for it.

use std::sync::mpsc::Sender;
use std::thread;

use super::engine::Engine;
use super::wake::Wake;
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::node::DriverKind;
use crate::processor::sweep::{self, Swept};

const STACK: usize = 256 << 10;

impl Engine<'_> {
    /// Has the processor of this root swept: soon, by a thread. Where none is to be had a round from cron
    /// sweeps by itself, as nobody else would; any other poller tries again with its next scan.
    pub(super) fn sweep(&mut self) {
        if !self.sweeps.ask() {
            return;
        }
        let Err(error) = start(self.root, &self.waker) else { return };
        self.sweeps.end();
        if self.once {
            let swept = sweep::sweep(self.root);
            self.told(swept);
        } else {
            self.complain(error);
        }
    }

    /// The processor is swept, or could not be.
    pub(super) fn swept(&mut self, result: Result<Swept>) {
        let is_asked_again = self.sweeps.end();
        let swept = self.told(result).unwrap_or_default();
        // A round from cron reads no feed, and its node may have been asked before.
        if self.once && (swept.lost > 0 || swept.requeued > 0) {
            let local = |node: &&String| {
                self.nodes.get(node).is_some_and(|node| node.driver == DriverKind::Local)
            };
            let nodes: Vec<String> = self.lines.nodes().filter(local).cloned().collect();
            nodes.iter().for_each(|node| self.resync(node));
        }
        if is_asked_again {
            self.sweep();
        }
    }
}

/// Starts a thread that sweeps, tells what came of it, and ends.
fn start(root: &Root, wakes: &Sender<Wake>) -> Result<()> {
    let (root, wakes) = (root.clone(), wakes.clone());
    let work = move || {
        // With the settings as they are now; wrong ones are told where the node is asked what it gives.
        let now = Root::open(root.dir());
        let swept = sweep::sweep(now.as_ref().unwrap_or(&root));
        let _ = wakes.send(Wake::Swept(swept)); // an engine that is gone has ended
    };
    let thread = thread::Builder::new().name("sweep".into()).stack_size(STACK);
    let shortage = |error| Error::new(Kind::Shortage, format!("no thread for sweeps: {error}"));
    thread.spawn(work).map(|_| ()).map_err(shortage)
}
