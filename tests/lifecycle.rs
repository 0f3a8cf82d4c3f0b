//! A job's life at the head: waiting and why, order, ends of every kind, retries, who submitted
//! whom, and what is left when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::head::{both_ways, open_root};
use common::{SOON, TestRoot, wait_for};
use serde_json::{Value, json};

/// A command that runs until the test writes this file.
fn until(root: &TestRoot, name: &str) -> Value {
    let file = root.path(name);
    json!(format!("until [ -e {} ]; do sleep 0.02; done", file.display()))
}

#[test]
fn held_jobs_wait_until_released() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let job = door.submit(&json!({"command": ["true"], "state": "held"}));
        let after = door.submit(&json!({"command": ["true"]}));
        door.ended(after); // the poller has seen both
        let status = door.get(&format!("/scheduler/jobs/{job}/status")).expect(200).json();
        assert_eq!(status["state"], "held");
        assert_eq!(status["reason"], "held by open until released");
        let update =
            |query: &str| door.post(&format!("/scheduler/jobs/{job}/update?{query}"), &Value::Null);
        update("hold=1").expect(200);
        assert_eq!(root.story(job), Vec::<String>::new(), "holding what is held is no event");
        update("hold=1&release=1").expect(400);
        let released = update("release=1&priority=5").expect(200).json();
        assert_ne!(released["state"], "held");
        assert_eq!(door.ended(job)["status"], "good");
        assert_eq!(root.story(job)[..2], ["priority", "released"]);
        for query in ["hold=1", "release=1", "priority=1"] {
            update(query).expect(409);
        }
        update("kill=1").expect(200); // ended already: nothing to do
        assert_eq!(door.ended(job)["status"], "good");
        root.check();
    });
}

#[test]
fn priority_is_honoured() {
    let root = open_root("");
    let order = root.path("order");
    let job = |priority: i64| {
        let script = format!("echo $CORKBOARD_JOB >> {}", order.display());
        let cores = json!({"cores": 2}); // one at a time
        root.submit(&json!({"command": script, "priority": priority, "requested_resources": cores}))
    };
    let (low, first, high, raised) = (job(-1), job(0), job(7), job(0));
    let second = job(0);
    root.update(raised, "priority=9").expect(0);
    let _poller = root.poller();
    root.reaches(low, "stopped");
    let expected = [raised, high, first, second, low].map(|n| format!("{n}\n")).concat();
    assert_eq!(root.read("order"), expected);
    root.check();
}

#[test]
fn kill_in_every_state() {
    both_ways("", |root, door| {
        let kill =
            |job: u64| door.post(&format!("/scheduler/jobs/{job}/update?kill=1"), &Value::Null);
        let held = door.submit(&json!({"command": ["true"], "state": "held"}));
        let queued = door.submit(&json!({"command": ["true"], "max_retry_count": 3}));
        for job in [held, queued] {
            let end = kill(job).expect(200).json();
            assert_eq!((&end["state"], &end["cause"]), (&json!("stopped"), &json!("killed")));
            assert_eq!(
                (&end["status"], &end["reason"]),
                (&json!("error"), &json!("killed by open"))
            );
            assert_eq!(kill(job).expect(200).json(), end, "the first end stands");
            assert_eq!(root.story(job), ["stopped"]);
        }
        let _poller = root.poller();
        let running = door.submit(&json!({"command": ["sleep", "100"], "max_retry_count": 3}));
        root.reaches(running, "running");
        assert_eq!(kill(running).expect(202).json()["state"], "stopping");
        let end = door.ended(running);
        assert_eq!((&end["cause"], &end["reason"]), (&json!("killed"), &json!("killed by open")));

        let script = format!("trap '' TERM; {}", until(root, "never").as_str().unwrap());
        let stubborn = json!({"command": script, "max_termination_time": 0.5});
        let stubborn = door.submit(&stubborn);
        root.reaches(stubborn, "running");
        kill(stubborn).expect(202);
        assert_eq!(kill(stubborn).expect(202).json()["state"], "stopping");
        assert_eq!(door.ended(stubborn)["cause"], "killed");
        assert_eq!(root.story(stubborn), ["placed", "running", "stopping", "stopped"]);
        root.check();
    });
}

#[test]
fn kill_of_a_placed_job_prevents_its_start() {
    let root = open_root("");
    // With its processor's queue stopped up by a job of the node itself, a placed job waits there.
    let busy = json!({"command": until(&root, "go"), "requested_resources": {"cores": 2}});
    let own = root.cmd_in("processor", &["jobs", "new", "-q"], &busy.to_string()).expect(0).body;
    let started = root.path("started");
    let job = root.submit(&json!({"command": ["touch", started]}));
    let _poller = root.poller();
    root.reaches(job, "placed");
    root.reason(job, "placed on localhost, which has not started it yet");
    root.update(job, "hold=1").expect(1);
    root.update(job, "kill=1").expect(0);
    let end = root.reaches(job, "stopped");
    assert_eq!(end["cause"], "killed");
    root.write("go", "");
    root.ended(own.trim());
    assert!(!root.exists("started"));
    root.check();
}

#[test]
fn timeouts_and_expiry() {
    let root = open_root("");
    let _poller = root.poller();
    let slow = root
        .submit(&json!({"command": ["sleep", "100"], "timeout": "300ms", "max_retry_count": 1}));
    let large = root.submit(
        &json!({"command": ["true"], "requested_resources": {"cores": 8}, "expires": "1s"}),
    );
    let held = root.submit(&json!({"command": ["true"], "state": "held", "expires": 1}));
    let quick = root.submit(&json!({"command": ["true"], "expires": "1h"}));
    for job in [large, held] {
        let end = root.reaches(job, "stopped");
        assert_eq!((&end["cause"], &end["status"]), (&json!("expired"), &json!("error")));
        assert_eq!(end["reason"], "expired before a node had room");
    }
    let end = root.reaches(slow, "stopped");
    assert_eq!(
        (&end["cause"], &end["reason"]),
        (&json!("timeout"), &json!("timed out after 300ms"))
    );
    assert_eq!(end["attempt"], 2, "a timeout is a proven end and is retried");
    assert_eq!(root.reaches(quick, "stopped")["status"], "good");
    let late = r#"{"command": ["true"], "expires": "2020-01-01T00:00:00Z"}"#;
    let refused = root.cmd("scheduler", &["jobs", "new", "-d", late]).expect(1);
    assert!(refused.stderr.contains("expires lies in the past"), "{refused:?}");
    root.check();
}

#[test]
fn retries_prefer_another_node() {
    let root = open_root("");
    let other = open_root("");
    let httpd = other.httpd();
    let node = json!({"name": "other", "uri": httpd.url()});
    root.cmd_in("scheduler", &["nodes", "new"], &node.to_string()).expect(0);
    let _poller = root.poller();
    wait_for(SOON, || {
        let node = root.cmd("scheduler", &["nodes", "other"]).expect(0).json();
        if node["state"] == "connected" { Ok(()) } else { Err(node.to_string()) }
    });
    let request = json!({"command": "exit 3", "max_retry_count": 2, "retry_delay": "600ms"});
    let job = root.submit(&request);
    root.reason(job, "waiting until ");
    root.reason(job, "(attempt 1 ended: exit 3)");
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["attempt"], &end["code"]), (&json!(3), &json!(3)));
    let record = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
    let nodes: Vec<&Value> =
        record["attempts"].as_array().unwrap().iter().map(|a| &a["node"]).collect();
    assert_ne!(nodes[0], nodes[1], "{nodes:?}");
    let time = |at: &Value| humantime::parse_rfc3339(at.as_str().unwrap()).unwrap();
    let attempts = &record["attempts"];
    let pause = time(&attempts[1]["placed_at"]).duration_since(time(&attempts[0]["ended_at"]));
    assert!(pause.unwrap().as_millis() >= 600, "{attempts}");
    // Good at last, and no attempt after that.
    let marker = root.path("tried");
    let script = format!("[ -e {0} ] || {{ touch {0}; exit 1; }}", marker.display());
    let job = root.submit(&json!({"command": script, "max_retry_count": 5}));
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["status"], &end["attempt"]), (&json!("good"), &json!(2)));
    root.check();
    other.check();
}

#[test]
fn every_waiting_job_has_a_reason() {
    let root = open_root("");
    let large = root.submit(&json!({"command": ["true"], "requested_resources": {"cores": 8}}));
    root.reason(large, "no poller is running");
    let _poller = root.poller();
    root.reason(large, "no node has 8 cores");
    let huge =
        root.submit(&json!({"command": ["true"], "requested_resources": {"memory": "1 TiB"}}));
    root.reason(huge, "no node has 1 core, 1 TiB memory");
    let busy =
        root.submit(&json!({"command": until(&root, "go"), "requested_resources": {"cores": 2}}));
    assert_eq!(root.reaches(busy, "running")["reason"], Value::Null);
    let next = root.submit(&json!({"command": ["true"]}));
    root.reason(next, "waiting for room on localhost");
    let drain = r#"{"drain": true}"#;
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", drain]).expect(0);
    root.reason(next, "nodes with 1 core take no new jobs (drain): localhost");
    root.write("go", "");
    root.reaches(busy, "stopped");
    assert_eq!(root.status(next)["state"], "queued");
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", r#"{"drain": null}"#]).expect(0);
    assert_eq!(root.reaches(next, "stopped")["status"], "good");
    root.update(large, "kill=1").expect(0);
    root.update(huge, "kill=1").expect(0);
    root.check();
}

#[test]
fn jobs_that_submit_jobs() {
    let mut root = open_root("");
    let httpd = root.httpd();
    std::fs::create_dir_all(root.path("run")).unwrap();
    root.write("run/url", &httpd.url());
    root.env.push(("CORKBOARD_URL".into(), "http://nowhere".into())); // the poller's own: not a job's
    let _poller = root.poller();
    let script = r#"
curl -sf -H "Authorization: Bearer $CORKBOARD_TOKEN" -d '{"command": ["echo", "by \"url\""]}' $CORKBOARD_URL/scheduler/jobs/new &&
$CORKBOARD_ROOT/cgi-bin/scheduler jobs new -q -- sh -c '$CORKBOARD_ROOT/cgi-bin/scheduler jobs new --name grandchild -q -- true'"#;
    let top = root.submit(&json!({"command": script, "name": "top"}));
    assert_eq!(root.reaches(top, "stopped")["status"], "good", "{}", root.log(top));
    wait_for(SOON, || {
        if root.exists("state/scheduler/children/3") { Ok(()) } else { Err(root.tree()) }
    });
    for job in 2..=4 {
        assert_eq!(root.reaches(job, "stopped")["status"], "good");
    }
    let record = |job: u64| root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
    assert_eq!(record(1)["children"], json!([2, 3]));
    assert_eq!((&record(2)["parent"], &record(2)["by"]), (&json!(1), &json!("job 1")));
    assert_eq!((&record(3)["parent"], &record(4)["parent"]), (&json!(1), &json!(3)));
    assert_eq!(
        root.read("state/scheduler/children/1").split_whitespace().collect::<Vec<_>>(),
        ["2", "3"]
    );

    let graph = |job: u64, query: &str| {
        httpd.curl(&[], &format!("/scheduler/jobs/{job}/graph{query}")).expect(200).body
    };
    let whole: Value = serde_json::from_str(&graph(4, "")).unwrap();
    assert_eq!((&whole["root"], &whole["cut"]), (&json!(1), &json!(false)));
    let edges =
        json!([{"parent": 1, "child": 2}, {"parent": 1, "child": 3}, {"parent": 3, "child": 4}]);
    assert_eq!(whole["edges"], edges);
    assert_eq!(whole["jobs"][3]["name"], "grandchild");
    let dot = graph(1, "?format=dot");
    for line in [
        "digraph jobs {",
        "  1 [label=\"1: top\\ngood\"];",
        "  2 [label=\"2: echo by \\\"url\\\"\\ngood\"];",
        "  1 -> 3;",
        "  3 -> 4;",
    ] {
        assert!(dot.lines().any(|l| l == line), "{line} in {dot}");
    }
    let mermaid = graph(1, "?format=mermaid");
    assert!(mermaid.starts_with("graph TD\n"), "{mermaid}");
    assert!(
        mermaid.contains("  j3 --> j4\n") && mermaid.contains("  j4[\"4: grandchild (good)\"]\n"),
        "{mermaid}"
    );
    httpd.curl(&[], "/scheduler/jobs/1/graph?format=png").expect(400);

    // Named by hand, in an array, each its own parent.
    let array = json!([{"command": ["true"], "parent": 2}, {"command": ["true"], "parent": 4}]);
    root.cmd_in("scheduler", &["jobs", "new"], &array.to_string()).expect(0);
    root.reaches(6, "stopped");
    root.reaches(5, "stopped");
    assert_eq!((&record(2)["children"], &record(4)["children"]), (&json!([5]), &json!([6])));
    root.cmd("scheduler", &["jobs", "new", "-d", r#"{"command": "x", "parent": 99}"#]).expect(1);
    root.check();
}

#[test]
fn clean_up_by_age_and_count() {
    let root = open_root("keep_done = 10d\nkeep_done_count = 3\n");
    let poller = root.poller(); // it cleans up at its start, and not again so soon
    let first = json!({"command": ["true"], "request_id": "first"});
    assert_eq!(root.submit(&first), 1);
    for _ in 0..4 {
        root.submit(&json!({"command": ["true"]}));
    }
    let held = root.submit(&json!({"command": ["true"], "state": "held"}));
    for job in 1..=5 {
        root.reaches(job, "stopped");
    }
    assert!(poller.end("TERM").success());
    root.write("state/scheduler/bad/9.job", "what");
    let age = |name: &str, days: u64| {
        let file = std::fs::File::options().write(true).open(root.path(name)).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        file.set_modified(time).unwrap();
    };
    age("state/scheduler/bad/9.job", 100);
    age("state/scheduler/done/0/4.job", 11);
    age("state/scheduler/done/0/1.job", 11);
    age(&format!("state/scheduler/queue/{held}.job"), 1000);
    let said = root.cmd("poller", &["--once"]).expect(0).stderr;
    assert!(said.contains("clean-up: "), "{said}");
    // 3 of 5 by count (5, 4, 3), and of those 4 by age; the claim of 1 went with its card.
    let nodes = "nodes/localhost.json\n";
    assert_eq!(root.tree(), format!("done/0/3.job\ndone/0/5.job\n{nodes}queue/{held}.job\n"));
    root.cmd("scheduler", &["jobs", "4"]).expect(1);
    assert_eq!(root.submit(&first), held + 1, "the id is free, the number is new");
    root.check();
    // Numbers go on, whatever is removed.
    std::fs::remove_dir_all(root.path("state/scheduler/done")).unwrap();
    std::fs::create_dir(root.path("state/scheduler/done")).unwrap();
    assert_eq!(root.submit(&json!({"command": ["true"]})), held + 2);
    root.check();
}

/// Whoever has mended what made a job fail does not wait for the time after which it would be tried again.
#[test]
fn what_is_released_is_tried_again_at_once() {
    let root = open_root("");
    let _poller = root.poller();
    let go = root.path("go");
    for more in [json!({}), json!({"array": "0-2"})] {
        let _ = fs::remove_file(&go);
        let mut request = json!({"max_retry_count": 1, "retry_delay": "1h"});
        request["command"] = format!("[ -e {} ]", go.display()).into();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let job = root.submit(&request);
        wait_for(SOON, || {
            let status = root.status(job);
            let reason = status["reason"].as_str().unwrap_or_default();
            let waits = status["state"] == "queued" && reason.starts_with("waiting until");
            if waits { Ok(()) } else { Err(status.to_string()) }
        });
        fs::write(&go, "").unwrap();
        root.update(job, "release=1").expect(0);
        let end = root.reaches(job, "stopped");
        assert_eq!(end["status"], "good", "{end}");
        let released = |card: &[Value]| card.iter().any(|line| line["event"] == "released");
        assert!(released(&root.card(job)), "{:?}", root.card(job));
    }
    root.check();
}
