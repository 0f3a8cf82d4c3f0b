//! A network that loses, repeats, delays, cuts and refuses, processes that are stopped and killed,
//! somebody who forges, and a person's hands, all at once and at random: no attempt runs twice, none runs that its card
//! does not know or says was refused, and everything comes to its end.
//!
//! `CORKBOARD_SEED` repeats a run's choices, `CORKBOARD_JOBS` changes its size.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/keeper.rs"]
mod keeper;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "faults/weather.rs"]
mod weather;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::head::{drain_localhost, node_reaches, register};
use common::{TestRoot, wait_for};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::{Attempt, Card, State};
use corkboard::model::outcome::Cause;
use keeper::Keeper;
use net::{Random, Server};
use proxy::Proxy;
use serde_json::{Value, json};
use weather::Weather;

const CONF: &str = "cores = 3\nmemory = 8 GiB\nscan_every = 0.3\nconnect_timeout = 1\nrequest_timeout = 1.5\nunknown_after = 4\n";

/// Longest that the weather is bad.
const STORM: Duration = Duration::from_secs(25);

/// Until everything must have ended after that.
const CALM: Duration = Duration::from_secs(120);

/// Under which conditions all of it happens.
#[derive(Default)]
struct Conditions {
    /// Not the one who runs the test.
    user: Option<u32>,
    /// Words before each program.
    wrap: Vec<String>,
    /// The head's pollers are rounds from cron, one after the other.
    rounds: bool,
    lost_after: &'static str,
}

struct Site {
    head: TestRoot,
    nodes: Vec<TestRoot>,
    servers: Vec<Server>,
    proxies: Vec<Proxy>,
    /// What somebody who may submit jobs on the nodes, and no more, presents there.
    stranger: Vec<String>,
}

impl Site {
    fn new(conditions: &Conditions) -> Site {
        let root = |more: &str| {
            let mut root = TestRoot::new(&format!("{CONF}{more}"));
            root.wrap = conditions.wrap.clone();
            root.user = conditions.user;
            root.give_to_user();
            root
        };
        let head = root(&format!("lost_after = {}\n", conditions.lost_after));
        drain_localhost(&head);
        let nodes: Vec<TestRoot> = (0..2).map(|_| root("")).collect();
        let (mut servers, mut proxies, mut stranger) = (Vec::new(), Vec::new(), Vec::new());
        for (number, node) in nodes.iter().enumerate() {
            let token = |role: &str| {
                let role = format!("role={role}");
                let made = node.cmd("processor", &["tokens", "new", &role, "-q"]).expect(0);
                made.body.trim().to_string()
            };
            stranger.push(token("user"));
            let server = Server::start_as(&node.dir, &node.wrap, node.user);
            let proxy = Proxy::start(server.port);
            let uri = format!("http://127.0.0.1:{}", proxy.port);
            let name = format!("node{number}");
            register(&head, &json!({"name": name, "uri": uri, "token": token("head")}));
            servers.push(server);
            proxies.push(proxy);
        }
        Site { head, nodes, servers, proxies, stranger }
    }

    fn roots(&self) -> Vec<&TestRoot> {
        std::iter::once(&self.head).chain(&self.nodes).collect()
    }

    /// All that are on the board.
    fn cards(&self) -> Vec<Card> {
        let root = Root::open(&self.head.dir).unwrap();
        let cards = Cards::new(&root);
        let numbers = cards.newest(100_000).unwrap();
        numbers.into_iter().map(|job| cards.find(job).unwrap()).collect()
    }
}

/// A job that notes each run of it.
fn request(random: &mut Random, witness: &str) -> Value {
    let name = "$CORKBOARD_NODEJOB${CORKBOARD_TASK:+/$CORKBOARD_TASK}";
    let note = format!("echo {name} >> {witness}");
    let sleep = random.below(400);
    match random.below(12) {
        0 | 1 => {
            let command = format!("{note}; sleep 0.{:03}", random.below(40));
            let retries = random.below(3);
            json!({"command": command, "array": "0-7", "max_retry_count": retries})
        }
        2 => json!({"command": format!("{note}; exit 5"), "max_retry_count": random.below(2)}),
        3 => {
            json!({"command": format!("{note}; sleep 0.{sleep:03}"), "retry_lost": true, "max_retry_count": 2})
        }
        4..=6 => {
            let command = format!("{note}; sleep 0.{sleep:03}");
            json!({"command": command, "max_retry_count": random.below(3)})
        }
        _ => json!({"command": note}),
    }
}

/// What the users know.
#[derive(Default)]
struct Known {
    jobs: Vec<u64>,
    cancelled: Vec<u64>,
}

/// What a person's commands were and came to, and how often.
type Hands = BTreeMap<String, usize>;

/// Submits a few jobs, and sometimes kills, holds, releases one, gives it another priority, or asks where
/// it is.
fn use_it(
    head: &TestRoot,
    random: &mut Random,
    witness: &str,
    known: &Mutex<Known>,
    hands: &mut Hands,
) {
    for _ in 0..=random.below(3) {
        let body = request(random, witness).to_string();
        // One that was killed on its way has not said whether it was accepted.
        let answer = head.cmd_in("scheduler", &["jobs", "new", "-q"], &body);
        if answer.code == 0 {
            known.lock().unwrap().jobs.push(answer.body.trim().parse().unwrap());
        }
    }
    let jobs = known.lock().unwrap().jobs.clone();
    let recent = &jobs[jobs.len().saturating_sub(30)..];
    if let Some(job) = random.pick(recent).filter(|_| random.below(2) == 0) {
        let mut words = vec!["jobs".to_string(), job.to_string(), "update".into()];
        match random.below(12) {
            0 | 1 => {
                known.lock().unwrap().cancelled.push(*job);
                words.push("kill=1".into());
                if random.below(3) == 0 {
                    words.push(format!("task={}", random.below(8))); // refused of a plain job
                }
            }
            2 | 3 => words.push("hold=1".into()),
            4..=7 => words.push("release=1".into()),
            8 | 9 => words.push(format!("priority={}", random.below(9))),
            _ => {} // asks the nodes
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = head.cmd("scheduler", &words);
        let known = [0, 1, 75, -1]; // done, not in this state, try again, killed by the weather
        assert!(known.contains(&answer.code), "{words:?}: {answer:?}");
        let said = answer.stderr.trim_end();
        *hands.entry(format!("{} {}", words[3..].join(" "), answer.code)).or_default() += 1;
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}

/// Files of the head's board.
fn cards(head: &Path, column: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(head.join("state/scheduler").join(column)).unwrap().map(Result::unwrap)
}

fn storm(conditions: &Conditions) {
    let begun = Instant::now();
    let count: usize = std::env::var("CORKBOARD_JOBS").map_or(150, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    let mut site = Site::new(conditions);
    let stays = [&["bin/poller", "-q"][..]; 2];
    let of_head = if conditions.rounds { [&["bin/poller", "-q", "--once"][..]; 2] } else { stays };
    let keep = |(number, root)| Keeper::new(root, if number == 0 { &of_head } else { &stays[..1] });
    let mut pollers: Vec<Keeper> = site.roots().into_iter().enumerate().map(keep).collect();
    pollers.iter_mut().for_each(Keeper::tend);
    for number in 0..site.nodes.len() {
        node_reaches(&site.head, &format!("node{number}"), "connected");
    }
    let witness = site.head.path("witness");
    fs::write(&witness, "").unwrap();
    site.head.give_to_user();
    let witness = witness.display().to_string();

    let mut weather = Weather::new(Random(random.next()));
    let known = Mutex::new(Known::default());
    let roots: Vec<PathBuf> = site.roots().into_iter().map(|root| root.dir.clone()).collect();
    let Site { head, servers, proxies, stranger, .. } = &mut site;
    thread::scope(|scope| {
        // Apart from the weather, since what it stops may be a command that is waited for.
        let user = scope.spawn(|| {
            let mut hands = Hands::new();
            while begun.elapsed() < STORM && known.lock().unwrap().jobs.len() < count {
                use_it(head, &mut random, &witness, &known, &mut hands);
                thread::sleep(Duration::from_millis(random.below(40))); // at random moments
            }
            println!("the hands: {hands:?}");
        });
        while begun.elapsed() < STORM {
            let newest = known.lock().unwrap().jobs.last().copied().unwrap_or(1);
            weather.network(proxies);
            weather.forge(servers, stranger, newest, &roots[0]);
            weather.processes(&roots, servers);
            servers.iter_mut().for_each(Server::tend);
            pollers.iter_mut().for_each(Keeper::tend);
            let over = user.is_finished()
                && cards(&roots[0], "queue").chain(cards(&roots[0], "running")).next().is_none();
            if over {
                break;
            }
            // Not a wait for anything: the moment of the next fault is random.
            thread::sleep(Duration::from_millis(5 + weather.random.below(40)));
        }
        weather.clear_up(proxies);
        user.join().unwrap();
    });
    let Known { jobs, cancelled } = known.into_inner().unwrap();
    println!("the weather: {:?}", weather.counts);

    let cards = wait_for(CALM, || {
        site.servers.iter_mut().for_each(Server::tend);
        pollers.iter_mut().for_each(Keeper::tend);
        let cards = site.cards();
        let open: Vec<String> = cards
            .iter()
            .filter(|card| card.state != State::Stopped)
            .inspect(|card| {
                if card.state == State::Held || card.tasks.held {
                    site.head.update(card.job(), "release=1");
                }
            })
            .map(|card| format!("job {}: {:?} {:?}", card.job(), card.state, card.events.last()))
            .collect();
        if open.is_empty() { Ok(cards) } else { Err(open.join("\n")) }
    });
    // What was held back all the time comes now.
    let late: usize = site.proxies.iter().map(|proxy| proxy.deliver_held().len()).sum();
    wait_for(CALM, || {
        let busy = |node: &TestRoot| {
            let waiting = fs::read_dir(node.path("state/processor/queue")).unwrap().count();
            waiting > 0 || !node.supervisors().is_empty()
        };
        if site.nodes.iter().any(busy) { Err("a node is at work".into()) } else { Ok(()) }
    });
    wait_for(CALM, || {
        let owed: Vec<Value> = (0..site.nodes.len())
            .map(|n| site.head.cmd("scheduler", &["nodes", &format!("node{n}")]).json())
            .filter(|node| node["given_up"] != Value::Null)
            .collect();
        if owed.is_empty() { Ok(()) } else { Err(format!("{owed:?}")) }
    });
    pollers.iter_mut().for_each(Keeper::end);

    let mut ran: HashMap<String, usize> = HashMap::new();
    let text = fs::read_to_string(&witness).unwrap();
    text.lines().for_each(|line| *ran.entry(line.to_string()).or_default() += 1);
    let twice: Vec<_> = ran.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?} ran twice");
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    let numbers: HashSet<u64> = cards.iter().map(Card::job).collect();
    let missing: Vec<_> = jobs.iter().filter(|job| !numbers.contains(job)).collect();
    assert!(missing.is_empty(), "{missing:?} were acknowledged and are gone");
    for card in &cards {
        judge(card, cancelled.contains(&card.job()), &ran);
        *causes.entry(format!("{:?}", card.outcome.as_ref().unwrap().cause)).or_default() += 1;
    }
    let attempts: Vec<&Attempt> = cards.iter().flat_map(|card| &card.attempts).collect();
    for id in ran.keys() {
        let attempt = id.split('/').next().unwrap_or_default();
        let known = attempts.iter().any(|known| **known.nodejob == *attempt);
        assert!(known, "{id} ran and is on no card");
    }
    println!(
        "{} jobs, {} attempts, {} runs, {late} requests came at the very end; ends {causes:?}; {:.0} s",
        jobs.len(),
        attempts.len(),
        ran.len(),
        begun.elapsed().as_secs_f64()
    );
    for root in site.roots() {
        root.cmd("processor", &["sweep"]).expect(0);
        root.check();
    }
}

/// The story of a card against what ran.
fn judge(card: &Card, cancelled: bool, ran: &HashMap<String, usize>) {
    let job = card.job();
    let of = |attempt: &Attempt, task: Option<u32>| {
        let name = match task {
            Some(task) => format!("{}/{task}", attempt.nodejob),
            None => attempt.nodejob.to_string(),
        };
        ran.get(&name).copied().unwrap_or(0)
    };
    for attempt in card.attempts.iter().filter(|attempt| attempt.refused.is_some()) {
        let prefix = format!("{}/", attempt.nodejob);
        let any = ran.keys().find(|id| **id == **attempt.nodejob || id.starts_with(&prefix));
        assert_eq!(any, None, "job {job}: it was refused and ran: {attempt:?}");
    }
    let end = card.outcome.as_ref().unwrap();
    if let Some(array) = card.array() {
        for task in array.spec.tasks.iter() {
            let end = array.outcome_of(task).unwrap();
            let runs: usize = card.attempts.iter().map(|attempt| of(attempt, Some(task))).sum();
            let most = array.retries_of(task) as usize + 1;
            assert!(runs <= most, "job {job} task {task}: {runs} runs, {most} allowed: {end:?}");
            match end.cause {
                Cause::Exit => assert!(runs > 0, "job {job} task {task} ended, and never ran"),
                Cause::Killed => assert!(cancelled, "job {job} task {task}: nobody killed it"),
                _ => {}
            }
        }
        return;
    }
    let retries = card.tasks.most_retries();
    assert!(retries <= card.spec.max_retry_count, "job {job}: {retries} retries");
    for (index, attempt) in card.attempts.iter().enumerate() {
        let Some(outcome) = &attempt.outcome else {
            assert!(attempt.refused.is_some(), "job {job}: {attempt:?} has no end");
            continue;
        };
        match outcome.cause {
            Cause::Exit => assert_eq!(of(attempt, None), 1, "job {job}: {attempt:?}"),
            Cause::Killed => assert!(cancelled, "job {job}: nobody killed it: {outcome:?}"),
            _ => {}
        }
        let is_last = index + 1 == card.attempts.len();
        assert!(is_last || outcome.code != Some(0), "job {job}: repeated after a good end");
    }
    if end.cause == Cause::Killed {
        assert!(cancelled, "job {job}: nobody killed it: {end:?}");
    }
}

#[test]
fn in_any_weather_nothing_runs_twice_and_all_comes_to_its_end() {
    storm(&Conditions { lost_after: "60s", ..Conditions::default() });
}

#[test]
fn nodes_that_are_given_up_run_nothing_twice() {
    storm(&Conditions { lost_after: "2s", ..Conditions::default() });
}

#[test]
fn another_user_lives_in_the_same_weather() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run programs as another user");
        return;
    }
    let user = Some(61_234);
    storm(&Conditions { user, lost_after: "60s", ..Conditions::default() });
}

#[test]
fn few_descriptors_lose_nothing() {
    let wrap = ["prlimit", "--nofile=20:20"].map(String::from).to_vec();
    storm(&Conditions { wrap, lost_after: "60s", ..Conditions::default() });
}

#[test]
fn without_inotify_all_comes_to_its_end() {
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let wrap = ["unshare", "--user", "--map-root-user", "sh", "-c", script];
    let wrap = wrap.map(String::from).to_vec();
    storm(&Conditions { wrap, lost_after: "60s", ..Conditions::default() });
}

#[test]
fn rounds_from_cron_live_in_the_same_weather() {
    storm(&Conditions { rounds: true, lost_after: "60s", ..Conditions::default() });
}
