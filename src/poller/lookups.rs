//! Looking up where nodes are that are registered by a name, for those who ask silent ones. A name
//! service that does not answer holds up nobody but the nodes whose names it does not tell: these have
//! threads of their own, which are there while there is something to look up.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Line;
use crate::client::knock::Knock;
use crate::descriptors;
use crate::driver;
use crate::error::{Error, Kind, Result};
use crate::model::node::Node;

/// A name that took longer than this is looked up beside others of that kind the next time, so that
/// one that is told at once does not wait behind them.
const SLOW: Duration = Duration::from_secs(1);

/// Most threads for names that are usually told at once, and for those that are not. Each has a
/// process at work, too.
const THREADS: [usize; 2] = [32, 8];

/// Descriptors that are there for each thread, at least.
const DESCRIPTORS: usize = 32;

/// Stack of one: a conversation over TLS may begin there.
const STACK: usize = 256 << 10;

/// See the module.
#[derive(Default)]
pub struct Lookups {
    quick: Lane,
    slow: Lane,
}

/// Names that are looked up at the same pace.
#[derive(Default)]
struct Lane {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Arc<Line>, Tell)>,
    at_work: usize,
}

/// Who is told what [`driver::knock`] said.
type Tell = Box<dyn FnOnce(Result<Option<Knock>>) + Send>;

/// Whether a name has to be looked up to reach this node.
pub fn has_name(node: &Node) -> bool {
    let Some((_, rest)) = node.uri.as_deref().and_then(|uri| uri.split_once("://")) else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    !name.eq_ignore_ascii_case("localhost") && name.parse::<IpAddr>().is_err()
}

impl Lookups {
    /// Begins to ask whether the node of this line is there, for which its name is looked up. `tell` is
    /// called by another thread.
    ///
    /// Errors: there is no thread for it to be had; nobody is told then.
    pub fn begin(
        self: &Arc<Lookups>,
        line: Arc<Line>,
        tell: impl FnOnce(Result<Option<Knock>>) + Send + 'static,
    ) -> Result<()> {
        let number = usize::from(line.is_slowly_found());
        let mut state = self.lane(number).state();
        state.waiting.push_back((line, Box::new(tell)));
        let most = (descriptors::most() / DESCRIPTORS).clamp(1, THREADS[number]);
        if state.at_work >= most {
            return Ok(());
        }
        let own = self.clone();
        let thread = thread::Builder::new().name("lookup".into()).stack_size(STACK);
        match thread.spawn(move || own.lane(number).work()) {
            Ok(_) => state.at_work += 1,
            Err(_) if state.at_work > 0 => {}
            Err(error) => {
                state.waiting.clear(); // of the one that was just put there
                let why = format!("no thread to look up the names of nodes: {error}");
                return Err(Error::new(Kind::Shortage, why));
            }
        }
        Ok(())
    }

    fn lane(&self, number: usize) -> &Lane {
        if number == 0 { &self.quick } else { &self.slow }
    }
}

impl Lane {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.state();
            let Some((line, tell)) = state.waiting.pop_front() else {
                state.at_work -= 1;
                return;
            };
            drop(state);
            let begun = Instant::now();
            let knock = match line.is_closed() {
                true => Err(Error::new(Kind::Shortage, "nobody wants to know any more")),
                false => driver::knock(line.root(), line.node()),
            };
            line.note_found(begun.elapsed() > SLOW);
            tell(knock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name() {
        let at = |uri: &str| Node { uri: Some(uri.into()), ..Node::localhost() };
        for name in ["http://node-01:8080", "https://a.example/cgi-bin", "http://1.2.3"] {
            assert!(has_name(&at(name)), "{name}");
        }
        for address in ["http://10.0.0.1:80", "http://[::1]:8080/x", "http://LOCALHOST"] {
            assert!(!has_name(&at(address)), "{address}");
        }
        assert!(!has_name(&Node::localhost()));
    }
}
