//! Jobs of mixed needs over four nodes, while pollers, supervisors, requests and servers are killed at random and
//! come back in any order: at no moment is more in use than there is, nothing runs twice, nothing is lost, and
//! everything comes to its end.
//!
//! `CORKBOARD_SEED` repeats a run's choices, `CORKBOARD_JOBS` changes its size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "faults/accounts.rs"]
mod accounts;
mod common;
#[path = "faults/judged.rs"]
mod judged;
#[path = "common/keeper.rs"]
mod keeper;
#[path = "faults/mixed_jobs.rs"]
mod mixed_jobs;
#[path = "common/net.rs"]
mod net;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::TestRoot;
use common::head::{drain_localhost, node_reaches, register};
use common::processes::{self, Process};
use common::rights::token;
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::Column;
use corkboard::model::resources::Resources;
use keeper::Keeper;
use mixed_jobs::{Kind, USERS, Wanted};
use net::{Random, Server, http_with};
use nix::sys::signal::Signal;
use serde_json::json;

const CONF: &str = "scan_every = 0.3\nconnect_timeout = 1\nrequest_timeout = 4\nunknown_after = 10\nlost_after = 90\n";

/// Most that the nodes may have of a user at a time.
const MOST_CORES: u64 = 9;
const MOST_JOBS: u64 = 14;

/// Longest that something is killed...
const STORM: Duration = Duration::from_secs(15);

/// ...and until everything must have ended after that, whatever else this machine does.
const CALM: Duration = Duration::from_secs(240);

struct Site {
    head: TestRoot,
    nodes: Vec<(Kind, TestRoot)>,
    /// The head's, then the nodes'.
    servers: Vec<Server>,
    pollers: Vec<Keeper>,
}

impl Site {
    fn new() -> Site {
        let head = TestRoot::new(&format!(
            "cores = 1\nmemory = 1 GiB\nmax_cores_per_user = {MOST_CORES}\nmax_jobs_per_user = {MOST_JOBS}\n{CONF}"
        ));
        drain_localhost(&head);
        let mut servers = vec![Server::start(&head.dir)];
        let mut nodes = Vec::new();
        for kind in mixed_jobs::kinds() {
            let node = TestRoot::new(&format!("{}{CONF}", kind.conf));
            let secret = node.cmd("processor", &["tokens", "new", "role=admin", "-q"]).expect(0);
            let server = Server::start(&node.dir);
            let uri = format!("http://127.0.0.1:{}", server.port);
            register(&head, &json!({"name": kind.name, "uri": uri, "token": secret.body.trim()}));
            servers.push(server);
            nodes.push((kind, node));
        }
        let roots = [&head].into_iter().chain(nodes.iter().map(|(_, node)| node));
        let pollers = roots.map(|root| Keeper::new(root, &[&["bin/poller", "-q"]])).collect();
        let mut site = Site { head, nodes, servers, pollers };
        site.tend();
        for (kind, _) in &site.nodes {
            node_reaches(&site.head, kind.name, "connected");
        }
        site
    }

    fn roots(&self) -> impl Iterator<Item = &TestRoot> {
        [&self.head].into_iter().chain(self.nodes.iter().map(|(_, node)| node))
    }

    /// What died comes back.
    fn tend(&mut self) {
        self.servers.iter_mut().for_each(Server::tend);
        self.pollers.iter_mut().for_each(Keeper::tend);
    }

    fn cards(&self, column: Column) -> Vec<u64> {
        let root = Root::open(&self.head.dir).unwrap();
        Cards::new(&root).numbers(column).unwrap()
    }
}

/// Kills one process at random; what it was.
fn kill_one(random: &mut Random, site: &Site) -> Option<&'static str> {
    let kind = match random.below(10) {
        0..=3 => "supervisor",
        4..=6 => "poller",
        7 | 8 => "cgi",
        _ => "server",
    };
    let at = random.below(site.nodes.len() as u64 + 1) as usize;
    let root = site.roots().nth(at)?.dir.clone();
    let all = processes::of_roots(&[root]);
    let fitting: Vec<&Process> =
        all.iter().filter(|process| judged::kind_of(process) == kind).collect();
    random.pick(&fitting)?.signal(Signal::SIGKILL).then_some(kind)
}

/// Submits a user's jobs until all are acknowledged; their numbers.
fn submit(port: u16, token: &str, jobs: &[Wanted]) -> Vec<(u64, Wanted)> {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    mixed_jobs::submit(jobs, STORM + CALM, |body| {
        let answer = http_with(port, "POST", "/scheduler/jobs/new", &headers, body);
        let (code, text) = answer.ok_or("no answer")?;
        assert!(matches!(code, 200 | 201 | 500 | 503), "{code} {text}");
        Ok(text)
    })
}

#[test]
fn mixed_jobs_on_nodes_that_die_have_no_more_than_there_is() {
    let begun = Instant::now();
    let jobs = std::env::var("CORKBOARD_JOBS").map_or(500, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    let mut site = Site::new();
    let witness = site.head.path("witness");
    let all = mixed_jobs::all(&mut random, jobs, &witness, &mixed_jobs::kinds());
    let tokens = USERS.map(|user| token(&site.head, &["role=user", &format!("user={user}")]));
    let port = site.servers[0].port;

    let (known, over) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let (samples, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    let watched: Vec<(Resources, &'static str)> =
        site.nodes.iter().map(|(kind, _)| (kind.total.clone(), kind.name)).collect();
    let dirs: Vec<_> = site.nodes.iter().map(|(_, node)| node.dir.clone()).collect();
    thread::scope(|scope| {
        // Whatever fails here ends the test, and not before the others have ended.
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let mut cores = 0;
                for (dir, (total, name)) in dirs.iter().zip(&watched) {
                    cores += accounts::assert_slots_within(dir, total, name);
                }
                most.fetch_max(cores, Ordering::Relaxed);
                samples.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(15)); // the moment of the next look
            }
        });
        let submitters: Vec<_> = USERS
            .iter()
            .zip(&tokens)
            .filter_map(|(user, token)| Some((*user, token, all.get(user)?)))
            .map(|(user, token, wanted)| {
                let known = &known;
                scope.spawn(move || {
                    for (job, wanted) in submit(port, token, wanted) {
                        let before = known.lock().unwrap().insert(job, (user, wanted));
                        assert!(before.is_none(), "job {job} was given out twice");
                    }
                })
            })
            .collect();
        let is_over = |site: &Site| {
            let left = site.cards(Column::Queue).len() + site.cards(Column::Running).len();
            submitters.iter().all(|one| one.is_finished()) && left == 0
        };
        while begun.elapsed() < STORM && !is_over(&site) && !watch.is_finished() {
            site.tend();
            if let Some(kind) = kill_one(&mut random, &site) {
                *faults.entry(kind).or_default() += 1;
            }
            // Not a wait for anything: the moment of the next kill is random.
            thread::sleep(Duration::from_millis(10 + random.below(90)));
        }
        let stormed = begun.elapsed();
        let calm = Instant::now() + CALM;
        while !is_over(&site) && Instant::now() < calm && !watch.is_finished() {
            site.tend();
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        let left = (site.cards(Column::Queue), site.cards(Column::Running));
        assert!(left.0.is_empty() && left.1.is_empty(), "have not ended: {left:?}");
        println!("faults for {:.1} s: {faults:?}", stormed.as_secs_f64());
    });
    println!("all have ended after {:.1} s", begun.elapsed().as_secs_f64());
    site.pollers.iter_mut().for_each(Keeper::end);

    let known = known.into_inner().unwrap();
    assert_eq!(known.len(), jobs);
    let had = judged::all(&site.head, &known, &witness);
    println!("{samples:?} looks, {most:?} cores in use at most");
    for (user, uses) in &had {
        let cap = Resources::of(MOST_CORES, MOST_JOBS);
        let most = accounts::assert_within(uses, &cap);
        println!("{user}: {} cores and {} jobs at most", most.cores, most.memory);
    }
    for (kind, node) in &site.nodes {
        node.cmd("processor", &["sweep"]).expect(0);
        let uses = accounts::of_node(node);
        let most = accounts::assert_within(&uses, &kind.total);
        println!("{}: {} runs, at most {}", kind.name, uses.len(), most.human());
    }
    for root in site.roots() {
        root.cmd("processor", &["sweep"]).expect(0);
        root.cmd("poller", &["--once", "-q"]).expect(0);
        root.check();
    }
    println!("checked after {:.1} s", begun.elapsed().as_secs_f64());
}
