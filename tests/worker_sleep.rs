//! A machine that sleeps, or a worker that is stopped, for longer than its head may not be heard of: what it had is
//! another's by the time that it wakes, and is not begun, nor goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::head::{CONF, Door, drain_localhost};
use common::node::assert_clean;
use common::worker::{Worker, at_work, connected};
use common::{TestRoot, let_pass, signal};
use serde_json::{Value, json};

fn localhost(head: &TestRoot, drain: bool) {
    let body = json!({ "drain": drain }).to_string();
    head.cmd("scheduler", &["nodes", "localhost", "update", "-d", &body]).expect(0);
}

/// Orders to run something that were handed out and not answered.
fn handed_out(head: &TestRoot) -> usize {
    let got = fs::read_dir(head.path("state/scheduler/workers/lap/got")).into_iter().flatten();
    let texts = got.flatten().filter_map(|order| fs::read_to_string(order.path()).ok());
    texts.filter(|text| text.contains("\"runs\"")).count()
}

#[test]
fn an_order_that_came_before_it_was_stopped_is_not_carried_out_afterwards() {
    let head = TestRoot::new(&format!(
        "{CONF}ping_timer = 2s\nsilence_timeout = 4s\nrequest_timeout = 2s\nlost_after = 8s\ngive_up_after = 3s\n"
    ));
    head.open();
    drain_localhost(&head);
    let (httpd, _poller) = (head.httpd(), head.poller());
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let door = Door::Web(&httpd);
    let witness = |what: &str| {
        json!({"command": format!("echo {what} >> {}", head.path("witness").display()),
               "retry_lost": true, "max_retry_count": 1})
    };
    // It is stopped while a claim is held, to which the order is given then.
    let mut runs = 0;
    let job = loop {
        signal(worker.pid(), "STOP");
        let job = door.submit(&witness("once"));
        let began = Instant::now();
        while handed_out(&head) == 0 && began.elapsed() < Duration::from_secs(1) {
            let_pass(Duration::from_millis(20));
        }
        if handed_out(&head) > 0 {
            break job;
        }
        signal(worker.pid(), "CONT");
        head.reaches(job, "stopped");
        runs += 1;
    };
    localhost(&head, false);
    let status = head.reaches(job, "stopped");
    assert_eq!((&status["node"], &status["status"]), (&json!("localhost"), &json!("good")));
    localhost(&head, true);
    signal(worker.pid(), "CONT");
    connected(&head);
    let later = door.submit(&witness("later"));
    assert_eq!(head.reaches(later, "stopped")["node"], "lap");
    assert_eq!(head.read("witness"), "once\n".repeat(runs + 1) + "later\n");
    drop(worker);
    head.check();
    assert_clean(&root);
}

#[test]
fn a_head_that_answers_is_never_given_up_however_soon_it_would_be() {
    let head = TestRoot::new(&format!("{CONF}give_up_after = 4s\n"));
    head.open();
    drain_localhost(&head);
    let (httpd, _poller) = (head.httpd(), head.poller());
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let job = Door::Web(&httpd).submit(&json!({"command": "exec sleep 9"}));
    assert_eq!(head.reaches(job, "stopped")["status"], "good");
    let said = root.read("worker.log");
    assert!(!said.contains("too old"), "{said}");
    drop(worker);
    head.check();
    assert_clean(&root);
}

#[test]
fn what_ran_while_nothing_was_heard_for_too_long_ends_though_the_head_is_heard_of_again() {
    let head = TestRoot::new(&format!("{CONF}give_up_after = 30s\n"));
    head.open();
    drain_localhost(&head);
    let (httpd, _poller) = (head.httpd(), head.poller());
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let door = Door::Web(&httpd);
    let plain = door.submit(&json!({"command": "exec sleep 600"}));
    let array = door.submit(&json!({"command": "exec sleep 600", "array": "1-4%1"}));
    head.reaches(plain, "running");
    head.reaches(array, "running");
    worker.end("KILL");
    // As if the machine had slept, and its worker were the first to wake.
    let mut contact: Value = serde_json::from_str(&root.read("state/worker/contact")).unwrap();
    contact["at"] = json!(format!("{:015}", 0));
    root.write("state/worker/contact", &format!("{contact}\n"));
    let _worker = Worker::start(&root, &httpd.url(), &[]);
    connected(&head);
    assert_eq!(head.reaches(plain, "stopped")["cause"], "lost");
    let range = head.card(array)[1]["nodejob"].as_str().unwrap().to_string();
    root.ended(&range);
    head.update(array, "kill=1");
    head.reaches(array, "stopped");
    // What comes after that is run.
    let later = door.submit(&json!({"command": "true"}));
    assert_eq!(head.reaches(later, "stopped")["status"], "good");
    head.check();
    assert_clean(&root);
}
