//! What goes wrong at random: the network, the processes, and somebody who forges.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::processes::{self, Process};
use crate::net::{Random, Server, http_with};
use crate::proxy::{Act, Proxy};

const LINES: [&str; 7] = [
    "POST /cgi-bin/processor/jobs/new",
    "POST /cgi-bin/processor/jobs/new",
    "/kill",
    "/jobs/ack",
    "/jobs/status?ids=",
    "/processor/events?",
    "/processor/info",
];

const REFUSALS: [u16; 5] = [401, 403, 421, 422, 503];

pub struct Weather {
    pub random: Random,
    /// Stopped, to go on at this time.
    stopped: Vec<(Process, Instant)>,
    cut_until: Option<(usize, Instant)>,
    /// What forged requests were answered.
    forgeries: Arc<Mutex<Vec<(u16, String)>>>,
    pub counts: BTreeMap<String, usize>,
}

impl Weather {
    pub fn new(random: Random) -> Weather {
        Weather {
            random,
            stopped: Vec::new(),
            cut_until: None,
            forgeries: Arc::default(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Something happens to a request, or to the whole line.
    pub fn network(&mut self, proxies: &[Proxy]) {
        if let Some((number, until)) = self.cut_until
            && until <= Instant::now()
        {
            proxies[number].heal();
            self.cut_until = None;
        }
        let number = self.random.below(proxies.len() as u64) as usize;
        let proxy = &proxies[number];
        match self.random.below(16) {
            0 if self.cut_until.is_none() => {
                let time = Duration::from_millis(100 + self.random.below(3000));
                self.cut_until = Some((number, Instant::now() + time));
                proxy.cut();
                self.count("cut");
            }
            1 | 2 => {
                // Beside all else: who is to take it may be stopped.
                let proxy = proxy.clone();
                thread::spawn(move || proxy.deliver_held());
                self.count("late");
            }
            3 => {
                if let Some(request) = proxy.last_passed_on(LINES[0]) {
                    let proxy = proxy.clone();
                    thread::spawn(move || proxy.deliver(&request));
                    self.count("repeated");
                }
            }
            4..=9 => {
                let act = match self.random.below(13) {
                    0 => Act::Lose,
                    1 => Act::LoseReply,
                    2 => Act::Twice,
                    3 | 4 => Act::Hold,
                    5 => Act::Delay(Duration::from_millis(self.random.below(2500))),
                    6 => Act::DelayReply(Duration::from_millis(self.random.below(2500))),
                    7 => Act::CutReply(self.random.below(200) as usize),
                    8 | 9 => Act::HalveReply,
                    10 => Act::SwallowReply,
                    _ => {
                        let code = *self.random.pick(&REFUSALS).unwrap();
                        Act::Refuse(code)
                    }
                };
                let line = *self.random.pick(&LINES).unwrap();
                let times = 1 + self.random.below(2) as usize;
                proxy.rule(line, act, times);
                let name = format!("{act:?}");
                self.count(name.split('(').next().unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Somebody who may submit on a node tries ids that the head will use, or has used.
    pub fn forge(&mut self, servers: &[Server], tokens: &[String], newest: u64, head: &Path) {
        if self.random.below(6) != 0 {
            return;
        }
        let number = self.random.below(servers.len() as u64) as usize;
        let job = (newest + 4).saturating_sub(self.random.below(8)).max(1);
        let cluster = fs::read_to_string(head.join("state/scheduler/cluster")).unwrap_or_default();
        if cluster.is_empty() {
            return;
        }
        let id = format!("{}-{job}.{}", cluster.trim(), 1 + self.random.below(2));
        let request = json!({"command": "true", "request_id": id}).to_string();
        let bearer = format!("Bearer {}", tokens[number]);
        let port = servers[number].port;
        let forgeries = self.forgeries.clone();
        thread::spawn(move || {
            let headers = [("Authorization", bearer.as_str())];
            let answer = http_with(port, "POST", "/processor/jobs/new", &headers, &request);
            let answer = answer.map(|(code, said)| (code, format!("{id}: {said}")));
            forgeries.lock().unwrap().extend(answer);
        });
    }

    /// A process is stopped for a while, or killed.
    pub fn processes(&mut self, roots: &[PathBuf], servers: &[Server]) {
        let now = Instant::now();
        self.stopped.retain(|(process, until)| {
            let go_on = *until <= now;
            if go_on {
                process.signal(Signal::SIGCONT);
            }
            !go_on
        });
        let fate = self.random.below(20);
        if fate > 3 {
            return;
        }
        let all = processes::of_roots(roots);
        let Some(process) = self.random.pick(&all).cloned() else { return };
        let kind = kind_of(&process, servers);
        if fate < 3 {
            let time = Duration::from_millis(20 + self.random.below(2500));
            if process.signal(Signal::SIGSTOP) {
                self.stopped.push((process, now + time));
                self.count(format!("stopped {kind}"));
            }
        } else if process.signal(Signal::SIGKILL) {
            self.count(format!("killed {kind}"));
        }
    }

    /// From now on nothing goes wrong.
    pub fn clear_up(&mut self, proxies: &[Proxy]) {
        for (process, _) in self.stopped.drain(..) {
            process.signal(Signal::SIGCONT);
        }
        for proxy in proxies {
            proxy.clear();
            proxy.heal();
        }
        let forgeries = std::mem::take(&mut *self.forgeries.lock().unwrap());
        self.counts.insert("forged".into(), forgeries.len());
        let taken: Vec<_> =
            forgeries.into_iter().filter(|(code, _)| !matches!(code, 403 | 500 | 503)).collect();
        assert!(taken.is_empty(), "taken from a stranger: {taken:?}");
    }
}

fn kind_of(process: &Process, servers: &[Server]) -> &'static str {
    let words = process.words();
    match words.first().and_then(|word| word.rsplit('/').next()) {
        _ if words.get(1).is_some_and(|word| word == "supervise") => "supervisor",
        _ if process.has("GATEWAY_INTERFACE=CGI/1.1") => "cgi",
        _ if servers.iter().any(|server| server.pid() == Some(process.pid)) => "httpd",
        Some("poller") => "poller",
        Some("busybox") => "connection",
        _ => "other",
    }
}
