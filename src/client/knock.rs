//! Whether a server is there, found out without waiting for it: a connection that is opened, a
//! question, the first byte of an answer. Many of them can be under way in one thread, which no
//! library for single requests does.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use rustls::ClientConnection;
use socket2::{Domain, Protocol, Socket, Type};

use super::tls::{self, Identity};

/// A question that is under way. Dropped, it is not asked any more.
#[derive(Debug)]
pub struct Knock {
    stream: TcpStream,
    request: Vec<u8>,
    /// Who the server has to prove to be, if it has to.
    identity: Option<Identity>,
    /// The conversation on this connection.
    talk: Talk,
    is_open: bool,
    /// Addresses that are tried if this one fails, the next one last.
    others: Vec<SocketAddr>,
    connect_timeout: Duration,
    /// Until when the connection has to be open.
    open_by: Instant,
    /// Until when the answer has to begin.
    by: Instant,
}

#[derive(Debug)]
enum Talk {
    /// So many bytes of the request are sent.
    Plain(usize),
    /// Over TLS, which has taken in the request and sends it when it may.
    Secure(Box<ClientConnection>),
}

impl Talk {
    fn begin(request: &[u8], identity: Option<&Identity>) -> io::Result<Talk> {
        let Some(identity) = identity else { return Ok(Talk::Plain(0)) };
        let mut talk = identity.conversation()?;
        talk.writer().write_all(request)?;
        Ok(Talk::Secure(Box::new(talk)))
    }
}

impl Knock {
    /// Begins to open a connection to the first of these addresses.
    ///
    /// Errors: this process lacks what it takes, or no address can be reached at all.
    pub(crate) fn begin(
        mut addresses: Vec<SocketAddr>,
        request: Vec<u8>,
        identity: Option<Identity>,
        connect_timeout: Duration,
        patience: Duration,
    ) -> io::Result<Knock> {
        let talk = Talk::begin(&request, identity.as_ref())?;
        addresses.reverse();
        let now = Instant::now();
        let (open_by, by) = (now + connect_timeout, now + patience);
        let stream = connect(&mut addresses)?;
        let others = addresses;
        let is_open = false;
        Ok(Knock { stream, request, identity, talk, is_open, others, connect_timeout, open_by, by })
    }

    /// What has to happen on the connection before the next [`Knock::step`] has something to do.
    pub fn waits_for(&self) -> PollFlags {
        let writes = match &self.talk {
            Talk::Plain(sent) => *sent < self.request.len(),
            Talk::Secure(talk) => talk.wants_write(),
        };
        if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// When the next [`Knock::step`] has something to do at the latest.
    pub fn deadline(&self) -> Instant {
        if self.is_open { self.by } else { self.by.min(self.open_by) }
    }

    /// Does what can be done now. `None`: more has to come. Then: an answer has begun, or why none
    /// will.
    pub fn step(&mut self) -> Option<io::Result<()>> {
        loop {
            match self.advance() {
                Ok(is_answered) => return is_answered.then_some(Ok(())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let is_late = Instant::now() >= self.deadline();
                    if !is_late {
                        return None;
                    }
                    if self.is_open || self.try_another().is_err() {
                        return Some(Err(io::Error::new(ErrorKind::TimedOut, "timeout")));
                    }
                }
                Err(error) if self.is_open || self.try_another().is_err() => {
                    return Some(Err(error));
                }
                Err(_) => {}
            }
        }
    }

    /// Whether an answer has begun; `WouldBlock` if that takes more time.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let read = match &mut self.talk {
            Talk::Plain(sent) => {
                while *sent < self.request.len() {
                    *sent += written(self.stream.write(&self.request[*sent..]))?;
                    self.is_open = true;
                }
                self.stream.read(&mut [0; 1])?
            }
            Talk::Secure(talk) => loop {
                while talk.wants_write() {
                    written(talk.write_tls(&mut self.stream))?;
                    self.is_open = true;
                }
                match talk.reader().read(&mut [0; 1]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => break read.map_err(tls::told)?,
                }
                if talk.read_tls(&mut self.stream)? > 0
                    && let Err(error) = talk.process_new_packets()
                {
                    let _ = talk.write_tls(&mut self.stream); // tells the server, if it can be told
                    return Err(tls::why(&error));
                }
                // One that always has more to say, and never an answer, holds up all others.
                if Instant::now() >= self.by {
                    return Err(ErrorKind::TimedOut.into());
                }
            },
        };
        match read {
            0 => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the connection ended without an answer",
            )),
            _ => Ok(true),
        }
    }

    fn try_another(&mut self) -> io::Result<()> {
        self.stream = connect(&mut self.others)?;
        self.talk = Talk::begin(&self.request, self.identity.as_ref())?;
        self.open_by = Instant::now() + self.connect_timeout;
        Ok(())
    }
}

impl AsFd for Knock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What a write has done; a connection that is not open yet takes more time.
fn written(write: io::Result<usize>) -> io::Result<usize> {
    match write {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == ErrorKind::NotConnected => Err(ErrorKind::WouldBlock.into()),
        written => written,
    }
}

/// Begins to connect to the last of these addresses that does not fail at once, and takes it and
/// those after it away.
fn connect(addresses: &mut Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(ErrorKind::AddrNotAvailable);
    while let Some(address) = addresses.pop() {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                return Ok(socket.into());
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use nix::poll::{PollFd, PollTimeout, poll};

    use super::*;

    fn ends(addresses: Vec<SocketAddr>, patience: Duration) -> io::Result<()> {
        let request = b"GET / HTTP/1.0\r\n\r\n".to_vec();
        let mut knock = Knock::begin(addresses, request, None, patience, patience)?;
        loop {
            if let Some(end) = knock.step() {
                return end;
            }
            let left = knock.deadline().saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap();
            poll(&mut [PollFd::new(knock.as_fd(), knock.waits_for())], left).unwrap();
        }
    }

    #[test]
    fn servers_that_answer_hang_up_say_nothing_or_are_not_there() {
        let long = Duration::from_secs(20);
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        let silent = listen();
        let kind = |end: io::Result<()>| end.unwrap_err().kind();
        let short = Duration::from_millis(200);
        assert_eq!(kind(ends(vec![at(&silent)], short)), ErrorKind::TimedOut);
        let gone = at(&listen());
        assert_eq!(kind(ends(vec![gone], long)), ErrorKind::ConnectionRefused);
        assert!(ends(Vec::new(), long).is_err());

        let (answers, hangs_up) = (listen(), listen());
        let (there, cut) = (at(&answers), at(&hangs_up));
        std::thread::spawn(move || {
            for stream in answers.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 100]);
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            }
        });
        std::thread::spawn(move || {
            for stream in hangs_up.incoming() {
                let _ = stream.unwrap().read(&mut [0; 100]);
            }
        });
        ends(vec![there], long).unwrap();
        ends(vec![gone, there], long).unwrap();
        assert_eq!(kind(ends(vec![cut], long)), ErrorKind::UnexpectedEof);
    }
}
