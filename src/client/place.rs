//! The way to one server: where it is, where its name leads, and connections there that end at the
//! deadline of the question that is asked.
//!
//! It is what `ureq` is given for its own resolver and connector.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};

use super::knock::Knock;
use super::line::{Line, Timed, left, ureq_error};
use super::names;
use super::papers::Papers;
use super::patience::Patience;
use super::tls::Identity;

/// A connection that was opened ahead is used within this time. Servers keep an idle one for longer.
const FRESH: Duration = Duration::from_secs(1);

/// Where a server is, how it is reached, and what is known of it.
pub(crate) struct Place {
    /// `host[:port]`.
    host: String,
    port: u16,
    is_secure: bool,
    connect_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// Until when the present question has to be answered.
    deadline: Instant,
    /// Longest that nothing comes or goes meanwhile.
    pause: Duration,
    /// Until when its connection has to be open.
    open_by: Instant,
    /// Where the server was found when it last answered.
    addresses: Vec<SocketAddr>,
    /// A connection that was opened ahead, and when.
    ahead: Option<(Line, Instant)>,
    /// Who it has to prove to be.
    identity: Option<Identity>,
}

impl Place {
    /// The place of a URI's server.
    pub(crate) fn new(uri: &Uri, connect_timeout: Duration) -> io::Result<Place> {
        let wrong = || io::Error::new(ErrorKind::InvalidInput, "not the uri of a server");
        let is_secure = uri.scheme_str() == Some("https");
        let identity = match uri.host() {
            Some(host) if is_secure => Some(Identity::new(host)?),
            Some(_) => None,
            None => return Err(wrong()),
        };
        let now = Instant::now();
        let state = State {
            deadline: now,
            pause: Duration::ZERO,
            open_by: now,
            addresses: Vec::new(),
            ahead: None,
            identity,
        };
        Ok(Place {
            host: uri.authority().ok_or_else(wrong)?.to_string(),
            port: if is_secure { 443 } else { 80 },
            is_secure,
            connect_timeout,
            state: Mutex::new(state),
        })
    }

    /// As in the header `Host`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether connections are made over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// See `Server::trust`.
    pub(crate) fn trust(&self, papers: Papers) {
        if let Some(identity) = &mut self.state().identity {
            identity.trust(papers);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question begins, which ends within this time.
    pub(crate) fn begin(&self, patience: Patience) {
        let now = Instant::now();
        let mut state = self.state();
        (state.deadline, state.pause) = (now + patience.whole, patience.pause);
        state.open_by = now + patience.pause.min(self.connect_timeout);
    }

    /// See `Server::prepare`.
    pub(crate) fn prepare(&self) {
        self.begin(Patience::of(FRESH));
        let opened = self.find().and_then(|addresses| self.open(&addresses));
        self.state().ahead = opened.ok().map(|line| (line, Instant::now()));
    }

    /// See `Server::knock`.
    pub(crate) fn knock(&self, request: Vec<u8>, patience: Duration) -> io::Result<Knock> {
        self.begin(Patience::of(self.connect_timeout));
        let addresses = self.look_up()?;
        let identity = self.state().identity.clone();
        Knock::begin(addresses, request, identity, self.connect_timeout, patience)
    }

    /// Where the server was found when it last answered; else where its name says.
    fn find(&self) -> io::Result<Vec<SocketAddr>> {
        // Looked up again, should this fail.
        let known = std::mem::take(&mut self.state().addresses);
        if known.is_empty() { self.look_up() } else { Ok(known) }
    }

    fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let open_by = self.state().open_by;
        names::addresses(&self.host, self.port, open_by)
    }

    /// A connection to one of these addresses.
    fn open(&self, addresses: &[SocketAddr]) -> io::Result<Line> {
        let (ahead, deadline, pause) = {
            let mut state = self.state();
            let ahead = state.ahead.take().filter(|(_, opened)| opened.elapsed() < FRESH);
            (ahead, state.deadline, state.pause)
        };
        let mut line = match ahead {
            Some((line, _)) => line,
            None => self.connect(addresses)?,
        };
        line.until(deadline, pause);
        self.state().addresses = addresses.to_vec();
        Ok(line)
    }

    fn connect(&self, addresses: &[SocketAddr]) -> io::Result<Line> {
        let (deadline, identity) = {
            let state = self.state();
            (state.open_by, state.identity.clone())
        };
        let conversation = identity.map(|identity| identity.conversation()).transpose()?;
        let mut connected = Err(io::Error::from(ErrorKind::AddrNotAvailable));
        for (address, others) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
            // One that swallows everything leaves time for the others.
            let tried = TcpStream::connect_timeout(address, left(deadline)? / others);
            if tried.is_ok() || *address == addresses[0] {
                connected = tried; // else the first error is the one to report
            }
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        Line::open(Timed::new(stream, deadline, self.connect_timeout), conversation)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// Finds a server, for `ureq`.
#[derive(Debug)]
pub(crate) struct Finder(pub(crate) Arc<Place>);

impl Resolver for Finder {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.find().map_err(ureq_error)?;
        let mut addresses = self.empty();
        for address in found {
            if addresses.try_push(address).is_err() {
                break; // more than enough to try
            }
        }
        Ok(addresses)
    }
}

/// Opens connections to a server, for `ureq`.
#[derive(Debug)]
pub(crate) struct Opener(pub(crate) Arc<Place>);

impl Connector for Opener {
    type Out = Line;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Line>, ureq::Error> {
        self.0.open(&details.addrs).map(Some).map_err(ureq_error)
    }
}
