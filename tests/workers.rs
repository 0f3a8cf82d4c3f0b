//! Workers: what a job, its files and its output are on a node that nobody reaches, and what becomes of them
//! when the worker ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{CONF, Door, drain_localhost};
use common::node::assert_clean;
use common::worker::{Worker, at_work, command, connected, invited};
use common::{Httpd, SOON, TestRoot, wait_for};
use serde_json::{Value, json};

/// An open head whose own machine takes no jobs, with a poller.
fn head() -> (TestRoot, Httpd, common::head::Poller) {
    head_with("")
}

/// The same with these settings.
fn head_with(more: &str) -> (TestRoot, Httpd, common::head::Poller) {
    let head = TestRoot::new(&format!("{CONF}{more}"));
    head.open();
    drain_localhost(&head);
    let (httpd, poller) = (head.httpd(), head.poller());
    (head, httpd, poller)
}

fn ended(head: &TestRoot, job: u64) -> Value {
    head.reaches(job, "stopped")
}

/// Appends a line to a file of the worker, so that it is seen how often it ran.
fn witness(root: &TestRoot, what: &str) -> String {
    format!("echo {what} >> {}", root.path("witness").display())
}

#[test]
fn jobs_run_where_nobody_reaches_them() {
    let (head, httpd, _poller) = head();
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let door = Door::Web(&httpd);
    let jobs: Vec<u64> = (0..20)
        .map(|number| door.submit(&json!({"command": witness(&root, &number.to_string())})))
        .collect();
    let array = json!({"command": "echo task $CORKBOARD_TASK", "array": "1-8"});
    let array = door.submit(&array);
    for job in jobs.iter().chain([&array]) {
        let status = ended(&head, *job);
        assert_eq!(
            (&status["status"], &status["node"]),
            (&json!("good"), &json!("lap")),
            "{status}"
        );
    }
    assert_eq!(root.read("witness").lines().count(), 20);
    // Files go there, and come back.
    let sent = head.path("input.dat");
    fs::write(&sent, "x".repeat(3 << 20)).unwrap();
    let request = json!({"command": "wc -c < input.dat; tr x y < input.dat > out.dat"});
    head.write("job.json", &request.to_string());
    let job = format!("job=@{}", head.path("job.json").display());
    let file = format!("file=@{}", sent.display());
    let answer = httpd.curl(&["-F", &job, "-F", &file], "/scheduler/jobs/new").expect(201);
    let job = answer.json()["job"].as_u64().unwrap();
    assert_eq!(ended(&head, job)["status"], "good");
    assert_eq!(head.log(job), format!("{}\n", 3 << 20));
    let out = httpd.curl(&[], &format!("/scheduler/jobs/{job}/files/out.dat")).expect(200).body;
    assert!(out.len() == 3 << 20 && out.bytes().all(|byte| byte == b'y'));
    // A log of a job that goes on, its end, and what asks the node itself.
    let job = door.submit(&json!({"command": "echo begun; exec sleep 600"}));
    head.reaches(job, "running");
    wait_for(SOON, || match head.log(job) {
        log if log == "begun\n" => Ok(()),
        log => Err(log),
    });
    let asked = head.cmd("scheduler", &["jobs", &job.to_string(), "update"]).expect(0).json();
    assert_eq!(asked["state"], "running", "{asked}");
    head.update(job, "kill=1").expect(0);
    assert_eq!(ended(&head, job)["cause"], "killed");
    let one = head.cmd("scheduler", &["workers"]).expect(0).json()["workers"][0].clone();
    assert_eq!(
        (&one["id"], &one["state"], &one["tasks"]),
        (&json!("lap"), &json!("connected"), &json!(0))
    );
    assert!(worker.end("TERM").success());
    let gone = head.cmd("scheduler", &["workers"]).expect(0).json()["workers"][0]["state"].clone();
    assert_eq!(gone, "disconnected", "it has taken leave");
    head.check();
    assert_clean(&root);
}

#[test]
fn jobs_outlive_the_worker() {
    for signal in ["TERM", "KILL"] {
        let (head, httpd, _poller) = head();
        let (root, worker) = at_work(&head, &httpd.url(), "");
        let door = Door::Web(&httpd);
        let go = root.path("go").display().to_string();
        let until = format!("{}; until [ -e {go} ]; do sleep 0.05; done", witness(&root, "ran"));
        let job = door.submit(&json!({ "command": until }));
        head.reaches(job, "running");
        worker.end(signal);
        root.write("go", "");
        // It ends while nobody tells of it, and another one waits for its node.
        wait_for(SOON, || {
            let left = root.supervisors();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let later = door.submit(&json!({"command": witness(&root, "later")}));
        let worker = Worker::start(&root, &httpd.url(), &[]);
        assert_eq!(ended(&head, job)["status"], "good", "{signal}");
        assert_eq!(ended(&head, later)["status"], "good", "{signal}");
        assert_eq!(root.read("witness"), "ran\nlater\n", "{signal}");
        drop(worker);
        head.check();
        assert_clean(&root);
    }
}

#[test]
fn a_root_has_one_worker_and_a_copy_is_another_root() {
    let (head, httpd, _poller) = head();
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let second = command(&root, &httpd.url(), &[]).status().unwrap();
    assert_eq!(second.code(), Some(75));
    let uri = || connected(&head)["uri"].clone();
    let before = uri();
    let own: Value = serde_json::from_str(&root.read("state/worker/id")).unwrap();
    assert_eq!(before, format!("worker:{}", own["id"].as_str().unwrap()));
    worker.end("TERM");
    // The same root is the same node.
    let worker = Worker::start(&root, &httpd.url(), &[]);
    connected(&head);
    assert_eq!(uri(), before);
    worker.end("TERM");
    let copy = TestRoot::new(CONF);
    fs::create_dir_all(copy.path("state/worker")).unwrap();
    for name in ["id", "token"] {
        copy.write(&format!("state/worker/{name}"), &root.read(&format!("state/worker/{name}")));
    }
    copy.write("token", root.read("state/worker/token").trim());
    let _worker = Worker::start(&copy, &httpd.url(), &[]);
    wait_for(SOON, || {
        let now = head.cmd("scheduler", &["nodes", "lap"]).expect(0).json();
        if now["uri"] != before && now["state"] == "connected" {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    head.check();
}

#[test]
fn options_may_stand_in_a_file() {
    let (head, httpd, _poller) = head();
    let root = invited(&head, "");
    let with = |text: &str| {
        root.write("worker.conf", text);
        let mut command = root.base("worker");
        command.args(["-f", "worker.conf"]).current_dir(&root.dir).env_remove("PATH");
        command
    };
    for (wrong, said) in [
        ("hed = http://h", "worker.conf, line 1: there is no option \"hed\""),
        ("\nname = a\nname = b", "worker.conf, line 3: name is set twice"),
        ("name", "worker.conf, line 1: not `name = value`"),
        ("name = lap", "--head is missing"),
        ("head = http://h:1", "--token-file is missing"),
        ("head = http://h:1\ntoken-file = token\ncores = many", "a whole number of cores"),
        ("head = http://h:1\ntoken-file = none", "none: "),
        ("head = http://h:1\ntoken-file = token\nname = a b", "can be no node's name"),
    ] {
        let output = with(wrong).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(said), "{wrong}: {stderr}");
    }
    let good = format!(
        "head = http://127.0.0.1:9  # nobody is there\nhead = {}\ntoken-file = token\nname = lap\ncores = 1\nlabel = disk=ssd\n",
        httpd.url()
    );
    let mut child = with(&good).spawn().unwrap();
    let node = connected(&head);
    assert_eq!((&node["resources"]["cores"], &node["labels"]["disk"]), (&json!(1), &json!("ssd")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(root.read("corkboard.conf").matches("cores = ").count(), 1);
}

#[test]
fn what_a_head_is_not_heard_of_ends_before_the_head_counts_it_as_lost() {
    let (head, httpd, _poller) = head_with(
        "ping_timer = 500ms\nsilence_timeout = 1s\nlost_after = 10s\ngive_up_after = 3s\n",
    );
    let (root, worker) = at_work(&head, &httpd.url(), "");
    let door = Door::Web(&httpd);
    let stubborn = format!("trap '' TERM; {}; sleep 600", witness(&root, "ran"));
    let plain = door.submit(&json!({ "command": stubborn, "max_termination_time": 600 }));
    let array = door.submit(&json!({ "command": "exec sleep 600", "array": "1-4%1" }));
    head.reaches(plain, "running");
    head.reaches(array, "running");
    worker.end("KILL");
    // The worker is dead: supervisors end it by themselves, whatever grace it has.
    wait_for(SOON, || {
        let left = root.supervisors();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for job in [plain, array] {
        assert_eq!(head.status(job)["state"], "running", "nobody has told the head");
    }
    let id = head.card(plain)[1]["nodejob"].as_str().unwrap().to_string();
    let ended = root.node_status(&id);
    let why = ended["reason"].as_str().unwrap();
    assert!(ended["cause"] == "lost" && why.contains("not heard of for 3s"), "{ended}");
    // What it is given after that is run.
    let _worker = Worker::start(&root, &httpd.url(), &[]);
    assert_eq!(head.reaches(plain, "stopped")["cause"], "lost");
    connected(&head);
    let later = door.submit(&json!({"command": witness(&root, "later")}));
    assert_eq!(ended_good(&head, later)["node"], "lap");
    head.update(array, "kill=1");
    head.reaches(array, "stopped");
    assert_eq!(root.read("witness"), "ran\nlater\n");
    head.check();
    assert_clean(&root);
}

fn ended_good(head: &TestRoot, job: u64) -> Value {
    let status = ended(head, job);
    assert_eq!(status["status"], "good", "{status}");
    status
}
