//! What nodes that do not answer cost the others: the delay of a job on a good node.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{get, json};
use crate::process::Guarded;
use crate::requests::one_to_its_end;
use crate::site::Site;
use crate::table::{Limit, Table, median};
use crate::{Bench, Result};

/// How long the nodes may take to become known, or to fall silent.
const PATIENCE: Duration = Duration::from_secs(120);

/// A round takes a minute.
const ROUNDS: usize = 3;

/// A server that answers for any number of nodes, until it falls silent.
struct Server {
    listener: TcpListener,
    /// Requests for the feed that wait.
    held: Mutex<Vec<TcpStream>>,
    silent: AtomicBool,
}

impl Server {
    fn start() -> Result<Arc<Server>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server =
            Arc::new(Server { listener, held: Mutex::default(), silent: AtomicBool::new(false) });
        let own = server.clone();
        thread::spawn(move || {
            while !own.silent.load(Ordering::Relaxed) {
                let Ok((stream, _)) = own.listener.accept() else { return };
                let _ = own.answer(stream); // who asked has gone
            }
        });
        Ok(server)
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                return Ok(());
            }
            request.extend_from_slice(&piece[..read]);
        }
        let request = String::from_utf8_lossy(&request);
        let body = if request.contains("since=") {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
            return Ok(());
        } else if request.contains("/events") {
            r#"{"cursor":"e.0","events":[]}"#
        } else {
            r#"{"resources":{"cores":1,"memory":1073741824}}"#
        };
        let length = body.len();
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
    }

    /// Breaks off what it has not answered, and accepts nothing more: the few connections that the
    /// kernel takes for it hang, the others are not opened.
    fn fall_silent(&self) -> Result<()> {
        self.silent.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.listener.local_addr()?)?); // wakes it up
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

pub fn nodes(bench: &Bench, table: &mut Table) -> Result<()> {
    let count = bench.size(1000, 50);
    let window = Duration::from_secs(bench.size(15, 2) as u64);
    let (mut down, mut silent, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    let mut usual_all = Vec::new();
    for _ in 0..bench.rounds.min(ROUNDS) {
        let site = Site::new(bench, bench.disk.join("silent"))?;
        let poller = site.poller()?;
        one_to_its_end(&site)?;
        let usual = slow(&site, window)?;
        let server = Server::start()?;
        let uri = format!("http://{}", server.listener.local_addr()?);
        for number in 1..=count {
            let node = format!(r#"{{"name":"n{number}","uri":"{uri}","drain":true}}"#);
            site.scheduler(&["nodes", "new", "-d", &node])?;
        }
        until(&site, "connected", count + 1)?;
        server.fall_silent()?;
        down.push((slow(&site, window)? - usual) * 1e3);
        until(&site, "disconnected", count)?;
        silent.push((slow(&site, window)? - usual) * 1e3);
        threads.push(threads_of(&poller)? as f64);
        usual_all.push(usual * 1e3);
    }
    let usual = median(&usual_all);
    let limit = Some(Limit::AtMost(100.0, 20.0));
    let note = format!(
        "what 19 of 20 jobs on a good node take at most, beyond what they did before ({usual:.0} ms)"
    );
    let what = format!("while {count} nodes fall silent");
    table.figure("silent-nodes", what, "ms later", &down, limit, note);
    let what = format!("with {count} silent nodes");
    table.figure("silent-nodes", what, "ms later", &silent, limit, "the same");
    let what = format!("threads of the poller with {count} silent nodes");
    table.figure("silent-nodes", what, "threads", &threads, Some(Limit::AtMost(40.0, 16.0)), "");
    Ok(())
}

/// How long nineteen of twenty jobs took at most from their POST to their end, one after the other
/// for so long; seconds.
fn slow(site: &Site, window: Duration) -> Result<f64> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < window {
        took.push(one_to_its_end(site)?);
        thread::sleep(Duration::from_millis(20));
    }
    took.sort_by(f64::total_cmp);
    took.get(took.len() * 19 / 20).copied().ok_or_else(|| "no job ended".into())
}

/// Waits until so many nodes are in this state.
fn until(site: &Site, state: &str, count: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = json(site.address, &get("scheduler/nodes/list"))?;
        let nodes = answer["nodes"].as_array().ok_or("no nodes")?;
        let seen = nodes.iter().filter(|node| node["state"] == state).count();
        if seen >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{seen} of {count} nodes are {state}").into());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn threads_of(process: &Guarded) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/task", process.pid()))?.count())
}
