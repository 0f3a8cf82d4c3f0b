//! The way to one server: where it is, and connections there each of whose waits ends at the
//! deadline of the question that is asked.
//!
//! It is what `ureq` is given for its own resolver and connector. Those know the time that a name,
//! a connection or a piece of an answer may take, and of a question that is late nothing is read
//! any more; here what has come in time is taken in, though this process was stopped meanwhile.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::knock::Knock;
use super::names;
use super::server::Patience;
use super::tls::{self, Identity};

/// A connection that was opened ahead is used within this time. Servers keep an idle one for longer.
const FRESH: Duration = Duration::from_secs(1);

/// An answer that has come in time for the kernel, and not for a process that was stopped, is read
/// with so many waits...
const OVERTIME: u32 = 16;

/// ...of this length.
const MOMENT: Duration = Duration::from_millis(1);

/// Room for what has come and was not read yet: what stands before an answer has to fit in.
const INPUT: usize = 64 << 10;

/// What is sent at a time.
const OUTPUT: usize = 16 << 10;

/// Where a server is, how it is reached, and what is known of it.
pub(super) struct Place {
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
    pub(super) fn new(uri: &Uri, connect_timeout: Duration) -> io::Result<Place> {
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
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether connections are made over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// See `Server::trust`.
    pub(super) fn trust(&self, ca: Option<PathBuf>) {
        if let Some(identity) = &mut self.state().identity {
            identity.trust(ca);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question begins, which ends within this time.
    pub(super) fn begin(&self, patience: Patience) {
        let now = Instant::now();
        let mut state = self.state();
        (state.deadline, state.pause) = (now + patience.whole, patience.pause);
        state.open_by = now + patience.pause.min(self.connect_timeout);
    }

    /// See `Server::prepare`.
    pub(super) fn prepare(&self) {
        self.begin(Patience::of(FRESH));
        let opened = self.find().and_then(|addresses| self.open(&addresses));
        self.state().ahead = opened.ok().map(|line| (line, Instant::now()));
    }

    /// See `Server::knock`.
    pub(super) fn knock(&self, request: Vec<u8>, patience: Duration) -> io::Result<Knock> {
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
        let timed = line.stream.timed();
        (timed.deadline, timed.pause) = (deadline, pause);
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
            connected = TcpStream::connect_timeout(address, left(deadline)? / others);
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        let pause = self.connect_timeout;
        let timed = Timed { stream, deadline, pause, overtime: OVERTIME };
        let stream = match conversation {
            None => Stream::Plain(timed),
            Some(conversation) => Stream::Secure(Box::new(tls::open(conversation, timed)?)),
        };
        Ok(Line { stream, buffers: LazyBuffers::new(INPUT, OUTPUT), unsent: Vec::new() })
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// Finds a server, for `ureq`.
#[derive(Debug)]
pub(super) struct Finder(pub(super) Arc<Place>);

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
pub(super) struct Opener(pub(super) Arc<Place>);

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

/// A connection, for one question.
pub(super) struct Line {
    stream: Stream,
    buffers: LazyBuffers,
    /// What is to be sent, and waits for more: a small request is one packet, not two.
    unsent: Vec<u8>,
}

enum Stream {
    Plain(Timed),
    Secure(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Stream {
    fn send(&mut self, bytes: &[u8]) -> Result<(), ureq::Error> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Secure(stream) => stream.write_all(bytes).map_err(tls::told),
        }
        .map_err(ureq_error)
    }

    fn timed(&mut self) -> &mut Timed {
        match self {
            Stream::Plain(timed) => timed,
            Stream::Secure(stream) => stream.get_mut(),
        }
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        self.unsent.extend_from_slice(output);
        if self.unsent.len() > OUTPUT {
            self.stream.send(&self.unsent)?;
            self.unsent.clear();
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.send(&self.unsent)?;
        self.unsent.clear();
        let room = self.buffers.input_append_buf();
        if room.is_empty() {
            return Err(ureq_error(nonsense("what stands before the answer is too large")));
        }
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(room),
            // Also an end that is not the server's own, but that of whoever cut the connection.
            Stream::Secure(stream) => stream.read(room).map_err(tls::told),
        };
        let read = read.map_err(ureq_error)?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    /// Each connection is for one question.
    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Secure(_))
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// An error of ours on its way through `ureq`, which must not take it for the end of an answer.
fn ureq_error(error: io::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// What went wrong on the way to a server, or there.
pub(super) fn io_error(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Other(ours) => match ours.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let what = "the connection ended before the answer did";
            io::Error::new(ErrorKind::UnexpectedEof, what)
        }
        ureq::Error::Io(error) => error,
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
            nonsense("the answer is too large")
        }
        ureq::Error::Protocol(why) => nonsense(&format!("it does not speak HTTP: {why}")),
        other => nonsense(&other.to_string()),
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The time that is left, which is not zero.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "timeout")
}

/// A socket each of whose waits ends at the deadline.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    deadline: Instant,
    /// Longest of them.
    pause: Duration,
    /// How often something that is there already may be taken in after the deadline.
    overtime: u32,
}

impl Timed {
    /// The time that is left. After the deadline a moment: a process that was stopped past it takes
    /// in what came meanwhile.
    fn left(&mut self) -> io::Result<Duration> {
        left(self.deadline).or_else(|late| {
            self.overtime = self.overtime.checked_sub(1).ok_or(late)?;
            Ok(MOMENT)
        })
    }

    /// Does what waits no longer than a time that is set, until the deadline.
    fn timed<T>(
        &mut self,
        set: impl Fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut transfer: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let left = self.left()?.min(self.pause);
            set(&self.stream, Some(left))?;
            match transfer(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(late()),
                done => return done,
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.timed(TcpStream::set_read_timeout, |stream| stream.read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.timed(TcpStream::set_write_timeout, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
