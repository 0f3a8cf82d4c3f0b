//! The node, through the real program.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{SOON, TestRoot, lives, pid_in, signal, until, wait_for};
use serde_json::{Value, json};

const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

fn root() -> TestRoot {
    let root = TestRoot::new(CONF);
    root.open();
    root
}

fn submit(root: &TestRoot, request: Value) -> String {
    let answer = root.cmd_in("processor", &["jobs", "new", "-q"], &request.to_string()).expect(0);
    answer.body.trim().to_string()
}

fn run(root: &TestRoot, request: Value) -> Value {
    let id = submit(root, request);
    root.ended(&id)
}

fn log(root: &TestRoot, id: &str) -> String {
    root.cmd("processor", &["jobs", id, "log"]).expect(0).body
}

fn assert_clean(root: &TestRoot) {
    let check = root.cmd("processor", &["check"]);
    assert_eq!((check.code, check.body.as_str()), (0, ""), "{check:?}");
}

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
fn a_log_is_read_in_pieces() {
    let root = root();
    let id = submit(&root, json!({"command": "seq 1 1000"}));
    root.ended(&id);
    let read = |query: &str| {
        let path = format!("/processor/jobs/{id}/log?{query}");
        let answer = root.cgi("GET", &path, &[], b"").expect(200);
        (answer.body.clone(), answer.header("X-Corkboard-Offset").unwrap().to_string())
    };
    assert_eq!(read("limit=4"), ("1\n2\n".into(), "4".into()));
    assert_eq!(read("offset=4&limit=4"), ("3\n4\n".into(), "8".into()));
    assert_eq!(read("tail=2").0, "999\n1000\n");
    assert_eq!(read("offset=99999").0, "");
    assert!(read("").0.starts_with("1\n2\n"));
}

#[test]
fn a_log_is_followed_to_its_end() {
    let root = root();
    let go = root.path("go");
    let script = format!("echo one; until [ -e {} ]; do sleep 0.01; done; echo two", go.display());
    let id = submit(&root, json!({"command": script}));
    let dir = root.path(&format!("state/processor/job/{id}/log"));
    std::thread::scope(|scope| {
        let follow = scope
            .spawn(|| root.cgi("GET", &format!("/processor/jobs/{id}/log?follow=1"), &[], b""));
        until("the first line", || fs::read(&dir).is_ok_and(|log| log == b"one\n"));
        fs::write(&go, "").unwrap();
        assert_eq!(follow.join().unwrap().expect(200).body, "one\ntwo\n");
    });
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
fn killing_what_waits_and_what_never_came() {
    let root = root();
    let both = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}});
    let first = submit(&root, both.clone());
    until("it runs", || root.node_status(&first)["state"] == "running");
    let second = submit(&root, both);
    assert!(root.exists(&format!("state/processor/queue/{second}")));
    let end = root.cmd("processor", &["jobs", &second, "kill"]).expect(0).json();
    assert_eq!((&end["state"], &end["cause"]), (&json!("stopped"), &json!("killed")));
    assert!(!root.exists(&format!("state/processor/queue/{second}")));

    let end = root.cmd("processor", &["jobs", "ghost", "kill"]).expect(0).json();
    assert_eq!(end["cause"], "killed");
    let body = json!({"command": ["true"], "request_id": "ghost"}).to_string();
    root.cgi("POST", "/processor/jobs/new", &[], body.as_bytes()).expect(410);
    root.cgi("GET", "/processor/jobs/ghost/status", &[], b"").expect(410);
    root.cmd("processor", &["jobs", &first, "kill", "grace=0"]).expect(0);
    root.ended(&first);
    assert_clean(&root);
}

#[test]
fn a_repeated_request_is_the_same_job() {
    let root = root();
    let post = |request: Value| {
        root.cgi("POST", "/processor/jobs/new", &[], request.to_string().as_bytes())
    };
    let request =
        json!({"command": ["sh", "-c", "echo x >> witness"], "dir": root.dir, "request_id": "r"});
    let answer = post(request.clone()).expect(201);
    assert_eq!(answer.header("Location"), Some("/cgi-bin/processor/jobs/r"));
    assert_eq!(answer.json(), request);
    assert_eq!(post(request.clone()).expect(200).json(), request);
    root.ended("r");
    post(request).expect(200);
    post(json!({"command": ["true"], "request_id": "r"})).expect(422);
    post(json!({"command": ["true"], "requested_resources": {"cores": 3}})).expect(422);
    post(json!({"command": ["true"], "priority": 1})).expect(400);
    post(json!({"command": ["true"], "request_id": "../r"})).expect(400);
    let many =
        json!([{"command": ["true"], "request_id": "s"}, {"command": ["true"], "request_id": "r"}]);
    let many = post(many).expect(200).json();
    assert_eq!(
        (&many["nodejobs"][0]["state"], &many["nodejobs"][1]["code"]),
        (&json!("queued"), &json!(422))
    );
    // What is wrong with one job says nothing of the others.
    let many = post(json!([{"comand": 1}, {"command": ["true"], "request_id": "../t"},
        {"command": ["true"], "request_id": "t"}, 7]));
    let many = many.expect(200).json();
    let codes: Vec<&Value> =
        many["nodejobs"].as_array().unwrap().iter().map(|n| &n["code"]).collect();
    assert_eq!(codes, [&json!(400), &json!(400), &Value::Null, &json!(400)]);
    root.ended("t");
    root.ended("s");
    let (request, story) = ("state/processor/job/t/request.json", "state/processor/job/t/status");
    let kept = (root.read(request), root.read(story));
    root.write(request, "{");
    root.write(story, "");
    let all = root.cgi("GET", "/processor/jobs/status?ids=t,s,.x", &[], b"").expect(200).json();
    assert_eq!(
        (&all[0]["code"], &all[1]["state"], &all[2]["code"]),
        (&json!(500), &json!("stopped"), &json!(404))
    );
    let ack = json!({"nodejobs": ["../x", "s"]}).to_string();
    let ack = root.cgi("POST", "/processor/jobs/ack", &[], ack.as_bytes()).expect(200).json();
    assert_eq!(ack["acknowledged"], 1);
    root.write(request, &kept.0);
    root.write(story, &kept.1);
    assert_eq!(root.read("witness"), "x\n");
    assert_clean(&root);
}

#[test]
fn a_repeat_may_come_from_another_address() {
    let root = root();
    let hold = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}, "request_id": "hold"});
    submit(&root, hold);
    until("hold runs", || root.node_status("hold")["state"] == "running");
    let post = |url: &str, key: &str, command: &str| {
        let request = json!({"command": [command], "request_id": "lab-x-1.1",
            "environment": {"CORKBOARD_URL": url, "CORKBOARD_TOKEN": key}});
        root.cgi("POST", "/processor/jobs/new", &[], request.to_string().as_bytes())
    };
    post("http://a", "k", "true").expect(201);
    post("http://b", "k", "true").expect(200);
    post("http://a", "other", "true").expect(422);
    post("http://a", "k", "false").expect(422);
    let form = |name: &str| {
        let part = |what: &str, content: &str| {
            format!("--b\r\nContent-Disposition: form-data; {what}\r\n\r\n{content}\r\n")
        };
        let body = part("name=\"job\"", r#"{"command": ["true"], "request_id": "up"}"#)
            + &part(&format!("name=\"file\"; filename=\"{name}\""), "x")
            + "--b--\r\n";
        let kind = ("Content-Type", "multipart/form-data; boundary=b");
        root.cgi("POST", "/processor/jobs/new", &[kind], body.as_bytes())
    };
    form("one").expect(201);
    form("one").expect(200);
    form("two").expect(422);
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
fn a_supervisor_that_is_killed_loses_its_job_once() {
    let root = root();
    let pid = root.path("pid");
    let script =
        format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' & sleep 1000", pid.display());
    let id = submit(&root, json!({"command": script}));
    let left = pid_in(&pid);
    let program = root.node_status(&id)["pid"].as_i64().unwrap() as i32;
    let supervisor = root.supervisors()[0];
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
    until("its program dies with it", || !lives(program));
    assert!(lives(left));
    let swept = root.cmd("processor", &["sweep"]).expect(0).json();
    assert_eq!(swept["lost"], 1);
    let end = root.ended(&id);
    assert_eq!((&end["cause"], &end["reason"]), (&json!("lost"), &json!("its supervisor died")));
    assert!(!lives(left));
    assert_eq!(root.cmd("processor", &["sweep"]).expect(0).json()["lost"], 0);
    assert!(root.read("state/processor/events").contains("\"lost\""));
    assert_clean(&root);
}

/// What a supervisor leaves that dies between its claim and the first line of the job.
#[test]
fn one_that_cannot_be_recovered_keeps_no_other_from_it() {
    let root = root();
    for id in ["a", "b"] {
        submit(&root, json!({"command": ["sleep", "1000"], "request_id": id}));
    }
    until("both run", || ["a", "b"].iter().all(|id| root.node_status(id)["state"] == "running"));
    let story = root.path("state/processor/job/a/status");
    fs::rename(&story, root.path("kept")).unwrap();
    fs::create_dir(&story).unwrap();
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    submit(&root, json!({"command": ["true"], "request_id": "c"}));
    assert_eq!(root.ended("c")["status"], "good");
    assert_eq!(root.node_status("b")["cause"], "lost");
    fs::remove_dir(&story).unwrap();
    fs::rename(root.path("kept"), &story).unwrap();
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended("a")["cause"], "lost");
    assert_clean(&root);
}

#[test]
fn claimed_only_waits_again() {
    let root = root();
    let hold = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}, "request_id": "hold"});
    submit(&root, hold);
    until("it runs", || root.node_status("hold")["state"] == "running");
    submit(&root, json!({"command": ["true"], "request_id": "c"}));
    let boot = root.node_status("hold")["boot"].clone();
    let record =
        json!({"pid": 1, "boot": boot, "resources": {"cores": 1, "memory": 0}, "jobs": ["c"]});
    root.write("state/processor/slot/7", &format!("{record}\n"));
    fs::remove_file(root.path("state/processor/queue/c")).unwrap();
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("slot/7: names jobs of a supervisor that died"), "{found}");
    assert_eq!(root.cmd("processor", &["sweep"]).expect(0).json()["requeued"], 1);
    assert!(root.exists("state/processor/queue/c"));
    root.cmd("processor", &["jobs", "hold", "kill"]).expect(0);
    assert_eq!(root.ended("c")["status"], "good");
    assert_clean(&root);
}

#[test]
fn after_a_restart_of_the_machine() {
    let mut root = root();
    let two = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}});
    let ran = submit(&root, two);
    until("it runs", || root.node_status(&ran)["state"] == "running");
    let waits = submit(&root, json!({"command": "echo ran", "requested_resources": {"cores": 2}}));
    let page = root.cmd("processor", &["events"]).expect(0).json();
    let supervisor = root.supervisors()[0];
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another-boot".into()));
    root.cmd("processor", &["sweep"]).expect(0);
    let end = root.ended(&ran);
    assert_eq!(
        (&end["cause"], &end["reason"]),
        (&json!("lost"), &json!("the machine was restarted"))
    );
    assert_eq!(root.ended(&waits)["status"], "good");
    let since = format!("since={}", page["cursor"].as_str().unwrap());
    let gone = root.cmd("processor", &["events", &since]);
    assert!(gone.code == 1 && gone.stderr.contains("another epoch"), "{gone:?}");
    assert_clean(&root);
}

#[test]
fn the_feed_tells_every_end_once_it_is_durable() {
    let root = root();
    let cursor = |page: &Value| format!("since={}", page["cursor"].as_str().unwrap());
    let page = root.cmd("processor", &["events"]).expect(0).json();
    assert_eq!(page["events"], json!([]));
    let id = submit(&root, json!({"command": "sleep 0.2"}));
    let next = root.cmd("processor", &["events", &cursor(&page), "wait=10"]).expect(0).json();
    assert_eq!(
        (&next["events"][0]["id"], &next["events"][0]["state"]),
        (&json!(id), &json!("running"))
    );
    let last = root.cmd("processor", &["events", &cursor(&next), "wait=10"]).expect(0).json();
    assert_eq!(last["events"][0]["state"], "stopped");
    let none = root.cmd("processor", &["events", &cursor(&last), "wait=0.05"]).expect(0).json();
    assert_eq!((&none["events"], &none["cursor"]), (&json!([]), &last["cursor"]));
    root.cgi("GET", "/processor/events?since=abc.12", &[], b"").expect(410);
    root.cgi("GET", "/processor/events?since=abc", &[], b"").expect(400);

    let body = json!({"nodejobs": [id, "unknown"]}).to_string();
    let said = root.cgi("POST", "/processor/jobs/ack", &[], body.as_bytes()).expect(200).json();
    assert_eq!(said["acknowledged"], 1);
    let story = root.path(&format!("state/processor/job/{id}/status"));
    assert_eq!(fs::metadata(story).unwrap().permissions().mode() & 0o777, 0o440);
}

#[test]
fn old_jobs_are_removed_and_others_kept() {
    let root = TestRoot::new("cores = 2\nkeep_jobs = 2h\nkeep_unacknowledged = 2h\n");
    for id in ["old", "young", "lab-7f3k-2.1"] {
        submit(&root, json!({"command": ["true"], "request_id": id}));
        root.ended(id);
    }
    let day = std::time::Duration::from_secs(86_400);
    let hour = std::time::Duration::from_secs(3600);
    let set_age = |id: &str, age| {
        let story = fs::File::options()
            .append(true)
            .open(root.path(&format!("state/processor/job/{id}/status")));
        story.unwrap().set_modified(std::time::SystemTime::now() - age).unwrap();
    };
    set_age("old", day);
    set_age("young", hour);
    set_age("lab-7f3k-2.1", hour);
    let opened = corkboard::board::root::Root::open(&root.dir).unwrap();
    let removed =
        corkboard::processor::cleanup::clean(&opened, std::time::SystemTime::now()).unwrap();
    assert_eq!(removed, 1);
    assert!(!root.exists("state/processor/job/old"));
    assert!(
        root.exists("state/processor/job/young") && root.exists("state/processor/job/lab-7f3k-2.1")
    );
    assert_eq!(fs::read_dir(root.path("state/processor/pid")).unwrap().count(), 2);
    assert_clean(&root);
}

#[test]
fn jobs_are_listed_and_found_by_process() {
    let root = root();
    let end = run(&root, json!({"command": ["true"], "request_id": "a"}));
    run(&root, json!({"command": ["false"], "request_id": "b"}));
    assert_eq!(end["state"], "stopped");
    assert_eq!(root.cmd("processor", &["jobs"]).expect(0).body, "b\na\n");
    assert_eq!(root.cmd("processor", &["jobs", "limit=1"]).expect(0).body, "b\n");
    assert_eq!(root.cmd("processor", &["jobs", "state=running"]).expect(0).body, "");
    let story = root.read("state/processor/job/a/status");
    let line: Value =
        serde_json::from_str(story.lines().find(|l| l.contains("pid")).unwrap()).unwrap();
    let pid = format!("pid={}", line["pid"]);
    assert_eq!(root.cmd("processor", &["jobs", &pid]).expect(0).body, "a\n");
    let found = root.cmd("processor", &["jobs", "status", "ids=a,b,c"]).expect(0).json();
    assert_eq!(
        (&found[0]["status"], &found[1]["code"], &found[2]["code"]),
        (&json!("good"), &json!(1), &json!(404))
    );
    let record = root.cmd("processor", &["jobs", "a"]).expect(0).json();
    assert_eq!(record["request"]["command"], json!(["true"]));
    until("the link has its end", || {
        let names: Vec<String> = fs::read_dir(root.path("state/processor/pid"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.len() == 2 && names.iter().all(|name| name.split('_').count() == 3)
    });
}

#[test]
fn check_finds_planted_damage() {
    let root = root();
    run(&root, json!({"command": ["true"], "request_id": "a"}));
    until("its supervisor has ended", || root.processes().is_empty());
    let job = |name: &str| root.path(&format!("state/processor/job/{name}"));
    fs::write(root.path("state/processor/queue/orphan"), "{}").unwrap();
    fs::hard_link(job("a/request.json"), root.path("state/processor/queue/a")).unwrap();
    fs::create_dir(job("limbo")).unwrap();
    fs::write(job("limbo/request.json"), "{\"command\":[\"true\"]}").unwrap();
    symlink("../job/none", root.path("state/processor/pid/1_2_3")).unwrap();
    let found = root.cmd("processor", &["check"]).expect(1).body;
    for text in [
        "queue/orphan: waits, but has no job",
        "queue/a: waits, but has ended",
        "job/limbo/request.json: is open to others",
        "job/limbo: neither waits nor runs nor has ended",
        "pid/1_2_3: links to a job that is gone",
    ] {
        assert!(found.contains(text), "{text} in {found}");
    }
    assert_eq!(found.lines().count(), 5, "{found}");
    assert_eq!(root.cmd("processor", &["check", "--repair"]).expect(1).body.lines().count(), 5);
    assert_clean(&root);
    assert_eq!(root.node_status("limbo")["cause"], "lost");
    assert_eq!(root.node_status("a")["status"], "good");
}

#[test]
fn through_a_web_server() {
    let root = root();
    let httpd = root.httpd();
    let answer = httpd
        .curl(&["-d", r#"{"command":["echo","hello"],"request_id":"h"}"#], "/processor/job/new")
        .expect(201);
    assert_eq!(answer.header("Location"), Some("/cgi-bin/processor/jobs/h"));
    let end = httpd.curl(&[], "/processor/jobs/h/status?wait=10").expect(200).json();
    assert_eq!(end["status"], "good");
    assert_eq!(httpd.curl(&[], "/processor/jobs/h/log").expect(200).body, "hello\n");
    let both = httpd
        .curl(&["-d", r#"{"command":["sleep","0.2"]}"#], "/processor/jobs/new?wait=10")
        .expect(201)
        .body;
    let lines: Vec<Value> = both.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[0]["state"], &lines[1]["status"]),
        (2, &json!("running"), &json!("good"))
    );

    root.write("input.dat", "some input\n");
    root.write("job.json", r#"{"command":"cat input.dat; echo more > result","request_id":"up"}"#);
    let form = [
        format!("job=@{}", root.path("job.json").display()),
        format!("file=@{}", root.path("input.dat").display()),
    ];
    httpd.curl(&["-F", &form[0], "-F", &form[1]], "/processor/jobs/new").expect(201);
    root.ended("up");
    assert_eq!(httpd.curl(&[], "/processor/jobs/up/log").expect(200).body, "some input\n");
    let files = httpd.curl(&[], "/processor/jobs/up/files").expect(200).json();
    assert_eq!(files["files"], json!(["input.dat", "result"]));
    assert_eq!(httpd.curl(&[], "/processor/jobs/up/files/result").expect(200).body, "more\n");
    symlink("/etc/passwd", root.path("state/processor/job/up/work/link")).unwrap();
    httpd.curl(&[], "/processor/jobs/up/files/link").expect(404);
    httpd.curl(&["-X", "POST"], "/processor/tokens/new?role=admin").expect(403);
    assert_clean(&root);
}

#[test]
fn commands_from_a_shell() {
    let root = root();
    let answer =
        root.cmd("processor", &["jobs", "new", "--wait", "--", "sh", "-c", "echo hi; exit 7"]);
    assert_eq!((answer.code, answer.body.as_str()), (7, "hi\n"), "{answer:?}");
    root.write("env.json", r#"{"X": "y"}"#);
    let env = root.path("env.json");
    let words = [
        "jobs",
        "new",
        "-r",
        "mine",
        "-e",
        env.to_str().unwrap(),
        "-q",
        "--",
        "sh",
        "-c",
        "echo $X",
    ];
    assert_eq!(root.cmd("processor", &words).expect(0).body, "mine\n");
    root.ended("mine");
    assert_eq!(log(&root, "mine"), "y\n");
    root.cmd("processor", &["jobs", "new", "--help"]).expect(0);
    root.cmd("processor", &["jobs", "new", "--nonsense", "--", "x"]).expect(2);
    let token = root.cmd("processor", &["tokens", "new", "role=user", "-q"]).expect(0).body;
    assert!(token.starts_with("cb_"), "{token}");
    let tokens = root.cmd("processor", &["tokens", "ls"]).expect(0).json();
    let id = format!("id={}", tokens["tokens"][0]["id"].as_str().unwrap());
    root.cmd("processor", &["tokens", "rm", &id]).expect(0);
    assert_eq!(root.cmd("processor", &["tokens"]).expect(0).json()["tokens"], json!([]));
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

/// A repeated request whose process dies at any point must not make a job that runs wait again.
#[test]
fn a_repeat_that_dies_does_not_start_a_job_again() {
    let root = root();
    let (go, witness) = (root.path("go"), root.path("witness"));
    let script = format!(
        "echo x >> {}; until [ -e {} ]; do sleep 0.01; done",
        witness.display(),
        go.display()
    );
    let request = json!({"command": script, "request_id": "r"});
    submit(&root, request.clone());
    until("it runs", || root.node_status("r")["state"] == "running");
    // What such a repeat left before it looked first: the link, of an inode of its own.
    root.write("state/processor/queue/r", &request.to_string());
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("queue/r: is not the request"), "{found}");
    root.cmd("processor", &["check", "--repair"]);
    assert!(!root.exists("state/processor/queue/r"));
    // And with the right inode: whoever claims it waits for its supervisor, and finds an end.
    fs::hard_link(
        root.path("state/processor/job/r/request.json"),
        root.path("state/processor/queue/r"),
    )
    .unwrap();
    assert!(root.cmd("processor", &["check"]).expect(1).body.contains("waits, but was started"));
    root.cmd("processor", &["sweep"]).expect(0);
    until("it is claimed", || !root.exists("state/processor/queue/r"));
    fs::write(&go, "").unwrap();
    assert_eq!(root.ended("r")["status"], "good");
    until("nobody has it", || root.supervisors().is_empty());
    assert_eq!(root.read("witness"), "x\n");
    assert_clean(&root);
}
