//! A network that misbehaves as it is told: a TCP proxy that knows where a request ends.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It does not arrive.
    Lose,
    /// It arrives, its reply does not.
    LoseReply,
    /// It arrives, and nothing comes back, not even an end.
    SwallowReply,
    /// It arrives twice; the second reply is passed on.
    Twice,
    /// It is kept, to be delivered by [`Proxy::deliver_held`]; no reply.
    Hold,
    /// The connection is reset before more than its head was read.
    BreakOff,
    /// Only so many bytes of it arrive.
    Cut(usize),
    /// Only so many bytes of its reply arrive, then the connection is reset.
    CutReply(usize),
    /// Only half of its reply arrives, then the connection ends as if that were all.
    HalveReply,
    /// It arrives later.
    Delay(Duration),
    /// It arrives, its reply later.
    DelayReply(Duration),
    /// It does not arrive; whoever sent it is refused with this code.
    Refuse(u16),
    /// It arrives; whoever sent it is told that it was refused with this code.
    Belie(u16),
    /// The same, and is told so later.
    BelieLater(u16, Duration),
    /// It does not arrive; this is said to whoever sent it.
    Say(&'static str),
}

#[derive(Debug)]
struct Rule {
    /// Part of the request's first line.
    line: String,
    act: Act,
    times: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    down: bool,
    live: Vec<TcpStream>,
    held: Vec<Vec<u8>>,
    seen: Vec<Vec<u8>>,
    /// Those of them that were passed on, whole or in part.
    passed_on: Vec<Vec<u8>>,
    acts: BTreeMap<String, usize>,
    /// Connections that came while none was let through.
    refused: usize,
    /// Whether the node's programs seem to be those of 0.1.
    old: bool,
}

/// The proxy; it ends with the test's process.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    upstream: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy { port, upstream, state: Arc::default() };
        let acceptor = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let proxy = acceptor.clone();
                thread::spawn(move || proxy.serve(client));
            }
        });
        proxy
    }

    /// The next `times` requests whose first line contains this.
    pub fn rule(&self, line: &str, act: Act, times: usize) {
        self.state.lock().unwrap().rules.push(Rule { line: line.into(), act, times });
    }

    pub fn clear(&self) {
        self.state.lock().unwrap().rules.clear();
    }

    /// Cuts every connection, and lets none through any more.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.down = true;
        for stream in state.live.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().down = false;
    }

    /// Whether replies are those of a node that proves nothing, as the programs of 0.1.
    pub fn prove_nothing(&self, old: bool) {
        self.state.lock().unwrap().old = old;
    }

    /// How many requests came whose first line contains this.
    pub fn count(&self, line: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|request| first_line(request).contains(line)).count()
    }

    /// How many connections came while none was let through.
    pub fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    /// What was done, and how often.
    pub fn acts(&self) -> BTreeMap<String, usize> {
        self.state.lock().unwrap().acts.clone()
    }

    /// The last request whose first line contains this.
    pub fn last(&self, line: &str) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        state.seen.iter().rfind(|request| first_line(request).contains(line)).unwrap().clone()
    }

    /// The last of those that were passed on.
    pub fn last_passed_on(&self, line: &str) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        state.passed_on.iter().rfind(|request| first_line(request).contains(line)).cloned()
    }

    /// Delivers what was held; the replies.
    pub fn deliver_held(&self) -> Vec<String> {
        let held = std::mem::take(&mut self.state.lock().unwrap().held);
        held.iter().map(|request| self.deliver(request)).collect()
    }

    /// Delivers a request now; the reply.
    pub fn deliver(&self, request: &[u8]) -> String {
        String::from_utf8_lossy(&self.ask(request, None)).into_owned()
    }

    fn ask(&self, request: &[u8], client: Option<&TcpStream>) -> Vec<u8> {
        self.state.lock().unwrap().passed_on.push(request.to_vec());
        let Ok(mut upstream) = TcpStream::connect(("127.0.0.1", self.upstream)) else {
            return Vec::new();
        };
        if client.is_some() {
            self.state.lock().unwrap().live.extend(upstream.try_clone());
        }
        let mut reply = Vec::new();
        if upstream.write_all(request).is_ok() {
            let _ = upstream.shutdown(Shutdown::Write);
            let _ = upstream.read_to_end(&mut reply);
        }
        if self.state.lock().unwrap().old {
            hide(&mut reply, b"\"proof\":", b"\"other\":");
        }
        reply
    }

    fn serve(&self, client: TcpStream) {
        // Clones of it are kept, to be cut.
        if self.pass(&client).is_some() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    fn reset(&self, client: &TcpStream) -> Option<()> {
        // The other clone is closed by the caller, and that is what resets it.
        self.state.lock().unwrap().live.clear();
        reset_at_close(client);
        None
    }

    /// `None`: it was reset, and must not be ended otherwise.
    fn pass(&self, mut client: &TcpStream) -> Option<()> {
        {
            let mut state = self.state.lock().unwrap();
            if state.down {
                state.refused += 1;
                return Some(());
            }
        }
        let Some((mut request, length)) = read_head(client) else { return Some(()) };
        let line = first_line(&request);
        let act = {
            let mut state = self.state.lock().unwrap();
            if state.down {
                return Some(());
            }
            state.live.extend(client.try_clone());
            let rule = state.rules.iter_mut().find(|r| r.times > 0 && line.contains(&r.line));
            let act = rule.map(|rule| {
                rule.times -= 1;
                rule.act
            });
            if let Some(act) = act {
                *state.acts.entry(format!("{act:?}")).or_default() += 1;
            }
            act
        };
        if act == Some(Act::BreakOff) {
            self.state.lock().unwrap().seen.push(request);
            return self.reset(client);
        }
        if read_until(client, &mut request, length).is_none() {
            return Some(());
        }
        self.state.lock().unwrap().seen.push(request.clone());
        let reply = match act {
            None | Some(Act::BreakOff) => self.ask(&request, Some(client)),
            Some(Act::Lose) => return Some(()),
            Some(Act::LoseReply) => {
                self.ask(&request, None);
                return Some(());
            }
            Some(Act::SwallowReply) => {
                self.ask(&request, None);
                until_given_up(client);
                return Some(());
            }
            Some(Act::Twice) => {
                self.ask(&request, None);
                self.ask(&request, None)
            }
            Some(Act::Hold) => {
                self.state.lock().unwrap().held.push(request);
                until_given_up(client);
                return Some(());
            }
            Some(Act::Cut(bytes)) => {
                self.ask(&request[..bytes.min(request.len())], None);
                return Some(());
            }
            Some(Act::CutReply(bytes)) => {
                let mut reply = self.ask(&request, None);
                reply.truncate(bytes);
                let _ = client.write_all(&reply);
                return self.reset(client);
            }
            Some(Act::HalveReply) => {
                let mut reply = self.ask(&request, None);
                reply.truncate(reply.len() / 2);
                reply
            }
            Some(Act::DelayReply(time)) => {
                let reply = self.ask(&request, None);
                thread::sleep(time);
                reply
            }
            Some(Act::Refuse(code)) => said(code, r#"{"error":"not today"}"#),
            Some(Act::Belie(code)) => {
                self.ask(&request, None);
                said(code, r#"{"error":"not today"}"#)
            }
            Some(Act::BelieLater(code, time)) => {
                self.ask(&request, None);
                thread::sleep(time);
                said(code, r#"{"error":"not today"}"#)
            }
            Some(Act::Say(body)) => said(200, body),
            Some(Act::Delay(time)) => {
                thread::sleep(time);
                self.ask(&request, Some(client))
            }
        };
        let _ = client.write_all(&reply);
        Some(())
    }
}

fn said(code: u16, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.0 {code} Said\r\nContent-Type: application/json\r\n\r\n");
    format!("{head}{body}").into_bytes()
}

/// Gives fields of a reply another name of the same length.
fn hide(reply: &mut [u8], field: &[u8], other: &[u8]) {
    for at in 0..reply.len().saturating_sub(field.len()) {
        if reply[at..].starts_with(field) {
            reply[at..at + other.len()].copy_from_slice(other);
        }
    }
}

fn first_line(request: &[u8]) -> String {
    let end = request.iter().position(|b| *b == b'\r').unwrap_or(request.len());
    String::from_utf8_lossy(&request[..end]).into_owned()
}

/// The head of a request with what came along with it, and how long the whole is.
fn read_head(client: &TcpStream) -> Option<(Vec<u8>, usize)> {
    let mut request = Vec::new();
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
            return Some((request, end + 4 + length));
        }
        let more = request.len() + 1;
        read_until(client, &mut request, more)?;
    }
}

/// Reads until so many bytes are there; `None` if the connection ends before.
fn read_until(mut client: &TcpStream, request: &mut Vec<u8>, length: usize) -> Option<()> {
    let mut piece = [0u8; 8192];
    while request.len() < length {
        let count = client.read(&mut piece).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&piece[..count]);
    }
    Some(())
}

/// Waits until whoever asks gives up.
fn until_given_up(mut client: &TcpStream) {
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = client.read(&mut [0]); // its end, or too late
}

/// Makes its last close send RST instead of FIN.
fn reset_at_close(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: an open descriptor, and an option of the type and size that it has.
    unsafe {
        nix::libc::setsockopt(
            stream.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as nix::libc::socklen_t,
        );
    }
}
