//! Hosts of a test: network namespaces of its own, links between them that are cut both ways or one way, and a
//! translation of addresses (NAT) behind which nobody can dial.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::common::{SOON, wait_for};

/// A network namespace. A process keeps it that ends with this one, whatever ends that.
pub struct Host {
    keeper: Child,
}

impl Host {
    /// An error where whoever runs the test may not make any.
    pub fn new() -> Result<Host, String> {
        let own = fs::read_link("/proc/self/ns/net").map_err(|e| e.to_string())?;
        let mut command = Command::new("unshare");
        let keeper =
            command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut host = Host { keeper: keeper.map_err(|e| format!("unshare: {e}"))? };
        let made: Result<(), String> = wait_for(SOON, || {
            if host.keeper.try_wait().unwrap().is_some() {
                return Ok(Err("no network namespace could be made".into()));
            }
            match fs::read_link(host.namespace()) {
                Ok(theirs) if theirs != own => Ok(Ok(())),
                seen => Err(format!("{seen:?}")),
            }
        });
        made?;
        host.ip("link set lo up");
        Ok(host)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.keeper.id())
    }

    /// Words before whatever is to run there.
    pub fn wrap(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net={}", self.namespace()), "--".into()]
    }

    /// `ip` with these words, there.
    pub fn ip(&self, words: &str) {
        let output = self.try_ip(words);
        assert!(output.status.success(), "ip {words}: {output:?}");
    }

    fn try_ip(&self, words: &str) -> Output {
        let wrap = self.wrap();
        let mut command = Command::new(&wrap[0]);
        command.args(&wrap[1..]).arg("ip").args(words.split(' ')).output().unwrap()
    }

    /// Whether anything that is said to this address leaves the host.
    pub fn has_route_to(&self, address: &str) -> bool {
        self.try_ip(&format!("route get {address}")).status.success()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// How a link fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes.
    Both,
    /// What the first of its hosts says does not arrive.
    Up,
    /// What the second of them says does not arrive.
    Down,
}

/// A cable between two hosts.
pub struct Link<'a> {
    ends: [(&'a Host, String); 2],
    device: String,
}

impl<'a> Link<'a> {
    /// The network `10.77.NET.0`, in which the first host is 1 and the second 2.
    pub fn new(net: u8, first: &'a Host, second: &'a Host) -> Link<'a> {
        let device = format!("link{net}");
        let other = second.keeper.id();
        first.ip(&format!("link add {device} type veth peer name {device} netns {other}"));
        let ends = [(first, format!("10.77.{net}.1")), (second, format!("10.77.{net}.2"))];
        for (host, address) in &ends {
            host.ip(&format!("address add {address}/30 dev {device}"));
            host.ip(&format!("link set {device} up"));
        }
        Link { ends, device }
    }

    fn change(&self, cut: Cut, begins: bool) {
        let [(first, theirs), (second, others)] = &self.ends;
        let word = if begins { "add" } else { "delete" };
        match cut {
            Cut::Both => {
                let word = if begins { "down" } else { "up" };
                first.ip(&format!("link set {} {word}", self.device));
            }
            Cut::Up => first.ip(&format!("route {word} blackhole {others}/32")),
            Cut::Down => second.ip(&format!("route {word} blackhole {theirs}/32")),
        }
    }

    pub fn cut(&self, cut: Cut) {
        self.change(cut, true);
    }

    pub fn heal(&self, cut: Cut) {
        self.change(cut, false);
    }
}

/// What a router does for those behind it: each connection to its inner address is one of its own to the outer one.
pub struct Nat {
    delay: Arc<AtomicU64>,
}

impl Nat {
    /// On this host, until the test's process ends.
    pub fn start(router: &Host, inner: SocketAddr, outer: SocketAddr) -> Nat {
        let namespace = File::open(router.namespace()).unwrap();
        let delay = Arc::new(AtomicU64::new(0));
        let (nat, (tell, told)) = (Nat { delay: delay.clone() }, mpsc::channel());
        thread::spawn(move || {
            // A namespace is a thread's own, and that of the threads which it starts.
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind(inner).unwrap();
            tell.send(()).unwrap();
            for client in listener.incoming().filter_map(Result::ok) {
                let delay = delay.clone();
                thread::spawn(move || pass(client, outer, &delay));
            }
        });
        told.recv_timeout(SOON).expect("the router listens");
        nat
    }

    /// How much later all arrives from now on.
    pub fn delay(&self, by: Duration) {
        self.delay.store(by.as_millis() as u64, Ordering::Relaxed);
    }
}

fn pass(client: TcpStream, outer: SocketAddr, delay: &Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect_timeout(&outer, Duration::from_secs(5)) else { return };
    let ends = [(&client, &server), (&server, &client)];
    let pumps: Vec<_> = ends
        .into_iter()
        .map(|(from, to)| {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let delay = delay.clone();
            thread::spawn(move || pump(from, to, &delay))
        })
        .collect();
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if to.write_all(&bytes[..length]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
