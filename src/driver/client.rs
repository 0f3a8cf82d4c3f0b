//! One HTTP request over a connection of its own. Plain HTTP: TLS is lighttpd's work.
//!
//! It is asked as HTTP/1.0, so that an answer comes in one piece and ends with its connection.
//! Never by a proxy: `HTTP_PROXY` in a CGI environment is set by the client ("httpoxy").

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::knock::Knock;
use super::names;

/// Largest answer that is read.
const LARGEST_ANSWER: usize = 64 << 20;

/// Most headers of an answer, and most bytes of them.
const HEADERS: usize = 64;
const LARGEST_HEAD: usize = 64 << 10;

/// A connection that was opened ahead is used within this time. Servers keep an idle one for longer.
const FRESH: Duration = Duration::from_secs(1);

/// An answer that has come in time for the kernel, and not for a process that was stopped, is read
/// with so many waits...
const OVERTIME: u32 = 16;

/// ...of this length.
const MOMENT: Duration = Duration::from_millis(1);

/// A server, and where it was found when it last answered.
pub(super) struct Server {
    /// As in the header `Host`.
    host: String,
    connect_timeout: Duration,
    addresses: RefCell<Vec<SocketAddr>>,
    /// A connection that was opened ahead, and when.
    ahead: RefCell<Option<(TcpStream, Instant)>>,
}

/// What is sent with a request.
pub(super) enum Body<'q> {
    /// Nothing: the request has no body.
    None,
    /// These bytes.
    Bytes(&'q [u8]),
    /// What is read here while it is sent: exactly so many bytes. If there are fewer, or they cannot
    /// be read, the request breaks off, which no server takes for a whole one: see [`Unread`].
    Reader(&'q mut (dyn Read + 'static), u64),
}

impl Body<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Body::None => None,
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Reader(_, length) => Some(*length),
        }
    }
}

/// What was to be sent could not be read: no fault of the server, which was asked nothing whole.
#[derive(Debug)]
pub(super) struct Unread(pub io::Error);

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what is sent cannot be read: {}", self.0)
    }
}

impl std::error::Error for Unread {}

/// A request.
pub(super) struct Question<'q, 'b> {
    pub method: &'q str,
    /// Path and query, as they are sent.
    pub path: &'q str,
    /// Values of `Authorization` and `Content-Type`, where they are sent.
    pub authorization: Option<&'q str>,
    pub content_type: Option<&'q str>,
    pub body: Body<'b>,
}

/// What a server answered.
pub(super) struct Reply {
    pub status: u16,
    /// The header `X-Corkboard-Offset`, if it is a number.
    pub offset: Option<u64>,
    pub body: Vec<u8>,
}

impl Server {
    /// The server of a URI's `host[:port]`. Asks nobody.
    pub(super) fn new(host: &str, connect_timeout: Duration) -> Server {
        Server {
            host: host.to_string(),
            connect_timeout,
            addresses: RefCell::default(),
            ahead: RefCell::default(),
        }
    }

    /// Opens the connection of a question that is about to be asked: the server's process for it is
    /// there then. Whatever goes wrong is told when that question is asked.
    pub(super) fn prepare(&self) {
        let fresh = self.connect(Instant::now() + FRESH).ok();
        self.ahead.replace(fresh.map(|stream| (stream, Instant::now())));
    }

    /// Sends a request, and reads the answer. Ends at the deadline at the latest.
    ///
    /// Errors: no connection, none that lasted until the whole answer was there, or an answer that
    /// is not HTTP or too large. What the server did is unknown then. Or [`Unread`].
    pub(super) fn ask(&self, question: Question, deadline: Instant) -> io::Result<Reply> {
        let head = self.head(&question)?;
        let ahead = self.ahead.take().filter(|(_, opened)| opened.elapsed() < FRESH);
        let stream = ahead.map_or_else(|| self.connect(deadline), |(stream, _)| Ok(stream))?;
        let mut line = Line { stream, deadline, overtime: OVERTIME };
        match question.body {
            Body::None => line.write_all(&head)?,
            Body::Bytes(bytes) => line.write_all(&[&head, bytes].concat())?,
            Body::Reader(reader, length) => {
                line.write_all(&head)?;
                line.copy(reader, length)?;
            }
        }
        line.reply()
    }

    /// Begins to ask a question without a body, of which only the beginning of the answer counts. The
    /// name of the server may have to be looked up for it, within the time for a connection.
    pub(super) fn knock(&self, question: &Question, patience: Duration) -> io::Result<Knock> {
        let addresses = names::addresses(&self.host, 80, Instant::now() + self.connect_timeout)?;
        Knock::begin(addresses, self.head(question)?, self.connect_timeout, patience)
    }

    fn head(&self, question: &Question) -> io::Result<Vec<u8>> {
        let mut head = format!("{} {} HTTP/1.0\r\n", question.method, plain(question.path, false)?);
        let length = question.body.length().map(|length| length.to_string());
        for (name, value) in [
            ("Host", Some(self.host.as_str())),
            ("Connection", Some("close")),
            ("Authorization", question.authorization),
            ("Content-Type", question.content_type),
            ("Content-Length", length.as_deref()),
        ] {
            if let Some(value) = value {
                head.push_str(&format!("{name}: {}\r\n", plain(value, true)?));
            }
        }
        head.push_str("\r\n");
        Ok(head.into_bytes())
    }

    fn connect(&self, deadline: Instant) -> io::Result<TcpStream> {
        let deadline = deadline.min(Instant::now() + self.connect_timeout);
        let mut addresses = self.addresses.take(); // looked up again, should this fail
        if addresses.is_empty() {
            addresses = names::addresses(&self.host, 80, deadline)?;
        }
        let mut connected = Err(io::Error::from(ErrorKind::AddrNotAvailable));
        for address in &addresses {
            connected = TcpStream::connect_timeout(address, left(deadline)?);
            if connected.is_ok() {
                break;
            }
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        self.addresses.replace(addresses);
        Ok(stream)
    }
}

/// A text that cannot end its line, nor, without spaces, its word.
fn plain(text: &str, spaces: bool) -> io::Result<&str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() || spaces && byte == b' ');
    // Not the text itself: it may be a token.
    let wrong = || io::Error::new(ErrorKind::InvalidInput, "characters that cannot be sent");
    is_plain.then_some(text).ok_or_else(wrong)
}

/// The time that is left, which is not zero.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "timeout")
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A connection each of whose waits ends at the deadline.
struct Line {
    stream: TcpStream,
    deadline: Instant,
    /// How often something that is there already may be taken in after the deadline.
    overtime: u32,
}

impl Line {
    /// The time that is left. After the deadline a moment: a process that was stopped past it takes
    /// in what came meanwhile.
    fn left(&mut self) -> io::Result<Duration> {
        left(self.deadline).or_else(|late| {
            self.overtime = self.overtime.checked_sub(1).ok_or(late)?;
            Ok(MOMENT)
        })
    }

    /// Sends so many bytes from a reader.
    fn copy(&mut self, reader: &mut dyn Read, length: u64) -> io::Result<()> {
        let unread = |error| io::Error::other(Unread(error));
        let mut buffer = vec![0; 64 << 10];
        let mut left = length;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match reader.read(&mut buffer[..most]) {
                Ok(0) => return Err(unread(ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.write_all(&buffer[..read])?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(error)),
            }
        }
        Ok(())
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        let mut head = None;
        let mut buffer = [0; 16 << 10];
        loop {
            let whole = head.as_ref().is_some_and(|head: &Head| head.is_whole(bytes.len()));
            let read = if whole { 0 } else { self.read(&mut buffer)? };
            if read == 0 {
                let head =
                    head.ok_or_else(|| nonsense("the connection ended without an answer"))?;
                if head.length.is_some() && !head.is_whole(bytes.len()) {
                    return Err(nonsense("the connection ended within the answer"));
                }
                bytes.truncate(head.length.map_or(bytes.len(), |length| head.end + length));
                bytes.drain(..head.end);
                return Ok(Reply { status: head.status, offset: head.offset, body: bytes });
            }
            bytes.extend_from_slice(&buffer[..read]);
            if head.is_none() {
                head = Head::read(&bytes)?;
            }
            let most = head.as_ref().map_or(LARGEST_HEAD, |_| LARGEST_ANSWER);
            if bytes.len() > most {
                return Err(nonsense("the answer is too large"));
            }
        }
    }

    /// Waits for what `transfer` does, until the deadline.
    fn timed<T>(
        &mut self,
        transfer: impl FnOnce(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        let left = Some(self.left()?);
        self.stream.set_read_timeout(left)?;
        self.stream.set_write_timeout(left)?;
        transfer(&mut self.stream).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => late(),
            _ => error,
        })
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.timed(|stream| stream.read(buffer)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.timed(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What stands before an answer's body.
struct Head {
    status: u16,
    offset: Option<u64>,
    /// Where the body begins.
    end: usize,
    /// How long it is, where that is said.
    length: Option<usize>,
}

impl Head {
    /// `None` if more has to come.
    fn read(bytes: &[u8]) -> io::Result<Option<Head>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) =
            response.parse(bytes).map_err(|error| nonsense(&error.to_string()))?
        else {
            return Ok(None);
        };
        let header = |name: &str| {
            let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            str::from_utf8(found.value).ok().map(str::trim)
        };
        if header("transfer-encoding").is_some() {
            return Err(nonsense("an answer in pieces, to a request that does not allow it"));
        }
        let length = match header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) if length <= LARGEST_ANSWER => Some(length),
            Some(_) => return Err(nonsense("the answer's length is not one")),
            None => None,
        };
        let offset = header("x-corkboard-offset").and_then(|text| text.parse().ok());
        let status = response.code.unwrap_or_default();
        Ok(Some(Head { status, offset, end, length }))
    }

    fn is_whole(&self, bytes: usize) -> bool {
        self.length.is_some_and(|length| bytes >= self.end + length)
    }
}
