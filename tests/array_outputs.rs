//! What the tasks of an array leave behind: logs and files, wherever they ran; and what nodes say that
//! are asked at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::array::{root_with, tasks, tasks_reach};
use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::wait_for;
use serde_json::{Value, json};

/// A range, or a job, that a node would not have hides nothing of the run before.
#[test]
fn a_refusal_hides_no_log() {
    for array in [true, false] {
        let root = root_with(1);
        let (_there, httpd, token) = host("max_body = 100\n");
        let _poller = root.poller();
        let mut request =
            json!({"command": "echo out; exit 3", "max_retry_count": 1, "retry_delay": "3s"});
        if array {
            request["array"] = "0".into();
        }
        let job = root.submit(&request);
        wait_for(common::SOON, || {
            let story = root.story(job);
            let failed = story.iter().any(|event| event == "retry" || event == "tasks");
            if failed { Ok(()) } else { Err(format!("{story:?}")) }
        });
        drain_localhost(&root);
        register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
        wait_for(common::SOON, || {
            let story = root.story(job);
            if story.iter().any(|event| event == "refused") {
                Ok(())
            } else {
                Err(format!("{story:?}"))
            }
        });
        let number = job.to_string();
        let mut words = vec!["jobs", &number, "log"];
        if array {
            words.push("task=0");
        }
        let log = |more: &[&str]| {
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            root.cmd("scheduler", &words).expect(0).body
        };
        assert_eq!(log(&[]), "out\n");
        root.update(job, "kill=1").expect(0);
        root.reaches(job, "stopped");
        assert_eq!((log(&[]), log(&["follow=1"])), ("out\n".into(), "out\n".into()));
        root.check();
    }
}

#[test]
fn files_of_all_ranges() {
    let root = root_with(2);
    let _poller = root.poller();
    let httpd = root.httpd();
    let command = "echo $CORKBOARD_TASK > of.$CORKBOARD_TASK; echo $CORKBOARD_TASK > last";
    fs::write(root.path("job.json"), json!({"command": command, "array": "0-3"}).to_string())
        .unwrap();
    fs::write(root.path("input"), "input\n").unwrap();
    let part = |name: &str, file: &str| format!("{name}=@{}", root.path(file).display());
    let parts = [part("job", "job.json"), part("file", "input")];
    let args = ["-F", &parts[0], "-F", &parts[1]];
    let job = httpd.curl(&args, "/scheduler/jobs/new").expect(201).json()["job"].as_u64().unwrap();
    root.reaches(job, "stopped");
    let ranges: Vec<Value> =
        root.card(job).into_iter().filter(|line| line["event"] == "placed").collect();
    assert!(ranges.len() > 1, "{ranges:?}");
    let get = |path: &str| httpd.curl(&[], &format!("/scheduler/jobs/{job}/files{path}"));
    let all = json!({"files": ["input", "last", "of.0", "of.1", "of.2", "of.3"]});
    assert_eq!(get("").expect(200).json(), all);
    for task in 0..4 {
        assert_eq!(get(&format!("/of.{task}")).expect(200).body, format!("{task}\n"));
        let own = get(&format!("?task={task}")).expect(200).json();
        assert!(own["files"].as_array().unwrap().contains(&json!(format!("of.{task}"))), "{own}");
        get(&format!("/last?task={task}")).expect(200);
    }
    let which = get("/last").expect(409).body;
    assert!(which.contains("say which by task=K"), "{which}");
    get("/last?task=9").expect(404);
    get("/none").expect(404);
    root.check();
}

/// One of the nodes does not answer: what the others say is recorded, and the answer names it.
#[test]
fn update_names_the_node_that_is_silent() {
    let root = open_root("");
    let (_there, httpd, token) = host("");
    register(&root, &json!({"name": "there", "uri": httpd.url(), "token": token}));
    let poller = root.poller();
    for node in ["localhost", "there"] {
        node_reaches(&root, node, "connected");
    }
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let job = root.submit(&json!({"command": until, "array": "0-3"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 4);
    poller.end("KILL");
    let port = httpd.port;
    httpd.cut();
    root.write("go", "");
    wait_for(common::SOON, || {
        let answer = root.cmd("scheduler", &["jobs", &job.to_string(), "update"]).expect(0).json();
        assert_eq!(answer["silent"], json!(["there"]));
        if tasks(&answer)["good"] == 2 { Ok(()) } else { Err(answer.to_string()) }
    });
    let _httpd = _there.httpd_on(port);
    let _poller = root.poller();
    assert_eq!(tasks(&root.reaches(job, "stopped"))["good"], 4);
    root.check();
}
