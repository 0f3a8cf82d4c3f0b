//! What fault tests need beside a root: a web server that can be killed and comes back on its
//! port, requests that may fail, random numbers that can be repeated.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Numbers that look random and are the same for the same seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    /// From the variable `CORKBOARD_SEED`, else from the clock. Printed, to be repeated.
    pub fn seeded() -> Random {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = std::env::var("CORKBOARD_SEED")
            .map_or(clock.as_nanos() as u64 & 0xffff_ffff, |text| text.parse().unwrap());
        println!("CORKBOARD_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len() as u64) as usize)
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `busybox httpd` of a root, always on the same port.
pub struct Server {
    root: PathBuf,
    /// Where it listens.
    address: String,
    pub port: u16,
    env: Vec<(String, String)>,
    /// Words before it, and whom it belongs to, if not to who runs the test.
    wrap: Vec<String>,
    user: Option<u32>,
    child: Option<Child>,
}

impl Server {
    pub fn start(root: &Path) -> Server {
        Server::start_as(root, &[], None)
    }

    /// The same with words before it, and as another user.
    pub fn start_as(root: &Path, wrap: &[String], user: Option<u32>) -> Server {
        let mut server = Server::on(root, wrap, "127.0.0.1", free_port());
        server.user = user;
        server.up();
        server
    }

    /// One at this address, of a network perhaps in which this process is not. It is not started yet.
    pub fn on(root: &Path, wrap: &[String], address: &str, port: u16) -> Server {
        let (root, address, wrap) = (root.into(), address.into(), wrap.to_vec());
        Server { root, address, port, env: Vec::new(), wrap, user: None, child: None }
    }

    /// What programs that it starts from now on are to have in their environment.
    pub fn restart_with(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
        self.down();
        self.up();
    }

    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// Starts it unless it lives, and waits until it accepts connections.
    pub fn up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.tend();
            if connect(self.port).is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "httpd does not come up on {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it unless it lives.
    pub fn tend(&mut self) {
        if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none()) {
            return;
        }
        let mut words = self.wrap.iter().map(String::as_str).chain(["busybox"]);
        let mut command = Command::new(words.next().unwrap());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let child = command
            .args(words)
            .args(["httpd", "-f", "-p", &format!("{}:{}", self.address, self.port), "-h"])
            .arg(self.root.join("www"))
            .env_clear()
            .env("CORKBOARD_ROOT", &self.root)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log(&self.root, "httpd.log"))
            .spawn()
            .expect("busybox is needed");
        self.child = Some(child);
    }

    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// A file of a root, beside its state, that output is appended to.
pub fn log(root: &Path, name: &str) -> Stdio {
    fs::File::options().create(true).append(true).open(root.join(name)).unwrap().into()
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(
        &SocketAddr::from(([127, 0, 0, 1], port)),
        Duration::from_secs(2),
    )?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request; `None` if there was no whole answer.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    http_with(port, method, path, &[], body)
}

/// The same with more headers.
pub fn http_with(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = connect(port).ok()?;
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} /cgi-bin{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((code, body.to_string()))
}
