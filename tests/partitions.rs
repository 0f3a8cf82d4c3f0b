//! A network between head and node that loses, repeats, holds back and cuts: an attempt runs at
//! most once, its result arrives once, what was given up is found out about.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{SOON, TestRoot, lives, signal, until, wait_for};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::{Card, State, What};
use corkboard::model::outcome::Cause;
use net::{Random, Server};
use proxy::{Act, Proxy};
use serde_json::{Value, json};

const NEW: &str = "POST /cgi-bin/processor/jobs/new";
const KILL: &str = "/kill";
const ACK: &str = "POST /cgi-bin/processor/jobs/ack";
const STATUS: &str = "GET /cgi-bin/processor/jobs/status?ids=";
const FEED: &str = "/processor/events?since=";

const OFTEN: usize = 1_000_000;

/// A head whose only open node is behind a proxy.
struct Cluster {
    head: TestRoot,
    node: TestRoot,
    server: Server,
    proxy: Proxy,
    /// The head's, then the node's.
    pollers: [Option<Child>; 2],
}

impl Cluster {
    fn new(lost_after: &str) -> Cluster {
        let conf = format!(
            "cores = 2\nmemory = 4 GiB\nscan_every = 0.2\nconnect_timeout = 1\nrequest_timeout = 2\nunknown_after = 1\nlost_after = {lost_after}\n"
        );
        let (head, node) = (TestRoot::new(&conf), TestRoot::new(&conf));
        head.open();
        node.open();
        let server = Server::start(&node.dir);
        let proxy = Proxy::start(server.port);
        head.cmd_in("scheduler", &["nodes", "localhost", "update"], r#"{"drain": true}"#).expect(0);
        let uri = format!("http://127.0.0.1:{}", proxy.port);
        let record = json!({"name": "far", "uri": uri}).to_string();
        head.cmd_in("scheduler", &["nodes", "new"], &record).expect(0);
        let pollers = [Some(head.start("poller", &["-q"])), Some(node.start("poller", &["-q"]))];
        let cluster = Cluster { head, node, server, proxy, pollers };
        cluster.until_node("connected");
        cluster
    }

    fn until_node(&self, state: &str) {
        wait_for(SOON, || {
            let node = self.far();
            if node["state"] == state { Ok(()) } else { Err(node.to_string()) }
        });
    }

    fn far(&self) -> Value {
        self.head.cmd("scheduler", &["nodes", "far"]).expect(0).json()
    }

    /// Submits a job that notes its attempt, then does this.
    fn submit(&self, then: &str, more: Value) -> u64 {
        let note = format!("echo $CORKBOARD_NODEJOB >> {}", self.path("witness"));
        let mut request = json!({"command": format!("{note}; {then}")});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.head.cmd_in("scheduler", &["jobs", "new", "-q"], &request.to_string());
        answer.expect(0).body.trim().parse().unwrap()
    }

    /// A job that runs until [`Cluster::go`].
    fn submit_waiting(&self, more: Value) -> u64 {
        let job =
            self.submit(&format!("until [ -e {} ]; do sleep 0.02; done", self.path("go")), more);
        self.until(job, |card| card.state == State::Running);
        job
    }

    fn go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.head.path(name).display().to_string()
    }

    fn card(&self, job: u64) -> Card {
        let root = Root::open(&self.head.dir).unwrap();
        Cards::new(&root).find(job).unwrap()
    }

    fn until(&self, job: u64, is_so: impl Fn(&Card) -> bool) -> Card {
        wait_for(SOON, || {
            let card = self.card(job);
            if is_so(&card) { Ok(card) } else { Err(format!("{:?} {:?}", card.state, card.events)) }
        })
    }

    fn ended(&self, job: u64) -> Card {
        self.until(job, |card| card.state == State::Stopped)
    }

    fn kill(&self, job: u64) {
        self.head.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1"]).expect(0);
    }

    /// The attempts that ran, in order.
    fn ran(&self) -> Vec<String> {
        self.head.read("witness").lines().map(str::to_string).collect()
    }

    /// Waits until nothing is left to do on the node: what was wrongly accepted has run, too.
    fn until_node_is_idle(&self) {
        wait_for(SOON, || {
            // What is claimed leaves the queue once its supervisor's slot names it.
            let queue = fs::read_dir(self.node.path("state/processor/queue")).unwrap();
            let (waiting, busy) = (queue.count(), self.node.supervisors());
            let idle = waiting == 0 && busy.is_empty();
            if idle { Ok(()) } else { Err(format!("{waiting} wait, {busy:?} are at work")) }
        });
    }

    /// The job ended well, in one attempt that ran once and was reported once.
    fn assert_ran_once(&self, job: u64) {
        let card = self.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0), "{card:?}");
        assert_eq!(card.attempts.len(), 1, "{card:?}");
        let ends = card.events.iter().filter(|e| matches!(e.what, What::Stopped { .. })).count();
        assert_eq!((ends, lates(&card).len()), (1, 0), "{card:?}");
        let id = &card.attempts[0].nodejob;
        assert_eq!(self.ran().iter().filter(|ran| *ran == id).count(), 1, "{:?}", self.ran());
    }

    fn poller(&mut self, which: usize, signal_name: &str) {
        let child = self.pollers[which].as_mut().unwrap();
        signal(child.id() as i32, signal_name);
        if signal_name == "KILL" {
            child.wait().unwrap();
            self.pollers[which] = None;
        }
    }

    fn restart_poller(&mut self, which: usize) {
        self.poller(which, "KILL");
        let root = if which == 0 { &self.head } else { &self.node };
        self.pollers[which] = Some(root.start("poller", &["-q"]));
    }

    /// Both boards are in order, nothing is owed, and no program is left.
    fn assert_clean(&self) {
        until("nothing is owed", || self.far()["given_up"] == Value::Null);
        for root in [&self.head, &self.node] {
            for program in ["scheduler", "processor"] {
                let answer = root.cmd(program, &["check"]);
                assert_eq!((answer.code, answer.body.as_str()), (0, ""), "{program}: {answer:?}");
            }
        }
        println!("{:?}; {} runs", self.proxy.acts(), self.ran().len());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.pollers.iter_mut().flatten() {
            signal(child.id() as i32, "CONT");
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `late` lines: attempt and cause.
fn lates(card: &Card) -> Vec<(u32, Cause)> {
    let late = |what: &What| match what {
        What::Late { attempt, outcome } => Some((*attempt, outcome.cause)),
        _ => None,
    };
    card.events.iter().filter_map(|event| late(&event.what)).collect()
}

fn cause(card: &Card) -> Cause {
    card.outcome.as_ref().unwrap().cause
}

#[test]
fn the_reply_to_a_start_is_lost() {
    for act in [Act::LoseReply, Act::SwallowReply] {
        let cluster = Cluster::new("60s");
        cluster.proxy.rule(NEW, act, 2);
        let job = cluster.submit("true", json!({}));
        cluster.assert_ran_once(job);
        // It is not closed for long: it answers other questions.
        let next = cluster.submit("true", json!({}));
        cluster.assert_ran_once(next);
        cluster.assert_clean();
    }
}

#[test]
fn a_start_is_lost_on_its_way() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Lose, 3);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_start_arrives_twice_and_again_long_after() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Twice, 1);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    until("the result is acknowledged", || cluster.proxy.count(ACK) > 0);
    let again = cluster.proxy.deliver(&cluster.proxy.last(NEW));
    assert!(again.contains(r#""state":"stopped""#), "{again}");
    cluster.until_node_is_idle();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_start_that_is_held_back_comes_after_the_job_was_cancelled() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(NEW, Act::Hold, OFTEN);
    let job = cluster.submit("true", json!({}));
    until("it is under way", || cluster.proxy.count(NEW) > 0);
    cluster.kill(job);
    assert_eq!(cause(&cluster.ended(job)), Cause::Killed);
    cluster.proxy.clear();
    for reply in cluster.proxy.deliver_held() {
        assert!(reply.contains("410"), "{reply}");
    }
    cluster.until_node_is_idle();
    assert_eq!(cluster.ran(), [""; 0]);
    cluster.assert_clean();
}

#[test]
fn a_start_that_is_held_back_comes_after_the_node_was_given_up() {
    let cluster = Cluster::new("1s");
    cluster.proxy.rule(NEW, Act::Hold, OFTEN);
    let lost = cluster.submit("true", json!({}));
    let killed = cluster.submit("true", json!({}));
    until("they are under way", || cluster.card(killed).state == State::Placed);
    until("they are under way", || cluster.proxy.count(NEW) > 0);
    cluster.proxy.cut();
    cluster.kill(killed);
    assert_eq!(cause(&cluster.ended(lost)), Cause::Lost);
    assert_eq!(cause(&cluster.ended(killed)), Cause::Killed);
    cluster.proxy.clear();
    cluster.proxy.heal();
    until("both are forbidden to start", || cluster.far()["given_up"] == Value::Null);
    for reply in cluster.proxy.deliver_held() {
        assert!(reply.contains("410"), "{reply}");
    }
    cluster.until_node_is_idle();
    assert_eq!(cluster.ran(), [""; 0]);
    cluster.assert_clean();
}

#[test]
fn a_node_answers_after_it_was_given_up() {
    let mut cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    let card = cluster.ended(job);
    assert_eq!(cause(&card), Cause::Lost);
    cluster.go();
    cluster.node.ended(&card.attempts[0].nodejob);
    cluster.restart_poller(0);
    cluster.proxy.heal();
    let after = cluster.until(job, |card| !lates(card).is_empty());
    assert_eq!(lates(&after), [(1, Cause::Exit)]);
    assert_eq!((cause(&after), after.attempts.len()), (Cause::Lost, 1));
    cluster.assert_clean();
    assert_eq!(cluster.card(job).events.len(), after.events.len());
    assert_eq!(cluster.ran().len(), 1);
}

#[test]
fn a_stale_attempt_is_killed_when_its_node_answers() {
    for restart in [false, true] {
        let mut cluster = Cluster::new("1s");
        let job = cluster.submit_waiting(json!({"retry_lost": true, "max_retry_count": 1}));
        let first = cluster.card(job).attempts[0].clone();
        cluster.proxy.cut();
        cluster.head.cmd_in("scheduler", &["nodes", "localhost", "update"], r#"{"drain": null}"#);
        let card = cluster.until(job, |c| c.attempts.len() == 2 && c.state == State::Running);
        assert_eq!(card.attempts[1].node, "localhost");
        assert!(lives(first.pid.unwrap()));
        if restart {
            cluster.restart_poller(0);
        }
        cluster.proxy.heal();
        assert_eq!(cluster.node.ended(&first.nodejob)["cause"], "killed");
        assert!(!lives(first.pid.unwrap()));
        let kills = cluster.proxy.count(KILL);
        assert!(kills < 20, "{kills} requests to kill one job");
        cluster.go();
        let card = cluster.ended(job);
        assert_eq!(card.outcome.as_ref().unwrap().code, Some(0));
        let card = cluster.until(job, |card| !lates(card).is_empty());
        assert_eq!(lates(&card), [(1, Cause::Killed)], "{card:?}");
        assert_eq!(cluster.ran().len(), 2);
        cluster.assert_clean();
    }
}

/// It refuses one request before it has read all of it, and is there for every other.
#[test]
fn a_node_breaks_off_a_request() {
    let cluster = Cluster::new("60s");
    let since = cluster.far()["since"].clone();
    assert!(since.is_string(), "{since}");
    cluster.proxy.rule(NEW, Act::BreakOff, 3);
    // More than the connection holds while nobody reads.
    let job = cluster.submit("true", json!({"stdin": "x".repeat(1 << 20)}));
    cluster.assert_ran_once(job);
    assert_eq!(cluster.proxy.acts()["BreakOff"], 3);
    assert_eq!(cluster.far()["since"], since, "it was taken for one that does not answer");
    cluster.assert_clean();
}

#[test]
fn replies_of_the_feed_are_lost() {
    let cluster = Cluster::new("60s");
    for act in [Act::LoseReply, Act::CutReply(100), Act::Lose] {
        cluster.proxy.rule(FEED, act, 3);
    }
    let jobs: Vec<u64> = (0..12).map(|_| cluster.submit("sleep 0.1", json!({}))).collect();
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    cluster.assert_clean();
}

#[test]
fn acknowledgements_are_lost() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule(ACK, Act::Lose, OFTEN);
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    until("it was tried", || cluster.proxy.count(ACK) > 0);
    let id = &cluster.card(job).attempts[0].nodejob;
    let story = cluster.node.path(&format!("state/processor/job/{id}/status"));
    assert_eq!(fs::metadata(story).unwrap().permissions().mode() & 0o777, 0o640);
    // When all that comes with the next one's end has happened, so has what the loss may cause.
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    until("it was tried for the next one", || cluster.proxy.count(ACK) > 1);
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_kill_or_its_reply_is_lost() {
    for act in [Act::LoseReply, Act::Lose, Act::Twice, Act::Cut(30)] {
        let cluster = Cluster::new("60s");
        let job = cluster.submit_waiting(json!({}));
        let pid = cluster.card(job).attempts[0].pid.unwrap();
        cluster.proxy.rule(KILL, act, 2);
        cluster.kill(job);
        let card = cluster.ended(job);
        assert_eq!((cause(&card), card.attempts.len()), (Cause::Killed, 1), "{act:?}");
        assert!(!lives(pid));
        cluster.assert_clean();
    }
}

#[test]
fn orders_are_lost_while_questions_are_answered() {
    let cluster = Cluster::new("60s");
    cluster.proxy.rule("POST ", Act::Lose, OFTEN);
    let job = cluster.submit("true", json!({}));
    until("it was tried", || cluster.proxy.count(NEW) > 0);
    let (tried, asked) = (cluster.proxy.count(NEW), cluster.proxy.count("processor/"));
    let begun = Instant::now();
    until("it was tried again and again", || cluster.proxy.count(NEW) >= tried + 3);
    let asked = cluster.proxy.count("processor/") - asked;
    let a_second = asked as f64 / begun.elapsed().as_secs_f64();
    assert!(a_second < 15.0, "{a_second:.1} requests a second about one job");
    assert_eq!(cluster.card(job).state, State::Placed);
    cluster.proxy.clear();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn requests_arrive_and_no_reply_does() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.rule("", Act::LoseReply, OFTEN);
    cluster.proxy.cut();
    cluster.proxy.heal();
    cluster.go();
    cluster.node.ended(&cluster.card(job).attempts[0].nodejob);
    cluster.until_node("disconnected");
    assert_ne!(cluster.card(job).state, State::Stopped);
    cluster.proxy.clear();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn cancelled_while_the_node_cannot_be_reached() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    let pid = cluster.card(job).attempts[0].pid.unwrap();
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.kill(job);
    let before = cluster.proxy.refused();
    until("it was tried again and again", || cluster.proxy.refused() >= before + 3);
    assert_eq!(cluster.card(job).state, State::Stopping);
    cluster.proxy.heal();
    assert_eq!(cause(&cluster.ended(job)), Cause::Killed);
    assert!(!lives(pid));
    cluster.assert_clean();
}

#[test]
fn cancelled_while_the_node_cannot_be_reached_for_long() {
    let cluster = Cluster::new("1s");
    let job = cluster.submit_waiting(json!({"retry_lost": true, "max_retry_count": 5}));
    let pid = cluster.card(job).attempts[0].pid.unwrap();
    cluster.proxy.cut();
    cluster.kill(job);
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Killed, 1));
    assert!(lives(pid));
    cluster.proxy.heal();
    until("its program is killed", || !lives(pid));
    cluster.assert_clean();
    assert_eq!(cause(&cluster.card(job)), Cause::Killed);
}

#[test]
fn a_poller_does_not_give_up_by_what_an_earlier_one_saw() {
    let mut cluster = Cluster::new("2s");
    let job = cluster.submit_waiting(json!({}));
    cluster.proxy.cut();
    cluster.until_node("disconnected");
    cluster.poller(0, "KILL");
    // Nothing but time goes by: what counts is that the node would have been given up in it.
    let begun = Instant::now();
    until("`lost_after` is over", || begun.elapsed() > Duration::from_millis(2500));
    cluster.proxy.heal();
    cluster.pollers[0] = Some(cluster.head.start("poller", &["-q"]));
    cluster.until_node("connected");
    cluster.go();
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_node_is_restarted() {
    let mut cluster = Cluster::new("60s");
    let once = cluster.submit_waiting(json!({"max_retry_count": 0}));
    let again = cluster.submit_waiting(json!({"max_retry_count": 1}));
    cluster.poller(1, "KILL");
    cluster.server.down();
    for supervisor in cluster.node.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    cluster.go();
    cluster.node.env.push(("CORKBOARD_BOOT_ID".into(), "another-boot".into()));
    cluster.server.restart_with("CORKBOARD_BOOT_ID", "another-boot");
    cluster.pollers[1] = Some(cluster.node.start("poller", &["-q"]));
    let card = cluster.ended(once);
    let end = card.outcome.as_ref().unwrap();
    assert_eq!(end.reason.as_deref(), Some("the machine was restarted"));
    assert_eq!((end.cause, card.attempts.len()), (Cause::Lost, 1));
    let card = cluster.ended(again);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Exit, 2));
    assert_eq!(card.attempts[0].outcome.as_ref().unwrap().cause, Cause::Lost);
    assert_eq!(cluster.ran().len(), 3);
    cluster.assert_clean();
}

#[test]
fn a_node_forgets_everything() {
    let mut cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({"max_retry_count": 1}));
    cluster.poller(1, "KILL");
    for supervisor in cluster.node.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    fs::remove_dir_all(cluster.node.path("state/processor")).unwrap();
    let card = cluster.ended(job);
    assert_eq!((cause(&card), card.attempts.len()), (Cause::Lost, 1));
    let reason = card.outcome.unwrap().reason.unwrap();
    assert_eq!(reason, "node far does not know it any more");
    cluster.pollers[1] = Some(cluster.node.start("poller", &["-q"]));
    let next = cluster.submit("true", json!({}));
    cluster.assert_ran_once(next);
    until("nothing is owed", || cluster.far()["given_up"] == Value::Null);
    cluster.proxy.deliver(&cluster.proxy.last(NEW));
    assert_eq!(cluster.ran().len(), 2);
    cluster.assert_clean();
}

#[test]
fn connections_break_at_any_byte() {
    let cluster = Cluster::new("60s");
    let mut random = Random::seeded();
    let mut jobs = Vec::new();
    for _ in 0..30 {
        let at = random.below(400) as usize;
        let lines = [NEW, NEW, ACK, FEED, "jobs/status", "/processor/"];
        let line = random.pick(&lines).unwrap();
        let delay = Duration::from_millis(random.below(300));
        let acts = [Act::Cut(at), Act::CutReply(at), Act::Twice, Act::LoseReply, Act::Delay(delay)];
        cluster.proxy.rule(line, *random.pick(&acts).unwrap(), 1);
        jobs.push(cluster.submit("true", json!({})));
        // Not a wait for anything: the moment of the next fault is random, too.
        sleep(Duration::from_millis(random.below(100)));
    }
    jobs.iter().for_each(|job| cluster.assert_ran_once(*job));
    cluster.assert_clean();
}

#[test]
fn a_stopped_supervisor_is_alive() {
    let cluster = Cluster::new("60s");
    let job = cluster.submit_waiting(json!({}));
    let supervisor = cluster.node.supervisors()[0];
    signal(supervisor, "STOP");
    cluster.go();
    let before = cluster.proxy.count(STATUS);
    until("the head has asked about it", || cluster.proxy.count(STATUS) >= before + 2);
    assert_eq!(cluster.node.cmd("processor", &["sweep"]).expect(0).json()["lost"], 0);
    assert_eq!(cluster.card(job).state, State::Running);
    signal(supervisor, "CONT");
    cluster.assert_ran_once(job);
    cluster.assert_clean();
}

#[test]
fn a_stopped_poller_is_at_work() {
    let mut cluster = Cluster::new("60s");
    let standby = cluster.head.poller_with(&["-q"]);
    let log = cluster.head.path("poller.log");
    let says = |what: &str| fs::read_to_string(&log).unwrap().contains(what);
    until("it stands by", || says("standing by"));
    cluster.poller(0, "STOP");
    let job = cluster.submit("true", json!({}));
    // It looks for the lock as one does that is started now; that one has looked when it ends.
    cluster.head.cmd("poller", &["--once", "-q"]).expect(0);
    assert!(!says("at work for"), "two pollers are at work");
    assert_eq!(cluster.card(job).state, State::Queued, "the lock is held, nobody takes over");
    cluster.poller(0, "CONT");
    cluster.assert_ran_once(job);
    // Dead it is followed at once.
    cluster.poller(0, "STOP");
    cluster.poller(0, "KILL");
    let job = cluster.submit("true", json!({}));
    cluster.assert_ran_once(job);
    cluster.assert_clean();
    assert!(standby.end("TERM").success());
}
