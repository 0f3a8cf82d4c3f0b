//! The head's change feed: what is done to jobs is told in order, once, to whoever asks; what cannot be
//! told is said to be missing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use common::head::{Door, both_ways, open_root};
use common::{Answer, let_pass, until, wait_for};
use serde_json::{Value, json};

const EVENTS: &str = "/scheduler/events";

fn cursor(door: &Door) -> String {
    let page = door.get(EVENTS).expect(200).json();
    assert_eq!(page["events"], json!([]), "without a cursor there is only the present one");
    page["cursor"].as_str().unwrap().to_string()
}

/// All that is told after a cursor, and where to go on.
fn since(door: &Door, cursor: &str) -> (Vec<Value>, String) {
    let (mut all, mut cursor) = (Vec::new(), cursor.to_string());
    loop {
        let page = door.get(&format!("{EVENTS}?since={cursor}")).expect(200).json();
        cursor = page["cursor"].as_str().unwrap().to_string();
        let events = page["events"].as_array().unwrap();
        if events.is_empty() {
            return (all, cursor);
        }
        all.extend(events.iter().cloned());
    }
}

/// What is told of one job: events, and the states after them.
fn story(events: &[Value], job: u64) -> Vec<(String, String)> {
    let of_job = events.iter().filter(|event| event["job"] == job);
    let word = |event: &Value, field: &str| event[field].as_str().unwrap().to_string();
    of_job.map(|event| (word(event, "event"), word(event, "state"))).collect()
}

fn named(events: &[Value], job: u64) -> Vec<String> {
    story(events, job).into_iter().map(|(event, _)| event).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(event, state)| (event.to_string(), state.to_string())).collect()
}

#[test]
fn a_jobs_life_is_told_in_order_and_once() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let begin = cursor(door);
        let plain = door.submit(&json!({"command": "true"}));
        let failing = door.submit(&json!({"command": "exit 3", "max_retry_count": 1}));
        let array = door.submit(&json!({"command": "true", "array": "0-4"}));
        let many =
            door.post("/scheduler/jobs/new", &json!([{"command": "true"}, {"command": "true"}]));
        let many: Vec<u64> = many
            .expect(201)
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a["job"].as_u64().unwrap())
            .collect();
        for job in [plain, failing, array].into_iter().chain(many.iter().copied()) {
            door.ended(job);
        }
        let (events, end) = since(door, &begin);
        let life = [
            ("submitted", "queued"),
            ("placed", "placed"),
            ("running", "running"),
            ("stopped", "stopped"),
        ];
        for job in [plain].into_iter().chain(many) {
            assert_eq!(story(&events, job), pairs(&life), "{events:#?}");
        }
        for job in [plain, failing, array] {
            let mut told = named(&events, job);
            assert_eq!(told.remove(0), "submitted");
            assert_eq!(told, root.story(job), "as the card has it");
        }
        let last = |job| story(&events, job).pop().unwrap().1;
        assert_eq!((last(failing), last(array)), ("stopped".into(), "stopped".into()));
        // The lines are those of the card.
        let card = root.card(plain);
        let placed = events.iter().find(|e| e["job"] == plain && e["event"] == "placed").unwrap();
        let mut line = card[1].clone();
        line["job"] = plain.into();
        line["state"] = "placed".into();
        assert_eq!(placed, &line);
        // Each cursor goes on where the other ended, and the end tells nothing.
        let half = door.get(&format!("{EVENTS}?since={end}")).expect(200).json();
        assert_eq!((&half["cursor"], &half["events"]), (&json!(end), &json!([])));
        root.check();
    });
}

#[test]
fn changes_by_people_are_told() {
    both_ways("", |root, door| {
        let begin = cursor(door);
        let job = door.submit(&json!({"command": "sleep 1000", "state": "held"}));
        let update =
            |query: &str| door.post(&format!("/scheduler/jobs/{job}/update?{query}"), &Value::Null);
        update("priority=4").expect(200);
        update("priority=4").expect(200); // changes nothing
        update("release=1").expect(200);
        update("hold=1").expect(200);
        update("release=1").expect(200);
        let _poller = root.poller();
        root.reaches(job, "running");
        update("kill=1").expect(202);
        door.ended(job);
        let gone = door.submit(&json!({"command": "true", "state": "held"}));
        door.send("DELETE", &format!("/scheduler/queue/{gone}"), &[], "").expect(200);
        let (events, _) = since(door, &begin);
        let life = [
            ("submitted", "held"),
            ("priority", "held"),
            ("released", "queued"),
            ("held", "held"),
            ("released", "queued"),
            ("placed", "placed"),
            ("running", "running"),
            ("stopping", "stopping"),
            ("stopped", "stopped"),
        ];
        assert_eq!(story(&events, job), pairs(&life));
        assert_eq!(story(&events, gone), pairs(&[("submitted", "held"), ("stopped", "stopped")]));
        root.check();
    });
}

#[test]
fn a_wait_is_over_as_soon_as_something_is_told() {
    both_ways("", |root, door| {
        let begin = cursor(door);
        let path = format!("{EVENTS}?since={begin}&wait=30");
        let (answer, job, took) = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| (door.get(&path), Instant::now()));
            let_pass(Duration::from_millis(300)); // nothing is told, and it must not end
            assert!(!waiter.is_finished(), "there was nothing to tell");
            let job = door.submit(&json!({"command": "true", "state": "held"}));
            let told = Instant::now();
            let (answer, at) = waiter.join().unwrap();
            (answer, job, at.saturating_duration_since(told))
        });
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(
            named(answer.expect(200).json()["events"].as_array().unwrap(), job),
            ["submitted"]
        );
        let begun = Instant::now();
        let end = cursor(door);
        let page = door.get(&format!("{EVENTS}?since={end}&wait=0.5")).expect(200).json();
        assert!(begun.elapsed() >= Duration::from_millis(400), "it waits for something to tell");
        assert_eq!(page["cursor"], end);
        root.check();
    });
}

fn assert_begins_anew(door: &Door, old: &str) {
    let gone = door.get(&format!("{EVENTS}?since={old}")).expect(410).json();
    assert!(gone["error"].as_str().unwrap().contains("another epoch"), "{gone}");
    let new = cursor(door);
    assert_ne!(new.split('.').next(), old.split('.').next());
    let job = door.submit(&json!({"command": "true", "state": "held"}));
    assert_eq!(named(&since(door, &new).0, job), ["submitted"]);
}

#[test]
fn a_cursor_of_another_epoch_is_refused() {
    both_ways("max_events = 2 KiB\n", |root, door| {
        let begin = cursor(door);
        for wrong in ["x", "", "1", "abc.x"] {
            door.get(&format!("{EVENTS}?since={wrong}")).expect(400);
        }
        let epoch = begin.split('.').next().unwrap();
        for wrong in [format!("{epoch}.1"), format!("{epoch}.999999"), "beef.80".into()] {
            door.get(&format!("{EVENTS}?since={wrong}")).expect(410);
        }
        door.get(&format!("{EVENTS}?format=xml")).expect(400);
        // Somebody has removed it.
        fs::remove_file(root.path("state/scheduler/events")).unwrap();
        assert_begins_anew(door, &begin);
        // It has grown too large.
        let old = cursor(door);
        until("it is begun anew", || {
            door.submit(&json!({"command": "true", "state": "held"}));
            !root.read("state/scheduler/events").contains(old.split('.').next().unwrap())
        });
        assert_begins_anew(door, &old);
        assert!(root.read("state/scheduler/events").len() < 4 << 10);
        root.check();
    });
    // Another boot.
    let mut root = open_root("");
    let old = cursor(&Door::Bare(&root));
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
    assert_begins_anew(&Door::Bare(&root), &old);
    root.check();
}

/// Who follows across the end of an epoch, and does as 410 says, knows every job.
#[test]
fn nobody_misses_a_job_while_epochs_end() {
    let root = open_root("max_events = 1 KiB\n");
    let _poller = root.poller();
    let door = Door::Bare(&root);
    let mut at = cursor(&door);
    let mut known = std::collections::BTreeMap::new();
    let count = 40u64;
    let submitter = |from: u64| {
        for _ in 0..count / 4 {
            root.submit(&json!({"command": "true", "dir": "/", "name": from.to_string()}));
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|from| scope.spawn(move || submitter(from))).collect();
        wait_for(Duration::from_secs(120), || {
            let page = door.get(&format!("{EVENTS}?since={at}&wait=0.2"));
            let page = match page.code {
                410 => {
                    at = cursor(&door);
                    let list = door.get("/scheduler/jobs?format=json").expect(200).json();
                    for job in list.as_array().unwrap() {
                        known.insert(job["job"].as_u64().unwrap(), job["state"].to_string());
                    }
                    json!({"cursor": at, "events": []})
                }
                _ => page.expect(200).json(),
            };
            at = page["cursor"].as_str().unwrap().to_string();
            for event in page["events"].as_array().unwrap() {
                known.insert(event["job"].as_u64().unwrap(), event["state"].to_string());
            }
            let stopped = known.values().filter(|state| *state == "\"stopped\"").count() as u64;
            if stopped == count { Ok(()) } else { Err(format!("{known:?}")) }
        });
        all.into_iter().for_each(|one| one.join().unwrap());
    });
    root.check();
}

/// The events of a stream: ids and data; comments and other fields apart.
fn streamed(body: &str) -> (Vec<(String, Value)>, Vec<String>) {
    let (mut events, mut rest) = (Vec::new(), Vec::new());
    assert!(body.ends_with("\n\n"), "it ends after an event: {body:?}");
    for block in body.split("\n\n").filter(|block| !block.is_empty()) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        match (field("id: "), field("data: ")) {
            (Some(id), Some(data)) => {
                assert_eq!(block.lines().count(), 2, "{block}");
                events.push((id.to_string(), serde_json::from_str(data).unwrap()));
            }
            _ => rest.push(block.to_string()),
        }
    }
    (events, rest)
}

#[test]
fn the_same_comes_as_a_stream() {
    both_ways("", |root, door| {
        let begin = cursor(door);
        let job = door.submit(&json!({"command": "true", "state": "held"}));
        door.post(&format!("/scheduler/jobs/{job}/update?release=1"), &Value::Null).expect(200);
        let by_accept = |path: &str, more: &[(&str, &str)]| -> Answer {
            let mut headers = vec![("Accept", "text/event-stream")];
            headers.extend(more);
            door.send("GET", path, &headers, "").expect(200)
        };
        let answer = by_accept(&format!("{EVENTS}?since={begin}&wait=0.3"), &[]);
        assert_eq!(answer.header("Content-Type"), Some("text/event-stream"));
        assert_eq!(answer.header("Content-Length"), None);
        let (events, rest) = streamed(&answer.body);
        let page = door.get(&format!("{EVENTS}?since={begin}")).expect(200).json();
        let data: Vec<&Value> = events.iter().map(|(_, data)| data).collect();
        assert_eq!(json!(data), page["events"], "one event for each line");
        assert_eq!(named(page["events"].as_array().unwrap(), job), ["submitted", "released"]);
        assert!(rest[0].starts_with("retry: "), "{rest:?}");
        // A client goes on after the last one that it has got.
        let (first, last) = (&events[0].0, &events[1].0);
        let (again, _) =
            streamed(&by_accept(&format!("{EVENTS}?wait=0.2"), &[("Last-Event-ID", first)]).body);
        assert_eq!(again, events[1..]);
        let (none, rest) =
            streamed(&by_accept(&format!("{EVENTS}?wait=0.2"), &[("Last-Event-ID", last)]).body);
        assert!(none.is_empty(), "{none:?}");
        let end = page["cursor"].as_str().unwrap();
        assert!(rest.iter().any(|block| block == &format!(":\nid: {end}")), "{rest:?}");
        // Without a cursor it begins now, and says where that is.
        let (none, rest) =
            streamed(&door.get(&format!("{EVENTS}?format=event-stream&wait=0.2")).expect(200).body);
        assert!(none.is_empty() && rest.iter().any(|block| block.contains("id: ")), "{rest:?}");
        let gone = [("Accept", "text/event-stream"), ("Last-Event-ID", "beef.80")];
        door.send("GET", EVENTS, &gone, "").expect(410);
        // Others ask for anything, and get a page.
        let any = door.send("GET", EVENTS, &[("Accept", "*/*")], "").expect(200);
        assert_eq!(any.header("Content-Type"), Some("application/json"));
        root.check();
    });
}

#[test]
fn a_stream_tells_what_is_done_while_it_lasts() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let begin = cursor(door);
        let path = format!("{EVENTS}?format=event-stream&since={begin}&wait=4");
        let (answer, job) = std::thread::scope(|scope| {
            let stream = scope.spawn(|| door.get(&path));
            let job = door.submit(&json!({"command": "true"}));
            door.ended(job);
            (stream.join().unwrap(), job)
        });
        let (events, _) = streamed(&answer.expect(200).body);
        let data: Vec<Value> = events.into_iter().map(|(_, data)| data).collect();
        assert_eq!(named(&data, job), ["submitted", "placed", "running", "stopped"]);
    });
}

#[test]
fn words_ask_the_same() {
    let root = open_root("");
    let page = root.cmd("scheduler", &["events"]).expect(0).json();
    let since = format!("since={}", page["cursor"].as_str().unwrap());
    let job = root.submit(&json!({"command": "true", "state": "held"}));
    let page = root.cmd("scheduler", &["events", &since, "wait=5"]).expect(0).json();
    assert_eq!(named(page["events"].as_array().unwrap(), job), ["submitted"]);
    let stream =
        root.cmd("scheduler", &["events", &since, "format=event-stream", "wait=0.1"]).expect(0);
    assert_eq!(streamed(&stream.body).0.len(), 1);
    root.cmd("scheduler", &["events", "since=beef.80"]).expect(1);
    assert!(root.cmd("scheduler", &["events", "--help"]).expect(0).body.contains("since=CURSOR"));
}

#[test]
fn much_that_came_to_nothing_holds_nobody_up() {
    both_ways("", |root, door| {
        let job = door.submit(&json!({"command": "true", "state": "held"}));
        let begin = cursor(door);
        // More than a page of marks alone.
        let mut feed =
            File::options().append(true).open(root.path("state/scheduler/events")).unwrap();
        let marks = "\n{\"close\":\"1-x-0\",\"void\":true}\n".repeat(10_000);
        feed.write_all(marks.as_bytes()).unwrap();
        root.update(job, "priority=7").expect(0);
        let asked = Instant::now();
        let page = door.get(&format!("{EVENTS}?since={begin}&wait=20")).expect(200).json();
        assert_eq!(named(page["events"].as_array().unwrap(), job), ["priority"]);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        root.check();
    });
}

#[test]
fn what_is_cleaned_up_is_told() {
    both_ways("keep_done = 1d\nkeep_bad = 1d\n", |root, door| {
        let job = door.submit(&json!({"command": "true", "dir": "/"}));
        let kept = door.submit(&json!({"command": "true", "state": "held"}));
        let damaged = door.submit(&json!({"command": "true", "state": "held"}));
        root.write(&format!("state/scheduler/queue/{damaged}.job"), "{");
        let poller = root.poller();
        door.ended(job);
        until("it is put aside", || root.exists(&format!("state/scheduler/bad/{damaged}.job")));
        drop(poller);
        let begin = cursor(door);
        for name in [format!("done/0/{job}.job"), "done/0".into(), format!("bad/{damaged}.job")] {
            let file = File::open(root.path(&format!("state/scheduler/{name}"))).unwrap();
            let day = Duration::from_secs(86_400);
            file.set_modified(std::time::SystemTime::now() - 2 * day).unwrap();
        }
        root.cmd("poller", &["--once", "-q"]).expect(0);
        for job in [job, damaged] {
            door.get(&format!("/scheduler/jobs/{job}/status")).expect(410);
        }
        let (events, _) = since(door, &begin);
        for (job, told) in [(job, 1), (damaged, 1), (kept, 0)] {
            assert_eq!(story(&events, job), pairs(&[("removed", "stopped")][..told]), "{job}");
        }
        root.check();
    });
}
