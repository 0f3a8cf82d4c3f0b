//! Four hosts with networks of their own: a head, a node, and two workers behind routers that translate addresses, so
//! that nothing can dial them. While jobs of mixed needs run, links are cut both ways and one way, delayed and healed, and
//! programs are killed on every host and come back in any order: what was acknowledged comes to its end, nothing runs
//! twice, and at no moment more is in use than there is.
//!
//! `CORKBOARD_SEED` repeats a run's choices, `CORKBOARD_JOBS` changes its size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "faults/accounts.rs"]
mod accounts;
mod common;
#[path = "faults/hosts.rs"]
mod hosts;
#[path = "faults/judged.rs"]
mod judged;
#[path = "common/keeper.rs"]
mod keeper;
#[path = "faults/mixed_jobs.rs"]
mod mixed_jobs;
#[path = "common/net.rs"]
mod net;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::head::{drain_localhost, node_reaches, register};
use common::rights::token;
use common::{TestRoot, feed, processes, wait_for};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::Column;
use hosts::{Cut, Host, Link, Nat};
use keeper::Keeper;
use mixed_jobs::{Kind, Wanted};
use net::{Random, Server};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use serde_json::json;

const CONF: &str = "scan_every = 0.3\nconnect_timeout = 1\nrequest_timeout = 4\nunknown_after = 10\nlost_after = 90\nping_timer = 500ms\nsilence_timeout = 2s\n";

/// The port of each server, on a host of its own.
const PORT: u16 = 8080;

/// Longest that links and programs fail...
const STORM: Duration = Duration::from_secs(20);

/// ...and until everything must have ended after that.
const CALM: Duration = Duration::from_secs(240);

/// The hosts, with the routers before the workers.
struct Net {
    head: Host,
    node: Host,
    routers: [Host; 2],
    laps: [Host; 2],
}

impl Net {
    fn new() -> Result<Net, String> {
        let host = Host::new;
        Ok(Net {
            head: host()?,
            node: host()?,
            routers: [host()?, host()?],
            laps: [host()?, host()?],
        })
    }

    /// Network 1 leads to the node, 2 and 3 to the routers, 4 and 5 from those to the workers.
    fn links(&self) -> Vec<Link<'_>> {
        let outer =
            (2..).zip(&self.routers).map(|(net, router)| Link::new(net, &self.head, router));
        let behind = self.routers.iter().zip(&self.laps);
        let inner = (4..).zip(behind).map(|(net, (router, lap))| Link::new(net, router, lap));
        [Link::new(1, &self.head, &self.node)].into_iter().chain(outer).chain(inner).collect()
    }

    /// What is said to a router's inner address goes on to the head.
    fn translate(&self) -> Vec<Nat> {
        let start = |(number, router): (u8, &Host)| {
            let inner = ([10, 77, 4 + number, 1], PORT).into();
            Nat::start(router, inner, ([10, 77, 2 + number, 1], PORT).into())
        };
        (0..).zip(&self.routers).map(start).collect()
    }
}

/// What runs on the hosts.
struct Site {
    head: TestRoot,
    /// The node's, then the workers'.
    nodes: Vec<(Kind, TestRoot)>,
    servers: Vec<Server>,
    programs: Vec<Keeper>,
}

impl Site {
    fn new(net: &Net) -> Site {
        let root = |host: &Host, conf: &str| {
            let mut root = TestRoot::new(&format!("{conf}{CONF}"));
            root.wrap = host.wrap();
            root
        };
        let head = root(&net.head, "");
        drain_localhost(&head);
        let hosts = [&net.node].into_iter().chain(&net.laps);
        let nodes: Vec<(Kind, TestRoot)> = kinds()
            .into_iter()
            .zip(hosts)
            .map(|(kind, host)| {
                let root = root(host, kind.conf);
                (kind, root)
            })
            .collect();
        let (kind, node) = &nodes[0];
        let secret = node.cmd("processor", &["tokens", "new", "role=admin", "-q"]).expect(0);
        let uri = format!("http://10.77.1.2:{PORT}");
        register(&head, &json!({"name": kind.name, "uri": uri, "token": secret.body.trim()}));
        let servers = vec![
            Server::on(&head.dir, &head.wrap, "0.0.0.0", PORT),
            Server::on(&node.dir, &node.wrap, "0.0.0.0", PORT),
        ];
        let poller: &[&str] = &["bin/poller", "-q"];
        let mut programs = vec![Keeper::new(&head, &[poller]), Keeper::new(node, &[poller])];
        for (number, (kind, lap)) in (0..).zip(&nodes[1..]) {
            lap.write("token", &token(&head, &["role=join", &format!("node={}", kind.name)]));
            let url = format!("http://10.77.{}.1:{PORT}/cgi-bin", 4 + number);
            let file = lap.path("token").display().to_string();
            let words = ["bin/worker", "--head", &url, "--token-file", &file, "--name", kind.name];
            programs.push(Keeper::new(lap, &[&words]));
        }
        let mut site = Site { head, nodes, servers, programs };
        for kind in kinds() {
            wait_for(CALM, || {
                site.tend();
                let node = site.head.cmd("scheduler", &["nodes", kind.name]);
                if node.body.contains("\"connected\"") { Ok(()) } else { Err(format!("{node:?}")) }
            });
        }
        site
    }

    fn roots(&self) -> impl Iterator<Item = &TestRoot> {
        [&self.head].into_iter().chain(self.nodes.iter().map(|(_, node)| node))
    }

    /// What died comes back.
    fn tend(&mut self) {
        self.servers.iter_mut().for_each(Server::tend);
        self.programs.iter_mut().for_each(Keeper::tend);
    }

    fn count(&self, column: Column) -> usize {
        let root = Root::open(&self.head.dir).unwrap();
        Cards::new(&root).numbers(column).unwrap().len()
    }

    /// Kills one process at random; what it was.
    fn kill_one(&self, random: &mut Random) -> Option<&'static str> {
        let kind = match random.below(10) {
            0..=2 => "supervisor",
            3 | 4 => "poller",
            5 | 6 => "worker",
            7 | 8 => "cgi",
            _ => "server",
        };
        let all =
            processes::of_roots(&self.roots().map(|root| root.dir.clone()).collect::<Vec<_>>());
        let of_kind = |process: &&processes::Process| judged::kind_of(process) == kind;
        let fitting: Vec<_> = all.iter().filter(of_kind).collect();
        random.pick(&fitting)?.signal(Signal::SIGKILL).then_some(kind)
    }
}

/// The node, and the two workers.
fn kinds() -> Vec<Kind> {
    mixed_jobs::kinds().into_iter().filter(|kind| kind.name != "two").collect()
}

/// What is wrong with the links now, and until when.
struct Weather<'a> {
    links: &'a [Link<'a>],
    nats: &'a [Nat],
    cuts: Vec<(Instant, usize, Cut)>,
    counts: BTreeMap<String, usize>,
}

impl Weather<'_> {
    fn change(&mut self, random: &mut Random) {
        let links = self.links;
        self.cuts.retain(|(until, link, cut)| {
            let is_over = *until <= Instant::now();
            if is_over {
                links[*link].heal(*cut);
            }
            !is_over
        });
        let delay = random.pick(&[0, 0, 0, 5, 50, 300]).copied().unwrap_or(0);
        let nat = random.below(self.nats.len() as u64) as usize;
        self.nats[nat].delay(Duration::from_millis(delay));
        let link = random.below(links.len() as u64) as usize;
        if random.below(4) > 0 || self.cuts.iter().any(|(_, cut, _)| *cut == link) {
            return;
        }
        let cut = *random.pick(&[Cut::Both, Cut::Up, Cut::Down]).unwrap();
        let long = *random.pick(&[100, 400, 1000, 4000]).unwrap();
        links[link].cut(cut);
        self.cuts.push((Instant::now() + Duration::from_millis(long), link, cut));
        *self.counts.entry(format!("{cut:?} for {long} ms")).or_default() += 1;
    }

    fn clear_up(&mut self) {
        for (_, link, cut) in self.cuts.drain(..) {
            self.links[link].heal(cut);
        }
        self.nats.iter().for_each(|nat| nat.delay(Duration::ZERO));
    }
}

/// Submits jobs at the head until all are acknowledged; their numbers.
fn submit(head: &Path, jobs: &[Wanted]) -> Vec<(u64, Wanted)> {
    mixed_jobs::submit(jobs, STORM + CALM, |body| {
        let mut command = Command::new(head.join("cgi-bin/scheduler"));
        command.args(["jobs", "new"]).env_clear().env("CORKBOARD_ROOT", head);
        let answer = feed(&mut command, body.as_bytes());
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        if text.is_empty() { Err(format!("{answer:?}")) } else { Ok(text) }
    })
}

#[test]
fn workers_that_nobody_can_dial_lose_nothing_and_run_nothing_twice() {
    let net = match Net::new() {
        Ok(net) => net,
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "this test is needed, and {why}");
            println!("SKIPPED, nothing is shown: {why} (it takes root, and ip of iproute2)");
            return;
        }
    };
    let begun = Instant::now();
    let count = std::env::var("CORKBOARD_JOBS").map_or(500, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    let (links, nats) = (net.links(), net.translate());
    let dialled = ["10.77.1.2", "10.77.4.2", "10.77.5.2"].map(|one| net.head.has_route_to(one));
    assert_eq!(dialled, [true, false, false]);
    let mut site = Site::new(&net);
    println!("all are connected after {:.1} s", begun.elapsed().as_secs_f64());
    let witness = site.head.path("witness");
    let mut jobs: Vec<Wanted> = Vec::new();
    for number in 0..count {
        jobs.push(mixed_jobs::wanted(&mut random, number, &witness, &kinds()));
    }
    let user = User::from_uid(geteuid()).unwrap().unwrap().name;

    let mut known: BTreeMap<u64, (&str, Wanted)> = BTreeMap::new();
    let over = AtomicBool::new(false);
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    let mut weather =
        Weather { links: &links, nats: &nats, cuts: Vec::new(), counts: BTreeMap::new() };
    let watched: Vec<_> = site
        .nodes
        .iter()
        .map(|(kind, node)| (node.dir.clone(), kind.total.clone(), kind.name))
        .collect();
    let dir = site.head.dir.clone();
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (dir, total, name) in &watched {
                    accounts::assert_slots_within(dir, total, name);
                }
                thread::sleep(Duration::from_millis(15)); // the moment of the next look
            }
        });
        let submitter = scope.spawn(|| submit(&dir, &jobs));
        let calm = Instant::now() + STORM;
        while Instant::now() < calm && !watch.is_finished() {
            site.tend();
            weather.change(&mut random);
            if let Some(kind) = site.kill_one(&mut random) {
                *faults.entry(kind).or_default() += 1;
            }
            // Not a wait for anything: the moment of the next fault is random.
            thread::sleep(Duration::from_millis(10 + random.below(140)));
        }
        weather.clear_up();
        println!("faults: {faults:?}, {:?}", weather.counts);
        let calm = Instant::now() + CALM;
        let is_over = |site: &Site| {
            site.count(Column::Queue) + site.count(Column::Running) == 0 && submitter.is_finished()
        };
        while !is_over(&site) && Instant::now() < calm && !watch.is_finished() {
            site.tend();
            thread::sleep(Duration::from_millis(50)); // not busily
        }
        let is_over = is_over(&site);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        let all = site.head.cmd("scheduler", &["jobs", "--state", "queued,placed,running"]);
        assert!(is_over, "have not ended: {all:?}");
        for (job, wanted) in submitter.join().unwrap() {
            let before = known.insert(job, (&user, wanted));
            assert!(before.is_none(), "job {job} was given out twice");
        }
    });
    println!("all have ended after {:.1} s", begun.elapsed().as_secs_f64());
    assert_eq!(known.len(), count);
    // What is over is told, acknowledged and forgotten by those that ran it.
    for kind in kinds() {
        node_reaches(&site.head, kind.name, "connected");
    }
    site.programs.iter_mut().for_each(Keeper::end);
    judged::all(&site.head, &known, &witness);
    for (kind, node) in &site.nodes {
        node.cmd("processor", &["sweep"]).expect(0);
        let uses = accounts::of_node(node);
        let most = accounts::assert_within(&uses, &kind.total);
        println!("{}: {} runs, at most {}", kind.name, uses.len(), most.human());
    }
    for root in site.roots() {
        root.cmd("processor", &["sweep"]).expect(0);
        root.check();
    }
    println!("checked after {:.1} s", begun.elapsed().as_secs_f64());
}
