//! A connection for one question, each of whose waits ends at the question's deadline: what `ureq` is
//! given for its own transport.
//!
//! ureq's knows the time that a piece of an answer may take, and of a question that is late nothing is
//! read any more; here what has come in time is taken in, though this process was stopped meanwhile.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::tls;

/// An answer that has come in time for the kernel, and not for a process that was stopped, is read
/// with so many waits...
const OVERTIME: u32 = 16;

/// ...of this length.
const MOMENT: Duration = Duration::from_millis(1);

/// Room for what has come and was not read yet: what stands before an answer has to fit in.
const INPUT: usize = 64 << 10;

/// What is sent at a time.
const OUTPUT: usize = 16 << 10;

/// A connection, for one question.
pub(crate) struct Line {
    stream: Stream,
    buffers: LazyBuffers,
    /// What is to be sent, and waits for more: a small request is one packet, not two.
    unsent: Vec<u8>,
}

impl Line {
    /// On a connection that was just made; over TLS if there is a conversation, in which the server
    /// proves first who it is.
    pub(crate) fn open(timed: Timed, conversation: Option<ClientConnection>) -> io::Result<Line> {
        let stream = match conversation {
            None => Stream::Plain(timed),
            Some(conversation) => Stream::Secure(Box::new(tls::open(conversation, timed)?)),
        };
        Ok(Line { stream, buffers: LazyBuffers::new(INPUT, OUTPUT), unsent: Vec::new() })
    }

    /// Until when the question has to be answered that is asked on it, and how long nothing may come
    /// or go meanwhile.
    pub(crate) fn until(&mut self, deadline: Instant, pause: Duration) {
        let timed = self.stream.timed();
        (timed.deadline, timed.pause) = (deadline, pause);
    }
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
pub(crate) fn ureq_error(error: io::Error) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// What went wrong on the way to a server, or there.
pub(crate) fn io_error(error: ureq::Error) -> io::Error {
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
pub(crate) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "timeout")
}

/// A socket each of whose waits ends at the deadline.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: TcpStream,
    deadline: Instant,
    /// Longest of them.
    pause: Duration,
    /// How often something that is there already may be taken in after the deadline.
    overtime: u32,
}

impl Timed {
    /// A connection whose waits end then, and each after this time.
    pub(crate) fn new(stream: TcpStream, deadline: Instant, pause: Duration) -> Timed {
        Timed { stream, deadline, pause, overtime: OVERTIME }
    }

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
