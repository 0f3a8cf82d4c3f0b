//! A job's own word on its progress: who may say one, what is kept, and where it is shown.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use common::head::{both_ways, drain_localhost, host, node_reaches, open_root, register};
use common::node::submit;
use common::{SOON, TestRoot, let_pass, until, wait_for};
use corkboard::cgi::Program;
use corkboard::model::access::Need;
use serde_json::{Value, json};

const PROGRAMS: [&Program; 3] =
    [&corkboard::scheduler::PROGRAM, &corkboard::processor::PROGRAM, &corkboard::nodemgr::PROGRAM];

/// Text that says a word, in a job at a node that is its head's own root.
const SAY: &str = "\"$CORKBOARD_ROOT/cgi-bin/processor\" jobs $CORKBOARD_NODEJOB status -d";

/// A job's command that says this, then goes on once a file is there.
fn saying(root: &TestRoot, word: &str, then: &str) -> Value {
    let go = root.path("go");
    json!(format!("{SAY} '{word}'; until [ -e {} ]; do sleep 0.02; done; {then}", go.display()))
}

/// What a status says of progress.
fn said(status: &Value) -> Vec<Value> {
    let words = status["progress"].as_array().cloned().unwrap_or_default();
    words.into_iter().map(|word| word["said"].clone()).collect()
}

/// The head's status once the last word of the job is this.
fn heard(root: &TestRoot, job: u64, word: &Value) -> Value {
    wait_for(SOON, || {
        let status = root.status(job);
        if said(&status).last() == Some(word) { Ok(status) } else { Err(status.to_string()) }
    })
}

fn record(root: &TestRoot, job: u64) -> Value {
    root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json()
}

/// The words of a run in the feed of its node, in order, and in how many lines.
fn told(root: &TestRoot, id: &str) -> (Vec<Value>, usize) {
    let feed = root.read("state/processor/events");
    let lines = feed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<Value> =
        lines.filter(|line| line["id"] == id && !line["progress"].is_null()).collect();
    (lines.iter().flat_map(said).collect(), lines.len())
}

#[test]
fn a_word_is_shown_on_the_node_and_at_the_head() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let job = root.submit(&json!({"command": saying(root, "50 %", "true")}));
        let status = heard(root, job, &json!("50 %"));
        let id = status["progress"][0]["nodejob"].as_str().unwrap().to_string();
        assert!(id.ends_with(&format!("-{job}.1")), "{status}");
        let path = format!("/processor/job/{id}/status");
        let json = [("Content-Type", "application/json")];
        let word = json!({"done": 3, "of": [1, 2]});
        let answer = door.send("POST", &path, &json, &word.to_string()).expect(200).json();
        assert_eq!(answer["said"], word);
        let plain = [("Content-Type", "text/plain")];
        door.send("POST", &path, &plain, "17\n").expect(200);
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        door.send("POST", &path, &form, "nearly done").expect(200);
        let all = [json!("50 %"), word, json!("17"), json!("nearly done")];
        assert_eq!(said(&door.get(&path).expect(200).json()), all);
        let shown = door.get(&format!("/processor/jobs/{id}")).expect(200).json();
        assert_eq!(said(&shown["status"]), all);
        let status = heard(root, job, &json!("nearly done"));
        assert_eq!(said(&status), all);
        // The card says nothing of it.
        assert!(!root.card(job).iter().any(|line| line.to_string().contains("nearly")));
        // What is no word changes nothing.
        for (kind, body, code) in [
            (json, "nearly", 400),
            (plain, " \n", 400),
            (json, "\"\"", 400),
            (json, &"[".repeat(17), 400),
            (json, &format!("{}1{}", "[".repeat(17), "]".repeat(17)), 400),
            (plain, &"x".repeat(1025), 413),
            (plain, &"\u{1}".repeat(1000), 413),
            ([("Content-Type", "image/png")], "x", 415),
        ] {
            door.send("POST", &path, &kind, body).expect(code);
        }
        door.send("POST", "/processor/jobs/nobody/status", &plain, "x").expect(404);
        assert_eq!(said(&door.get(&path).expect(200).json()), all);
        root.write("go", "");
        let status = root.reaches(job, "stopped");
        assert!(status["progress"].is_null(), "{status}");
        assert_eq!(said(&record(root, job)), all);
        door.send("POST", &path, &plain, "more").expect(409);
        assert_eq!(said(&door.get(&path).expect(200).json()), all);
        root.check();
    });
}

#[test]
fn what_a_job_puts_in_the_place_of_its_words_is_in_nobodys_way() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": saying(&root, "half", "true")}));
    let status = heard(&root, job, &json!("half"));
    let id = status["progress"][0]["nodejob"].as_str().unwrap();
    let path = root.path(&format!("state/processor/job/{id}/progress"));
    let say = |word: &str| {
        let path = format!("/processor/jobs/{id}/status");
        root.cgi("POST", &path, &[("Content-Type", "text/plain")], word.as_bytes()).code
    };
    let shown = || said(&root.cmd("processor", &["jobs", id, "status"]).expect(0).json());
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let time = "2026-01-31T12:00:00.000Z";
    let forged = format!(
        "{{\"told\":\"\",\"untold\":18446744073709551615}}\n{{\"at\":\"{time}\",\"said\":{deep}}}\n"
    );
    fs::write(&path, forged).unwrap();
    assert_eq!(shown(), [json!(null); 0]);
    assert_eq!(say("one"), 200);
    heard(&root, job, &json!("one"));
    File::create(&path).unwrap().set_len(8 << 30).unwrap();
    assert_eq!(shown(), [json!(null); 0]);
    assert_eq!(say("two"), 200);
    assert_eq!(shown(), ["two"]);
    fs::remove_file(&path).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(pipe.success());
    assert_eq!(shown(), [json!(null); 0]);
    assert_eq!(say("three"), 200);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(shown(), [json!(null); 0]);
    assert_ne!(say("four"), 200);
    root.write("go", "");
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
}

#[test]
fn however_often_a_run_says_something_little_is_told_and_the_newest_is_kept() {
    let root = open_root("");
    let _poller = root.poller();
    let many = format!("for i in $(seq 200); do {SAY} $i; done; touch said");
    let command = format!("cd {}; {many}", root.dir.display());
    let go = root.path("go");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let begun = Instant::now();
    let job =
        root.submit(&json!({"command": format!("{command} >/dev/null; {wait}; {SAY} '\"last\"'")}));
    until("all was said", || root.exists("said"));
    let status = heard(&root, job, &json!(200));
    let seconds = begun.elapsed().as_secs() as usize + 1;
    let id = status["progress"][0]["nodejob"].as_str().unwrap();
    let path = format!("state/processor/job/{id}/progress");
    assert!(root.read(&path).len() < 2048, "{}", root.read(&path));
    let kept = root.cmd("processor", &["jobs", id, "status"]).expect(0).json();
    assert_eq!(said(&kept), (191..=200).map(|n| json!(n)).collect::<Vec<_>>());
    let (words, lines) = told(&root, id);
    assert!(lines <= seconds + 1, "{lines} in {seconds} s: {words:?}");
    assert!(said(&status).len() <= 10, "{status}");
    // What is said just before the end is told before it.
    root.write("go", "");
    root.reaches(job, "stopped");
    assert_eq!(said(&record(&root, job)).last(), Some(&json!("last")));
    root.check();
}

/// Those that come by the way and those that the supervisor tells are counted together.
#[test]
fn a_run_that_says_something_all_the_time_is_told_of_once_a_second() {
    let root = open_root("");
    let _poller = root.poller();
    let go = root.path("go").display().to_string();
    let one = format!("until [ -e {go} ]; do {SAY} 5 >/dev/null; done");
    let job = root.submit(&json!({"command": format!("({one}) & ({one}) & {one}; wait")}));
    let status = heard(&root, job, &json!(5));
    let id = status["progress"][0]["nodejob"].as_str().unwrap();
    let (begun, before) = (Instant::now(), told(&root, id).1);
    let_pass(Duration::from_secs(8)); // not more than one a second must come
    let (lines, seconds) = (told(&root, id).1 - before, begun.elapsed().as_secs() as usize);
    assert!((4..=seconds + 1).contains(&lines), "{lines} in {seconds} s");
    root.write("go", "");
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn a_run_speaks_for_itself_alone() {
    let root = TestRoot::new("cores = 3\nmemory = 4 GiB\nscan_every = 1s\n");
    root.open();
    let _poller = root.poller();
    let key = |name: &str| {
        let file = root.path(name);
        let go = root.path("go");
        json!(format!(
            "echo $CORKBOARD_NODEJOB $CORKBOARD_TOKEN > {}; until [ -e {} ]; do sleep 0.02; done",
            file.display(),
            go.display()
        ))
    };
    let jobs = ["one", "two"].map(|name| root.submit(&json!({"command": key(name)})));
    let read = |name: &str| {
        wait_for(SOON, || {
            let text = root.read(name);
            let words: Vec<String> = text.split_whitespace().map(String::from).collect();
            <[String; 2]>::try_from(words).map_err(|_| text)
        })
    };
    let ([one, key], [two, _]) = (read("one"), read("two"));
    fs::remove_file(root.path("state/open")).unwrap();
    let say = |id: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer), ("Content-Type", "text/plain")];
        root.cgi("POST", &format!("/processor/jobs/{id}/status"), &headers, b"x").code
    };
    assert_eq!(say(&one, &key), 200);
    assert_eq!(say(&two, &key), 403);
    let new = |role: &str| {
        let role = format!("role={role}");
        root.cmd("scheduler", &["tokens", "new", &role, "-q"]).expect(0).body.trim().to_string()
    };
    let own = submit(&root, json!({"command": ["sleep", "100"], "request_id": "own"}));
    until("it runs", || root.node_status(&own)["state"] == "running");
    for (role, of_a_head, of_nobody) in
        [("admin", 200, 200), ("user", 403, 403), ("head", 403, 403), ("worker", 403, 403)]
    {
        let token = new(role);
        assert_eq!((say(&one, &token), say(&own, &token)), (of_a_head, of_nobody), "{role}");
    }
    assert_eq!(say(&one, &format!("{key}0")), 401);
    root.cmd("processor", &["jobs", &own, "kill"]).expect(0);
    root.ended(&own);
    root.write("go", "");
    jobs.iter().for_each(|job| drop(root.reaches(*job, "stopped")));
    assert_eq!(say(&one, &key), 401);
    root.check();
}

#[test]
fn a_run_on_another_root_finds_that_roots_server_and_may_do_nothing_else_there() {
    let (node, httpd, token) = host("");
    fs::create_dir_all(node.path("run")).unwrap();
    node.write("run/url", &httpd.url());
    let head = open_root("");
    drain_localhost(&head);
    let uri = format!("http://127.0.0.1:{}", httpd.port);
    register(&head, &json!({"name": "two", "uri": uri, "token": token}));
    let _poller = head.poller();
    node_reaches(&head, "two", "connected");
    let go = head.path("go");
    let command = format!(
        "echo $CORKBOARD_NODEJOB $CORKBOARD_TOKEN > {}; \
         curl -s -H \"Authorization: Bearer $CORKBOARD_TOKEN\" -d '50 %' \
         \"$CORKBOARD_NODE_URL/processor/jobs/$CORKBOARD_NODEJOB/status\"; \
         until [ -e {} ]; do sleep 0.02; done",
        head.path("key").display(),
        go.display()
    );
    let job = head.submit(&json!({"command": command}));
    heard(&head, job, &json!("50 %"));
    let text = head.read("key");
    let (id, key) = text.trim().split_once(' ').unwrap();
    let bearer = format!("Authorization: Bearer {key}");
    let ask = |method: &str, path: &str, body: &str| {
        let args = ["-X", method, "-H", &bearer, "-H", "Content-Type: text/plain", "-d", body];
        let args = if method == "GET" { &args[..4] } else { &args[..] };
        httpd.curl(args, path).code
    };
    let status = format!("/processor/jobs/{id}/status");
    assert_eq!(ask("POST", &status, "60 %"), 200);
    let other = submit(&node, json!({"command": ["sleep", "100"], "request_id": "other-7.1"}));
    until("it runs", || node.node_status(&other)["state"] == "running");
    assert_eq!(ask("POST", &format!("/processor/jobs/{other}/status"), "x"), 403);
    for program in PROGRAMS {
        for route in program.routes.iter().filter(|route| route.need != Need::Report) {
            let words = route.pattern.split('/').filter(|word| !word.is_empty());
            let filled = words.map(|word| if word.starts_with(':') { id } else { word });
            let path = filled.map(|word| format!("/{word}")).collect::<String>();
            let (method, path) = (route.method.name(), format!("/{}{path}", program.name));
            let bearer = format!("Bearer {key}");
            let answer = node.cgi(method, &path, &[("Authorization", &bearer)], b"");
            assert_eq!(answer.code, 403, "{method} {path}: {answer:?}");
        }
    }
    assert_eq!(ask("GET", &status, ""), 403);
    node.cmd("processor", &["jobs", &other, "kill"]).expect(0);
    node.ended(&other);
    heard(&head, job, &json!("60 %"));
    head.write("go", "");
    head.reaches(job, "stopped");
    assert_eq!(ask("POST", &status, "70 %"), 401);
    assert_eq!(said(&record(&head, job)), [json!("50 %"), json!("60 %")]);
    head.check();
    node.check();
}

#[test]
fn every_attempt_and_every_range_has_its_words_named() {
    let root = open_root("");
    let _poller = root.poller();
    let retried = root.submit(&json!({
        "command": format!("{SAY} $CORKBOARD_NODEJOB; case $CORKBOARD_NODEJOB in *.1) false; esac"),
        "max_retry_count": 1,
    }));
    let array = root.submit(&json!({"command": format!("{SAY} $CORKBOARD_TASK"), "array": "0-3"}));
    let of = |job: u64| {
        root.reaches(job, "stopped");
        let record = record(&root, job);
        record["progress"].as_array().cloned().unwrap_or_default()
    };
    let words = of(retried);
    assert_eq!(words.len(), 2, "{words:?}");
    for (word, attempt) in words.iter().zip(1..) {
        assert!(word["nodejob"].as_str().unwrap().ends_with(&format!("-{retried}.{attempt}")));
        assert_eq!(word["said"], word["nodejob"]);
    }
    let mut tasks: Vec<i64> = of(array).iter().map(|word| word["said"].as_i64().unwrap()).collect();
    tasks.sort_unstable();
    assert_eq!(tasks, [0, 1, 2, 3]);
    root.check();
}

#[test]
fn rounds_of_cron_hear_the_last_word() {
    let root = open_root("");
    let job = root.submit(&json!({"command": saying(&root, "half", "true")}));
    wait_for(SOON, || {
        root.cmd("poller", &["--once"]).expect(0);
        let status = root.status(job);
        if said(&status) == ["half"] { Ok(()) } else { Err(status.to_string()) }
    });
    root.write("go", "");
    wait_for(SOON, || {
        root.cmd("poller", &["--once"]).expect(0);
        let status = root.status(job);
        if status["state"] == "stopped" { Ok(()) } else { Err(status.to_string()) }
    });
    root.check();
}

#[test]
fn what_cannot_be_kept_of_it_keeps_no_report_from_being_recorded() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0); // makes the tree
    root.write("state/scheduler/progress", "in the way");
    let _poller = root.poller();
    root.write("go", "");
    let job = root.submit(&json!({"command": saying(&root, "half", "true")}));
    let status = root.reaches(job, "stopped");
    assert_eq!(status["status"], "good");
    assert!(root.read("poller.log").contains("its word on its progress is not kept"));
    assert!(record(&root, job)["progress"].is_null());
    fs::remove_file(root.path("state/scheduler/progress")).unwrap();
    root.check();
}

#[test]
fn the_words_go_with_the_card_and_strays_are_named() {
    let root = open_root("keep_done = 1h\n");
    let job = {
        let _poller = root.poller();
        root.write("go", "");
        let job = root.submit(&json!({"command": saying(&root, "half", "true")}));
        root.reaches(job, "stopped");
        job
    };
    let words = format!("state/scheduler/progress/{job}");
    assert!(root.exists(&words));
    root.check();
    root.write("state/scheduler/progress/77", "");
    root.write("state/scheduler/progress/x", "");
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(
        found.contains("progress/77: job 77 is gone") && found.contains("progress/x: not"),
        "{found}"
    );
    let found = root.cmd("scheduler", &["check", "--repair"]).expect(1).body;
    assert!(
        !found.contains("progress/77") && !root.exists("state/scheduler/progress/77"),
        "{found}"
    );
    fs::remove_file(root.path("state/scheduler/progress/x")).unwrap();
    root.check();
    let card = File::open(root.path(&format!("state/scheduler/done/0/{job}.job"))).unwrap();
    card.set_modified(SystemTime::now() - Duration::from_secs(100 * 86_400)).unwrap();
    root.cmd("poller", &["--once"]).expect(0);
    root.cmd("scheduler", &["jobs", &job.to_string()]).expect(1);
    assert!(!root.exists(&words));
    root.check();
}
