//! The node, through the real program: how it runs jobs, and keeps to its room.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::node::{CONF, assert_clean, log, root, run, submit};
use common::users::plain_root;
use common::{SOON, TestRoot, lives, pid_in, until, wait_for};
use serde_json::{Value, json};

#[test]
fn ends_are_told_apart() {
    let root = root();
    let end = run(&root, json!({"command": ["true"]}));
    assert_eq!(
        (&end["status"], &end["cause"], &end["code"]),
        (&json!("good"), &json!("exit"), &json!(0))
    );
    let end = run(&root, json!({"command": "exit 3"}));
    assert_eq!(
        (&end["status"], &end["code"], &end["reason"]),
        (&json!("error"), &json!(3), &json!("exit 3"))
    );
    let end = run(&root, json!({"command": "kill -SEGV $$"}));
    assert_eq!((&end["cause"], &end["reason"]), (&json!("signal"), &json!("signal SIGSEGV")));
    let end = run(&root, json!({"command": ["no-such-program"]}));
    assert_eq!(end["code"], 127);
    assert_eq!(end["reason"], "cannot start \"no-such-program\": no such file or directory");
    let end = run(&root, json!({"command": ["/etc/passwd"]}));
    assert_eq!(
        (&end["code"], &end["reason"]),
        (&json!(126), &json!("cannot start \"/etc/passwd\": permission denied"))
    );
    let end = run(&root, json!({"command": ["true"], "dir": "/no/such"}));
    assert_eq!(end["code"], 126);
    assert_eq!(end["reason"], "cannot enter directory \"/no/such\": no such file or directory");
    let end = run(&root, json!({"command": "exit 127"}));
    assert_eq!(end["reason"], "exit 127");
    assert_clean(&root);
}

#[test]
fn a_job_gets_what_it_asked_for_and_no_more() {
    let mut root = root();
    root.env.push(("LEAK".into(), "yes".into()));
    let id = submit(
        &root,
        json!({"command": "env | sort; pwd; cat; umask; ls /proc/self/fd | wc -l",
        "environment": {"A": "b c", "HOME": "/tmp"}, "dir": "/usr", "stdin": "one\ntwo\n"}),
    );
    root.ended(&id);
    let log = log(&root, &id);
    for line in ["A=b c", "HOME=/tmp", "LANG=C.UTF-8", "TMPDIR=/tmp", "/usr", "one", "two", "0022"]
    {
        assert!(log.lines().any(|l| l == line), "{line} in {log}");
    }
    assert!(log.contains(&format!("CORKBOARD_NODEJOB={id}\n")), "{log}");
    assert!(!log.contains("LEAK") && !log.contains("CORKBOARD_ROOT"), "{log}");
    assert!(log.ends_with("\n4\n"), "0, 1, 2 and the directory: {log}");
}

#[test]
fn a_job_inherits_no_ignored_signals() {
    let root = root();
    root.write("job.json", r#"{"command": "grep SigIgn /proc/self/status", "request_id": "s"}"#);
    let line = "trap '' TERM HUP USR2 CHLD PIPE ALRM; exec cgi-bin/processor jobs new < job.json";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", line]).current_dir(&root.dir).env("CORKBOARD_ROOT", &root.dir);
    assert!(shell.output().unwrap().status.success());
    assert_eq!(root.ended("s")["code"], 0);
    assert_eq!(log(&root, "s"), "SigIgn:\t0000000000000000\n");
}

#[test]
fn commands_run_in_order_until_one_fails() {
    let root = root();
    let id = submit(
        &root,
        json!({"commands": [{"exec": ["echo", "one"]}, {"exec": "echo two; exit 4"},
        {"exec": ["echo", "three"]}], "environment": {}, "request_id": "123456789"}),
    );
    assert_eq!(id, "123456789");
    assert_eq!(root.ended(&id)["code"], 4);
    assert_eq!(log(&root, &id), "one\ntwo\n");
    assert_eq!(root.read("state/processor/job/123456789/status").matches("\"running\"").count(), 2);
}

#[test]
fn output_may_be_split() {
    let root = root();
    let id = submit(&root, json!({"command": "echo out; echo err >&2", "output": "split"}));
    root.ended(&id);
    let stream = |name: &str| {
        root.cmd("processor", &["jobs", &id, "log", &format!("stream={name}")]).expect(0).body
    };
    assert_eq!((stream("stdout").as_str(), stream("stderr").as_str()), ("out\n", "err\n"));
    assert!(!root.exists(&format!("state/processor/job/{id}/log")));
}

#[test]
fn output_over_the_limit_is_dropped_with_a_marker() {
    let root = TestRoot::new("cores = 1\nmax_log = 64 KiB\n");
    let id = submit(&root, json!({"command": "yes | head -c 3000000; echo done >&2; exit 5"}));
    assert_eq!(root.ended(&id)["code"], 5);
    let log = log(&root, &id);
    assert!(log.ends_with("\n[corkboard: output over 64 KiB dropped]\n"), "{}", log.len());
    assert_eq!(log.find("\n[cork"), Some(65536));
}

#[test]
fn a_timeout_ends_the_whole_tree() {
    let root = root();
    let (a, b) = (root.path("a"), root.path("b"));
    let script = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' & \
         (sh -c 'echo $$ > {}; exec sleep 1000' &) ; trap '' TERM; while :; do sleep 1; done",
        a.display(),
        b.display()
    );
    let id =
        submit(&root, json!({"command": script, "timeout": 1, "max_termination_time": "200ms"}));
    let (a, b) = (pid_in(&a), pid_in(&b));
    let end = root.ended(&id);
    assert_eq!((&end["cause"], &end["reason"]), (&json!("timeout"), &json!("timed out after 1s")));
    assert!(!lives(a) && !lives(b));
    assert_clean(&root);
}

#[test]
fn what_a_job_leaves_behind_is_ended() {
    let root = root();
    let pid = root.path("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & until [ -s {0} ]; do sleep 0.01; done",
        pid.display()
    );
    let end = run(&root, json!({"command": script}));
    assert_eq!(end["status"], "good");
    assert!(!lives(pid_in(&pid)));
}

#[test]
fn killing_a_running_job() {
    let root = root();
    let id = submit(&root, json!({"command": "trap '' TERM; echo up; while :; do sleep 1; done"}));
    until("it runs", || root.read(&format!("state/processor/job/{id}/log")) == "up\n");
    let said = root.cmd("processor", &["jobs", &id, "kill", "grace=0.1"]).expect(0).json();
    assert_eq!(said["id"], json!(id));
    let end = root.ended(&id);
    assert_eq!(end["cause"], "killed");
    let again = root.cmd("processor", &["jobs", &id, "kill"]).expect(0).json();
    assert_eq!((&again["at"], &again["cause"]), (&end["at"], &json!("killed")));
    assert_clean(&root);
}

#[test]
fn room_is_kept_to() {
    let root = root();
    let go = root.path("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let jobs: Vec<Value> =
        (1..=3).map(|n| json!({"command": script, "request_id": format!("j{n}")})).collect();
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    until("two run", || {
        root.node_status("j1")["state"] == "running" && root.node_status("j2")["state"] == "running"
    });
    assert_eq!(root.node_status("j3"), Value::Null);
    let info = root.cmd("processor", &["info"]).expect(0).json();
    assert_eq!(
        (&info["free"]["cores"], &info["running"], &info["queued"]),
        (&json!(0), &json!(2), &json!(1))
    );
    fs::write(go, "").unwrap();
    root.ended("j3");
    assert_clean(&root);
}

#[test]
fn narrow_jobs_do_not_overtake_a_wide_one() {
    let root = root();
    let jobs: Vec<Value> = (0..60)
        .map(|n| {
            let cores = if n == 5 { 2 } else { 1 };
            json!({"command": format!("echo {n} >> order; sleep 0.02"), "dir": root.path(""),
                "requested_resources": {"cores": cores}})
        })
        .collect();
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    until("all have run", || root.exists("order") && root.read("order").lines().count() == 60);
    let place = root.read("order").lines().position(|line| line == "5").unwrap();
    // Those before it, and who was claimed together with one of them.
    assert!(place < 30, "{}", root.read("order"));
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn a_long_job_keeps_no_other_waiting() {
    let root = root();
    let mut jobs = vec![json!({"command": ["true"]}); 60];
    jobs.insert(30, json!({"command": ["sleep", "1000"], "request_id": "long"}));
    jobs.push(json!({"command": ["true"], "request_id": "last"}));
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    root.ended("last");
    wait_for(SOON, || {
        let ended = root.cmd("processor", &["jobs", "state=stopped"]).expect(0).body;
        if ended.lines().count() == 61 { Ok(()) } else { Err(ended) }
    });
    assert_eq!(root.node_status("long")["state"], "running");
    assert_clean(&root);
    root.cmd("processor", &["jobs", "long", "kill"]).expect(0);
    root.ended("long");
}

#[test]
fn a_job_may_submit_a_job_that_outlives_it() {
    let root = root();
    let program = root.path("cgi-bin/processor");
    let script =
        format!("{} jobs new -q -r inner -- sh -c 'sleep 0.5; echo inner'", program.display());
    let request = json!({"command": script, "environment": {"CORKBOARD_ROOT": root.dir}, "request_id": "outer"});
    assert_eq!(run(&root, request)["status"], "good");
    assert_eq!(root.ended("inner")["status"], "good");
    assert_clean(&root);
}

#[test]
fn thousands_of_short_jobs() {
    let root = root();
    let jobs = vec![json!({"command": ["true"]}); 500];
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    wait_for(SOON, || {
        let feed = root.read("state/processor/events");
        let ended = feed.lines().filter(|line| line.contains("\"good\"")).count();
        if ended == 500 { Ok(()) } else { Err(ended.to_string()) }
    });
    assert_clean(&root);
}

/// The feed's lines about a range can be longer than what a page usually holds.
#[test]
fn a_feed_line_is_told_however_long_it_is() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    run(&root, json!({"command": ["true"], "request_id": "before"}));
    until("it is reported", || root.supervisors().is_empty());
    let events = |since: &str| {
        let words = ["events".to_string(), format!("since={since}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        root.cmd("processor", &words).expect(0).json()
    };
    let cursor = root.cmd("processor", &["events"]).expect(0).json()["cursor"].clone();
    let failed: Vec<Value> = (0..60_000)
        .map(|task| {
            json!({"tasks": task.to_string(), "status": "error", "cause": "exit", "code": 1,
                "reason": format!("exit {task}")})
        })
        .collect();
    let long = json!({"id": "long", "state": "running", "status": "unknown", "at": "t",
        "tasks": {"failed": failed}});
    let short = json!({"id": "short", "state": "queued", "status": "unknown", "at": "t"});
    let mut feed = fs::OpenOptions::new();
    let mut feed = feed.append(true).open(root.path("state/processor/events")).unwrap();
    std::io::Write::write_all(&mut feed, format!("\n{long}\n\n{short}\n").as_bytes()).unwrap();
    let mut cursor = cursor.as_str().unwrap().to_string();
    let mut ids = Vec::new();
    for _ in 0..5 {
        let page = events(&cursor);
        ids.extend(page["events"].as_array().unwrap().iter().map(|event| event["id"].clone()));
        cursor = page["cursor"].as_str().unwrap().to_string();
    }
    assert_eq!(ids, ["long", "short"]);
}

#[test]
fn the_tail_of_a_log_without_lines_is_its_end() {
    let root = root();
    let id =
        submit(&root, json!({"command": "head -c 6000000 /dev/zero | tr '\\0' x; printf END"}));
    root.ended(&id);
    let tail = root.cmd("processor", &["jobs", &id, "log", "tail=3"]).expect(0).body;
    assert!(tail.len() == 4 << 20 && tail.ends_with("xEND"), "{}", tail.len());
}

#[test]
fn a_job_that_cannot_be_looked_at_is_listed_with_the_reason() {
    let root = plain_root(CONF);
    for id in ["closed", "plain"] {
        submit(&root, json!({"command": "true", "dir": "/", "request_id": id}));
        root.ended(id);
    }
    let closed = root.path("state/processor/job/closed");
    let mode = |mode| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let listed = root.cmd("processor", &["jobs"]).expect(0);
    assert_eq!(listed.body, "plain\nclosed\n", "{listed:?}");
    let said = root.cmd("processor", &["jobs", "format=json"]).expect(0).body;
    assert!(said.contains("plain") && said.contains("permission denied"), "{said}");
    mode(0o750);
    until("it is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}
