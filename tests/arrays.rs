//! Arrays: one card, many tasks, dealt out to nodes in ranges.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;

use common::array::{noted, ranges, root_with, runs, tasks, tasks_reach};
use common::head::{CONF, both_ways, open_root};
use common::{SOON, TestRoot, wait_for};
use serde_json::{Value, json};

#[test]
fn one_card_many_tasks() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let script =
            "echo task $CORKBOARD_TASK of $CORKBOARD_JOB; [ $CORKBOARD_TASK != 7 ] || exit 3";
        let request = json!({"command": script, "array": "0-9,20", "name": "many"});
        let job = door.submit(&request);
        let end = door.ended(job);
        assert_eq!(
            (&end["status"], &end["cause"], &end["code"]),
            (&json!("error"), &json!("exit"), &json!(3))
        );
        assert_eq!(end["reason"], "1 of 11 tasks failed: 7 (the first: exit 3)");
        let counts = json!({"total": 11, "waiting": 0, "running": 0, "good": 10, "failed": 1, "failed_tasks": "7"});
        assert_eq!(end["tasks"], counts);

        let get = |path: &str| door.get(&format!("/scheduler/jobs/{job}/{path}"));
        let one = get("status?task=7").expect(200).json();
        assert_eq!((&one["state"], &one["reason"]), (&json!("stopped"), &json!("exit 3")));
        assert_eq!(get("status?task=20&wait=1").expect(200).json()["status"], "good");
        assert_eq!(get("log?task=20").expect(200).body, format!("task 20 of {job}\n"));
        assert_eq!(
            get("log?task=7&tail=1&follow=1").expect(200).body,
            format!("task 7 of {job}\n")
        );
        let all = get("log?follow=1").expect(200).body;
        let mut lines: Vec<&str> = all.lines().collect();
        lines.sort_unstable();
        let mut expected: Vec<String> =
            (0..10).chain([20]).map(|task| format!("task {task} of {job}")).collect();
        expected.sort();
        assert_eq!(lines, expected);
        assert!(get("log").expect(400).body.contains("name a task with task=K"));
        assert!(get("status?task=11").expect(404).body.contains("has no task 11"));
        get("log?task=11").expect(404);
        get("status?task=1-2").expect(400);
        get("status?task=x").expect(400);

        let record = door.get(&format!("/scheduler/jobs/{job}")).expect(200).json();
        assert_eq!(record["failures"][0]["tasks"], "7");
        assert_eq!(record["request"]["array"], "0-9,20");
        let plain = door.submit(&json!({"command": ["true"]}));
        door.ended(plain);
        assert!(
            door.get(&format!("/scheduler/jobs/{plain}/status?task=0"))
                .expect(400)
                .body
                .contains("is not an array")
        );
        root.check();
    });
}

#[test]
fn what_is_no_array() {
    both_ways("", |_, door| {
        let refused = |array: &str| {
            let request = json!({"command": ["true"], "array": array});
            door.post("/scheduler/jobs/new", &request).expect(400).body
        };
        assert!(refused("").contains("array: "));
        assert!(refused("9-0").contains("ends before it begins"));
        assert!(refused("0-9%0").contains("after % must stand"));
        assert!(refused("0-1000000").contains("at most 1000000 tasks"));
        assert!(refused("0-9:2").contains("is not an index"));
        let tasks = json!({"command": ["true"], "tasks": "0-3"});
        assert!(
            door.post("/scheduler/jobs/new", &tasks).expect(400).body.contains("unknown field")
        );
        let array = json!({"command": ["true"], "array": "0-3"});
        assert!(
            door.post("/processor/jobs/new", &array).expect(400).body.contains("unknown field")
        );
        // An error names the tasks that there are, but not thousands of pieces.
        let pieces: Vec<String> = (0..1000).map(|index| (index * 2).to_string()).collect();
        let odd = json!({"command": ["true"], "array": pieces.join(","), "state": "held"});
        let job = door.submit(&odd);
        let error = door.get(&format!("/scheduler/jobs/{job}/status?task=1")).expect(404).body;
        assert!(error.contains("has no task 1; it has 0,2,4,") && error.len() < 1000, "{error}");
    });
}

/// Ten thousand tasks cost a few files.
#[test]
fn tasks_have_no_files_of_their_own() {
    let root = open_root("");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "echo $CORKBOARD_TASK", "array": "0-1999"}));
    let end = root.reaches(job, "stopped");
    assert_eq!(tasks(&end)["good"], 2000, "{end}");
    let files: usize = ranges(&root)
        .iter()
        .map(|id| fs::read_dir(root.path(&format!("state/processor/job/{id}"))).unwrap().count())
        .sum();
    assert!(files < 200, "{files} files");
    assert!(root.card(job).len() < 300, "{} lines", root.card(job).len());
    let log = root.cmd("scheduler", &["jobs", &job.to_string(), "log", "task=1234"]).expect(0);
    assert_eq!(log.body, "1234\n");
    root.check();
}

#[test]
fn at_most_so_many_at_a_time() {
    let root = root_with(4);
    let _poller = root.poller();
    let most = root.path("most");
    // Each task notes how many run beside it, by the directories that are there.
    let script = format!(
        "mkdir {0}/at.$CORKBOARD_TASK; sleep 0.05; ls -d {0}/at.* | wc -l >> {0}/counts; rmdir {0}/at.$CORKBOARD_TASK",
        most.display()
    );
    fs::create_dir(&most).unwrap();
    let job = root.submit(&json!({"command": script, "array": "0-15%2"}));
    let end = root.reaches(job, "stopped");
    assert_eq!(tasks(&end)["good"], 16, "{end}");
    let counts = root.read("most/counts");
    assert_eq!(counts.lines().count(), 16);
    assert!(counts.lines().all(|count| count.trim().parse::<u32>().unwrap() <= 2), "{counts}");
    root.check();
}

#[test]
fn failed_tasks_are_tried_again() {
    let root = open_root("");
    let _poller = root.poller();
    // Odd tasks fail the first time; 4 always does.
    let script = format!(
        "[ $CORKBOARD_TASK != 4 ] || exit 9; [ $((CORKBOARD_TASK % 2)) = 0 ] || mkdir {0}/once.$CORKBOARD_TASK 2>&1 && exit $((CORKBOARD_TASK % 2)) || exit 0",
        root.path("").display()
    );
    let command = noted(&root, "ran", &script);
    let job = root.submit(&json!({"command": command, "array": "0-7", "max_retry_count": 2}));
    let end = root.reaches(job, "stopped");
    assert_eq!((&tasks(&end)["failed_tasks"], &tasks(&end)["good"]), (&json!("4"), &json!(7)));
    let ran: Vec<u32> = runs(&root, "ran").into_values().collect();
    assert_eq!(ran, [1, 2, 1, 2, 3, 2, 1, 2]);
    let four = root.cmd("scheduler", &["jobs", &job.to_string(), "status", "task=4"]).expect(0);
    assert_eq!(four.json()["retries"], 2);
    root.check();
}

#[test]
fn killing_one_some_and_all() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        let script = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
        let command = noted(root, "ran", &script);
        let job = door.submit(&json!({"command": command, "array": "0-7", "max_retry_count": 1}));
        wait_for(SOON, || {
            let running = root.status(job)["tasks"]["running"].clone();
            if running == 2 { Ok(()) } else { Err(running.to_string()) }
        });
        let kill = |tasks: &str| {
            door.post(&format!("/scheduler/jobs/{job}/update?kill=1{tasks}"), &Value::Null)
        };
        kill("&task=9").expect(404);
        kill("&task=").expect(400);
        door.post(&format!("/scheduler/jobs/{job}/update?task=1"), &Value::Null).expect(400);
        let first: Vec<u32> = runs(root, "ran").into_keys().collect();
        let one = first[0];
        // One that runs, and one that nobody has started.
        kill(&format!("&task={one},7")).expect(202);
        let status = tasks_reach(root, job, |tasks| tasks["failed"].as_u64() >= Some(1));
        assert_eq!(status["state"], "running");
        let killed = |task: u32| {
            wait_for(SOON, || {
                let path = format!("/scheduler/jobs/{job}/status?task={task}");
                let one = door.get(&path).expect(200).json();
                if one["state"] == "stopped" { Ok(one) } else { Err(one.to_string()) }
            })
        };
        for task in [one, 7] {
            let end = killed(task);
            assert_eq!(
                (&end["cause"], &end["reason"]),
                (&json!("killed"), &json!("killed by open"))
            );
        }
        kill("").expect(202);
        let end = door.ended(job);
        assert_eq!((&end["cause"], &end["reason"]), (&json!("killed"), &json!("killed by open")));
        assert_eq!(
            tasks(&end)["good"].as_u64().unwrap() + tasks(&end)["failed"].as_u64().unwrap(),
            8
        );
        assert!(
            runs(root, "ran").values().all(|count| *count == 1),
            "a killed task is never retried"
        );
        assert!(!runs(root, "ran").contains_key(&7));

        // What waits ends at once.
        let held = door.submit(&json!({"command": ["true"], "array": "0-3", "state": "held"}));
        let path = format!("/scheduler/jobs/{held}/update?kill=1&task=0-1");
        let half = door.post(&path, &Value::Null).expect(200).json();
        assert_eq!(
            (&half["state"], &tasks(&half)["failed_tasks"]),
            (&json!("held"), &json!("0-1"))
        );
        let path = format!("/scheduler/jobs/{held}/update?kill=1");
        let all = door.post(&path, &Value::Null).expect(200).json();
        assert_eq!((&all["state"], &all["cause"]), (&json!("stopped"), &json!("killed")));
        root.check();
    });
}

#[test]
fn an_array_is_held_while_some_of_it_runs() {
    let root = open_root("range_time = 0s\n");
    let _poller = root.poller();
    let until = format!("until [ -e {}/go ]; do sleep 0.02; done", root.path("").display());
    let job = root.submit(&json!({"command": until, "array": "0-9"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 2);
    root.update(job, "hold=1").expect(0);
    root.write("go", "");
    // Those that ran end, and ranges give the rest back at once, which then is held.
    let held = root.reaches(job, "held");
    assert!(tasks(&held)["waiting"].as_u64() > Some(0), "{held}");
    let by = root.card(job)[0]["by"].as_str().unwrap().to_string();
    assert_eq!(held["reason"], format!("held by {by} until released"));
    root.update(job, "release=1").expect(0);
    let end = root.reaches(job, "stopped");
    assert_eq!(tasks(&end)["good"], 10, "{end}");
    root.check();
}

/// A range gives back what it could not start in time, and others take it.
#[test]
fn long_tasks_are_dealt_out_anew() {
    let root = open_root("range_time = 100ms\n");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": "sleep 0.15", "array": "0-7"}));
    let end = root.reaches(job, "stopped");
    assert_eq!(tasks(&end)["good"], 8, "{end}");
    let placed = root.story(job).iter().filter(|event| *event == "placed").count();
    assert_eq!(placed, 8, "each range ran one task: {:?}", root.story(job));
    root.check();
}

#[test]
fn what_waits_expires_and_what_runs_times_out() {
    let root = root_with(1);
    let _poller = root.poller();
    let slow = json!({"command": "sleep 60", "array": "0-1%1", "timeout": "200ms"});
    let job = root.submit(&slow);
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["cause"], &tasks(&end)["failed"]), (&json!("timeout"), &json!(2)));
    let wide = json!({"cores": 64});
    let job = root.submit(
        &json!({"command": ["true"], "array": "0-3", "expires": "300ms", "requested_resources": wide}),
    );
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["cause"], &tasks(&end)["failed"]), (&json!("expired"), &json!(4)));
    root.check();
}

/// A node alone runs a range, too.
#[test]
fn a_range_without_a_head() {
    let root = TestRoot::new(CONF);
    let request = json!({"command": "echo $CORKBOARD_TASK >&2; exit $CORKBOARD_TASK", "tasks": "0-2", "request_id": "r", "output": "split"});
    root.cmd_in("processor", &["jobs", "new"], &request.to_string()).expect(0);
    let end = root.ended("r");
    assert_eq!((&end["status"], &end["reason"]), (&json!("error"), &json!("2 of 3 tasks failed")));
    assert_eq!(end["tasks"]["good"], "0");
    assert_eq!(
        end["tasks"]["failed"][1],
        json!({"tasks": "2", "status": "error", "cause": "exit", "code": 2, "reason": "exit 2"})
    );
    let processor = |words: &[&str]| root.cmd("processor", words);
    assert_eq!(processor(&["jobs", "r", "log", "stream=stderr", "task=1"]).expect(0).body, "1\n");
    assert_eq!(processor(&["jobs", "r", "log", "stream=stderr"]).expect(0).body, "0\n1\n2\n");
    assert_eq!(processor(&["jobs", "r", "status", "task=2", "wait=1"]).expect(0).json()["code"], 2);
    processor(&["jobs", "r", "status", "task=3"]).expect(1);
    processor(&["jobs", "r", "kill", "task=1"]).expect(0);
    processor(&["jobs", "r", "kill", "task=3"]).expect(1);
    root.check();
}

#[test]
fn as_a_command() {
    let root = open_root("");
    let words = [
        "jobs",
        "new",
        "--array",
        "0-4",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo $CORKBOARD_TASK; exit $((CORKBOARD_TASK / 4))",
    ];
    let answer = root.cmd("scheduler", &words).expect(1);
    let mut lines: Vec<&str> = answer.body.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1", "2", "3", "4"]);
    assert!(answer.stderr.contains("1 of 5 tasks failed: 4 (the first: exit 1)"), "{answer:?}");
    root.check();
}

/// What a supervisor claimed together with a range of short tasks does not wait for its end.
#[test]
fn a_range_keeps_nobody_waiting() {
    let root = TestRoot::new("cores = 8\nmemory = 4 GiB\n");
    let one = |name: String| json!({"command": ["true"], "request_id": name});
    let short =
        |name: String| json!({"command": ["sleep", "0.01"], "tasks": "0-9999", "request_id": name});
    let ranges: Vec<String> = (0..4).map(|index| format!("range{index}")).collect();
    let mut jobs: Vec<Value> = (0..300).map(|index| one(format!("one{index}"))).collect();
    for (index, range) in ranges.iter().enumerate() {
        jobs.insert(80 + 7 * index, short(range.clone()));
    }
    root.cmd_in("processor", &["jobs", "new"], &json!(jobs).to_string()).expect(0);
    for index in 0..300 {
        root.ended(&format!("one{index}"));
    }
    for range in &ranges {
        assert_ne!(root.node_status(range)["state"], "stopped");
        root.cmd("processor", &["jobs", range, "kill", "grace=0"]).expect(0);
    }
    ranges.iter().for_each(|range| _ = root.ended(range));
    root.check();
}

/// A task is killed while the poller is about to record the end of another one: its node is told.
#[test]
fn killing_a_task_while_another_is_recorded() {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 10m\n");
    root.open();
    let _poller = root.poller_with(&["--pace", "500ms"]);
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
    let script = format!("[ $CORKBOARD_TASK = 0 ] && exec sleep 300; {wait}");
    let job = root.submit(&json!({"command": script, "array": "0-1"}));
    tasks_reach(&root, job, |tasks| tasks["running"] == 2);
    root.write("go", "");
    wait_for(SOON, || {
        let ended = ranges(&root).iter().any(|id| root.node_status(id)["state"] == "stopped");
        if ended { Ok(()) } else { Err("task 1 has not ended".into()) }
    });
    root.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1", "task=0"]).expect(0);
    let end = root.reaches(job, "stopped");
    assert_eq!((&tasks(&end)["good"], &tasks(&end)["failed_tasks"]), (&json!(1), &json!("0")));
    root.check();
}
