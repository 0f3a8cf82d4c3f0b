//! A body on its way from the client: as long as bytes keep coming it may take its time, and one that
//! does not arrive is refused before the alarm would end the request without an answer.

use std::io::{self, Stdin};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::alarm::{self, LONGEST_ARRIVAL};
use super::form::Source;
use crate::error::{At, Error, Kind, Result};
use crate::held;

/// Longest that no byte of it may come.
const LONGEST_PAUSE: Duration = Duration::from_secs(50);

const _: () = assert!(LONGEST_PAUSE.as_secs() + 5 < alarm::SECONDS as u64);

/// Of more bytes than these a body is long.
pub(super) const LONG: u64 = 64 << 10;

/// Longest that one may take which is not long: who sends it is not counted, and has a program meanwhile.
const SHORT_ARRIVAL: Duration = Duration::from_secs(30);

/// What is read at a time of a body that is kept whole.
const PIECE: usize = 64 << 10;

/// What may have become of a body that did not come.
pub(super) const OVERRIDE_HINT: &str =
    "a body needs POST: send it by POST with the header X-HTTP-Method-Override";

/// A body of a length that was said before.
pub(super) struct Arrival<F> {
    from: F,
    length: u64,
    read: u64,
    pause: Duration,
    whole: Duration,
    deadline: Instant,
}

impl Arrival<Stdin> {
    /// One that comes to a CGI program.
    pub(super) fn new(length: u64) -> Arrival<Stdin> {
        let whole = if length > LONG { LONGEST_ARRIVAL } else { SHORT_ARRIVAL };
        Arrival::on(io::stdin(), length, LONGEST_PAUSE, whole)
    }
}

impl<F: AsFd> Arrival<F> {
    fn on(from: F, length: u64, pause: Duration, whole: Duration) -> Arrival<F> {
        Arrival { from, length, read: 0, pause, whole, deadline: Instant::now() + whole }
    }

    /// All of it.
    pub(super) fn all(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new(); // grows as they come: a length is quickly said
        let mut piece = vec![0; PIECE];
        loop {
            match Source::read(&mut self, &mut piece)? {
                0 => return Ok(bytes),
                read => bytes.extend_from_slice(&piece[..read]),
            }
        }
    }

    /// Waits until there is something to read.
    fn wait(&self) -> Result<()> {
        let until = self.deadline.min(Instant::now() + self.pause);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            // A client that leaves meanwhile ends it: nothing has been changed.
            match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), held::mask()) {
                Ok(0) => break,
                Ok(_) if Instant::now() < self.deadline => return Ok(()),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).at("the request's body"),
            }
        }
        let (read, length) = (self.read, self.length);
        let why = if until == self.deadline {
            format!("after {} s {read} of {length} bytes have come", self.whole.as_secs())
        } else {
            let pause = self.pause.as_secs();
            format!("nothing came for {pause} s after {read} of {length} bytes")
        };
        Err(Error::new(Kind::LengthRequired, format!("the body does not arrive: {why}")))
    }
}

impl<F: AsFd> Source for Arrival<F> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(self.length - self.read).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        if most == 0 {
            return Ok(0);
        }
        self.wait()?;
        // Not by the library's buffer, which would only copy what is as large as its own.
        let read = loop {
            match nix::unistd::read(&self.from, &mut buffer[..most]) {
                Err(Errno::EINTR) => {}
                read => break read.at("the request's body")?,
            }
        };
        if read == 0 {
            return Err(Error::new(
                Kind::LengthRequired,
                format!(
                    "the body ended after {} of {} bytes; {OVERRIDE_HINT}",
                    self.read, self.length
                ),
            ));
        }
        self.read += read as u64;
        alarm::put_off();
        Ok(read)
    }
}

/// For who passes it on.
impl<F: AsFd> io::Read for Arrival<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Source::read(self, buffer).map_err(|error| io::Error::other(error.message))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Write};
    use std::thread;

    use super::*;

    /// Longer than anything here is waited for.
    const LONG: Duration = Duration::from_secs(600);

    const SHORT: Duration = Duration::from_millis(300);

    /// A body of 100 bytes that is sent so; what becomes of it, and how long that took.
    fn arrives(
        pause: Duration,
        whole: Duration,
        send: impl FnOnce(PipeWriter) + Send + 'static,
    ) -> (Result<Vec<u8>>, Duration) {
        let (reader, writer): (PipeReader, PipeWriter) = io::pipe().unwrap();
        let sender = thread::spawn(move || send(writer));
        let begun = Instant::now();
        let arrived = Arrival::on(reader, 100, pause, whole).all();
        let took = begun.elapsed();
        sender.join().unwrap();
        (arrived, took)
    }

    fn refused(arrived: Result<Vec<u8>>) -> String {
        let error = arrived.unwrap_err();
        assert_eq!(error.kind, Kind::LengthRequired, "{error}");
        error.message
    }

    #[test]
    fn a_body_may_take_its_time_as_long_as_bytes_come() {
        let (arrived, _) = arrives(LONG, LONG, |mut to| {
            for byte in 0..100 {
                to.write_all(&[byte]).unwrap();
                thread::yield_now();
            }
            let _ = to.write_all(b"and what is another's"); // nobody reads that
        });
        assert_eq!(arrived.unwrap(), (0..100).collect::<Vec<u8>>());
    }

    /// Sends a byte now and then until nobody reads any more, or this is over.
    fn trickle(mut to: PipeWriter) {
        let begun = Instant::now();
        while begun.elapsed() < LONG && to.write_all(b"x").is_ok() {
            thread::sleep(SHORT / 10);
        }
    }

    #[test]
    fn one_that_does_not_arrive_is_refused_in_time() {
        // The sender holds the line, and says nothing more.
        let (arrived, took) = arrives(SHORT, LONG, |mut to| {
            to.write_all(b"begun").unwrap();
            let mut fds = [PollFd::new(to.as_fd(), PollFlags::empty())];
            ppoll(&mut fds, None, None).unwrap(); // until the reader has left
        });
        let said = refused(arrived);
        assert!(said.contains("nothing came for 0 s after 5 of 100 bytes"), "{said}");
        assert!(took >= SHORT && took < LONG / 10, "{took:?}");
        // One that trickles is not silent, and comes to an end all the same.
        let (reader, writer) = io::pipe().unwrap();
        let sender = thread::spawn(move || trickle(writer));
        let begun = Instant::now();
        let said = refused(Arrival::on(reader, 1_000_000, LONG, SHORT).all());
        let took = begun.elapsed();
        sender.join().unwrap();
        assert!(said.starts_with("the body does not arrive: after 0 s "), "{said}");
        assert!(took >= SHORT && took < LONG / 10, "{took:?}");
        // One that is cut off is not waited for.
        let (arrived, took) = arrives(LONG, LONG, |mut to| to.write_all(b"begun").unwrap());
        assert!(refused(arrived).contains("the body ended after 5 of 100 bytes"));
        assert!(took < LONG / 10, "{took:?}");
    }
}
