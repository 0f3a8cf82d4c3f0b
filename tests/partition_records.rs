//! Records of partitions: made and changed by routes and by hand, and seen as soon as anything is done to them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use common::head::{Poller, both_ways, node_reaches};
use common::partitions::{change, error, make, objections, path, until_file, write_over};
use common::{TestRoot, until, wait_for};
use serde_json::{Value, json};

#[test]
fn they_are_made_shown_changed_and_removed() {
    both_ways("", |root, door| {
        let list = || door.get("/scheduler/partitions").expect(200).json();
        assert_eq!(list(), json!({"partitions": []}));
        assert!(!root.exists("state/scheduler/partitions"), "none, and no directory for them");
        let gpu = json!({"name": "gpu", "constraints": {"arch": {"exists": true}}, "max_cores": 8,
            "max_jobs_per_user": 2, "defaults": {"timeout": "1h"}, "users": ["ada"],
            "priority": 5});
        let made = door.post("/scheduler/partitions/new", &gpu).expect(201);
        assert!(made.header("Location").unwrap().ends_with("/scheduler/partitions/gpu"));
        assert_eq!(made.json(), gpu);
        let record = root.read(&path("gpu"));
        assert_eq!(serde_json::from_str::<Value>(&record).unwrap(), gpu);
        assert!(record.contains("\n  \"max_cores\": 8,\n"), "for people: {record}");
        assert_eq!(door.post("/scheduler/partitions/new", &gpu).expect(200).json(), gpu);
        let other = json!({"name": "gpu", "max_cores": 9});
        let said = error(door.post("/scheduler/partitions/new", &other).expect(409));
        assert!(said.contains("change it with partitions/gpu/update"), "{said}");

        let change = json!({"max_cores": null, "users": null, "priority": -1, "name": "gpu"});
        let changed = door.post("/scheduler/partitions/gpu/update", &change).expect(200).json();
        assert_eq!((&changed["priority"], &changed["max_jobs_per_user"]), (&json!(-1), &json!(2)));
        assert!(changed.get("max_cores").is_none() && changed.get("users").is_none());
        let shown = door.get("/scheduler/partitions/gpu").expect(200).json();
        assert_eq!(shown["in_use"], json!({"jobs": 0, "cores": 0}));
        assert_eq!(list(), json!({"partitions": [shown]}));
        let table = root.cmd("scheduler", &["partitions", "format=table"]).expect(0).body;
        assert!(table.starts_with("PARTITION  PRIORITY"), "{table}");
        let one = root.cmd("scheduler", &["partitions", "gpu"]).expect(0).json();
        assert_eq!(one["name"], "gpu");

        for (request, why) in [
            (json!({"name": "x", "max_gpus": 1}), "unknown field \"max_gpus\" of a partition"),
            (json!({"name": "x", "max_jobs": 0}), "max_jobs must be at least 1"),
            (json!({"name": "x", "max_cores": -2}), "invalid value"),
            (json!({"name": "x", "max_cores_per_user": 0.5}), "invalid type"),
            (json!({"name": "x", "constraints": {"a": {"like": 1}}}), "no operator \"like\""),
            (json!({"name": "x", "node": "../x"}), "node must be the name of a node"),
            (json!({"name": "x", "defaults": {"command": "true"}}), "\"command\" is no field"),
            (json!({"name": "x", "defaults": {"timeout": "soon"}}), "not a duration"),
            (json!({"name": "x", "users": "ada"}), "invalid type"),
            (json!({"name": "../x"}), "a partition needs a name"),
            (json!({"name": "new"}), "a partition needs a name"),
            (json!({}), "a partition needs a name"),
            (json!(["x"]), "must be a JSON object"),
        ] {
            let said = error(door.post("/scheduler/partitions/new", &request).expect(400));
            assert!(said.contains(why), "{request}: {said}");
        }
        for (change, why) in [
            (json!({"name": "cpu"}), "name cannot be changed"),
            (json!({"max_jobs": 0}), "must be at least 1"),
            (json!({"nodes": []}), "unknown field \"nodes\""),
        ] {
            let said = error(door.post("/scheduler/partitions/gpu/update", &change).expect(400));
            assert!(said.contains(why), "{change}: {said}");
        }
        assert_eq!(door.get("/scheduler/partitions/gpu").expect(200).json(), shown);

        let empty = Value::Null;
        let removed = door.post("/scheduler/partitions/gpu/remove", &empty).expect(200).json();
        assert_eq!(removed, changed);
        assert!(!root.exists(&path("gpu")));
        for path in ["/scheduler/partitions/gpu/remove", "/scheduler/partitions/gpu/update"] {
            door.post(path, &json!({})).expect(404);
        }
        door.get("/scheduler/partitions/gpu").expect(404);
        door.get("/scheduler/partitions/-x").expect(400);
        // Numbers are names, too, and no jobs.
        door.post("/scheduler/partitions/new", &json!({"name": "7"})).expect(201);
        door.post("/scheduler/partitions/7/update", &json!({"max_jobs": 1})).expect(200);
        root.check();
    });
}

#[test]
fn a_record_that_is_edited_counts_at_once_and_a_bad_one_stops_its_own_jobs_alone() {
    both_ways("", |root, door| {
        let _poller = root.poller();
        // The first of all, by hand.
        fs::create_dir(root.path("state/scheduler/partitions")).unwrap();
        root.write(&path("main"), "{}\n");
        let job = |more: Value| {
            let mut request = json!({"command": ["true"], "partition": "main"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            door.submit(&request)
        };
        assert_eq!(door.ended(job(json!({})))["status"], "good");
        let dir = root.path("state/scheduler/partitions");
        let file = dir.join("main.json").display().to_string();
        for (bad, why, check) in [
            ("", format!("{file}: not a partition's record: EOF"), 1),
            ("{\"max_jobs\": 1", format!("{file}: not a partition's record: EOF"), 1),
            ("[]", format!("{file}: not a partition's record: not a JSON object"), 1),
            ("{\"max_jobs\": 0}", format!("{file}: not a partition's record: max_jobs must"), 1),
            (
                "{\"constraints\": {\"a\": {\"near\": 1}}}",
                format!("{file}: not a partition's record: label a: there is no operator"),
                1,
            ),
            (
                "{\"max_gpus\": 1}",
                "partition main: its record was written by a newer version of corkboard (unknown field \"max_gpus\")"
                    .into(),
                0,
            ),
        ] {
            let held = job(json!({"state": "held"}));
            match bad.len() % 2 {
                0 => root.write(&path("main"), bad),
                _ => write_over(root, "main", bad),
            }
            door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null)
                .expect(200);
            assert_eq!(root.reason(held, &why)["state"], "queued");
            assert!(objections(door, held)[0].starts_with(&why));
            let code = if check == 0 { 409 } else { 503 };
            let request = json!({"command": ["true"], "partition": "main"});
            let refused = error(door.post("/scheduler/jobs/new", &request).expect(code));
            assert!(refused.starts_with(&why), "{refused}");
            let said = root.cmd("scheduler", &["check"]).expect(check).body;
            assert!(said.contains(&why), "{said}");
            let listed = door.get("/scheduler/partitions").expect(200).json();
            let reason = listed["partitions"][0]["reason"].as_str().unwrap().to_string();
            assert!(reason.starts_with(&why), "{listed}");
            // Nothing else is disturbed.
            assert_eq!(door.ended(door.submit(&json!({"command": ["true"]})))["status"], "good");
            let change = json!({"max_jobs": 2});
            let update = door.post("/scheduler/partitions/main/update", &change);
            if check == 0 {
                update.expect(409); // a newer program's is left alone
                door.post("/scheduler/partitions/main/remove", &Value::Null).expect(409);
                door.post("/scheduler/partitions/new", &json!({"name": "main"})).expect(409);
                write_over(root, "main", "{\"name\": \"whatever\", \"max_jobs\": 2}");
            } else {
                update.expect(503); // it may be half written just now
                let whole = json!({"name": "main", "max_jobs": 2});
                let update = door.post("/scheduler/partitions/main/update", &whole);
                assert_eq!(update.expect(200).json(), whole);
            }
            assert_eq!(door.ended(held)["status"], "good");
        }
        // One that cannot be looked at is told among the others.
        make(root, &json!({"name": "other"}));
        let held = job(json!({"state": "held"}));
        fs::remove_file(root.path(&path("main"))).unwrap();
        fs::create_dir(root.path(&path("main"))).unwrap();
        door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null).expect(200);
        let why = format!("{file}: is a directory");
        assert_eq!(root.reason(held, &why)["state"], "queued");
        assert_eq!(objections(door, held), std::slice::from_ref(&why));
        let list = format!("/scheduler/nodes/list?job={held}");
        assert_eq!(door.get(&list).expect(200).json()["nodes"][0]["objection"], why);
        let listed = door.get("/scheduler/partitions").expect(200).json();
        assert_eq!(listed["partitions"][0]["reason"], why);
        assert_eq!(listed["partitions"][1]["name"], "other");
        assert_eq!(door.get("/scheduler/partitions/main").expect(200).json()["reason"], why);
        let whole = json!({"name": "main"});
        for path in
            ["jobs/new", "partitions/new", "partitions/main/update", "partitions/main/remove"]
        {
            let plain = json!({"command": ["true"], "partition": "main"});
            let body = if path == "jobs/new" { &plain } else { &whole };
            assert_eq!(error(door.post(&format!("/scheduler/{path}"), body).expect(503)), why);
        }
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert_eq!(said, format!("{why}\n"));
        assert_eq!(door.ended(door.submit(&json!({"command": ["true"]})))["status"], "good");
        fs::remove_dir(root.path(&path("main"))).unwrap();
        write_over(root, "main", "{}");
        assert_eq!(door.ended(held)["status"], "good");
        // What a job is given and cannot be is nothing that its submitter has to mend.
        for (defaults, why) in [
            (json!({"max_retry_count": 5000}), "max_retry_count must be at most 1000"),
            (json!({"expires": "2001-01-01T00:00:00Z"}), "expires lies in the past"),
            (
                json!({"timeout": "soon"}),
                "the request has a wrong value: \"soon\" is not a duration",
            ),
        ] {
            let whole = json!({"name": "main", "defaults": defaults});
            let said = error(door.post("/scheduler/partitions/main/update", &whole).expect(400));
            assert!(said.starts_with("defaults: "), "{said}");
            write_over(root, "main", &whole.to_string());
            let said = root.cmd("scheduler", &["check"]).expect(1).body;
            assert!(said.starts_with("partition main: defaults: "), "{said}");
            let request = json!({"command": ["true"], "partition": "main"});
            let said = error(door.post("/scheduler/jobs/new", &request).expect(503));
            let all = format!("with what partition main gives the request: {why}");
            assert!(said.starts_with(&all), "{said}");
            let own = json!({"max_retry_count": 0, "expires": "1h", "timeout": "1h"});
            assert_eq!(door.ended(job(own))["status"], "good");
        }
        let labels = |word: &str| -> Value {
            (0..40).map(|index| (format!("{word}{index}"), json!({"exists": false}))).collect()
        };
        change(root, "main", &json!({"defaults": {"constraints": labels("a")}}));
        job(json!({"state": "held"}));
        let many = json!({"command": ["true"], "partition": "main", "constraints": labels("b")});
        let said = error(door.post("/scheduler/jobs/new", &many).expect(503));
        assert!(said.contains("gives the request: "), "{said}");
        // What no job can be given stops new ones alone.
        let held = job(json!({"state": "held"}));
        write_over(root, "main", "{\"defaults\": {\"command\": [\"true\"]}}");
        let request = json!({"command": ["true"], "partition": "main"});
        let why = "partition main: defaults: \"command\" is no field";
        let refused = error(door.post("/scheduler/jobs/new", &request).expect(503));
        assert!(refused.starts_with(why), "{refused}");
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.starts_with(why), "{said}");
        door.post(&format!("/scheduler/jobs/{held}/update?release=1"), &Value::Null).expect(200);
        assert_eq!(door.ended(held)["status"], "good");
        change(root, "main", &json!({"defaults": null}));
        root.write(&format!("{}~", path("main")), "what an editor left");
        root.write("state/scheduler/partitions/#main.json#", "what another one keeps");
        root.check();
        // A copy is another partition, and the name that is no text none.
        root.write(&path("main.bak"), "{\"name\": \"main\"}");
        let said = root.cmd("scheduler", &["check"]).expect(0).body;
        let copy = dir.join("main.bak.json");
        let copy = copy.display();
        let note = format!("{copy}: it is partition main.bak, though the name in it is \"main\"");
        assert_eq!(said, format!("note: {note}\n"));
        fs::remove_file(root.path(&path("main.bak"))).unwrap();
        let odd = dir.join(OsStr::from_bytes(b"odd\xff.json"));
        fs::write(&odd, "{}").unwrap();
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.ends_with("odd\u{fffd}.json: not a partition's record\n"), "{said}");
        fs::remove_file(odd).unwrap();
        // Where a link leads counts, and goes on to do so.
        fs::rename(root.path(&path("main")), root.path("elsewhere.json")).unwrap();
        symlink(root.path("elsewhere.json"), root.path(&path("main"))).unwrap();
        let update = door.post("/scheduler/partitions/main/update", &json!({"max_jobs": 3}));
        let said = error(update.expect(409));
        assert!(said.ends_with("elsewhere.json, where it leads"), "{said}");
        door.get("/scheduler/partitions/main").expect(200);
        fs::remove_file(root.path(&path("main"))).unwrap();
        fs::rename(root.path("elsewhere.json"), root.path(&path("main"))).unwrap();
        root.check();
        root.write("state/scheduler/partitions/notes.txt", "what nobody knows");
        let said = root.cmd("scheduler", &["check"]).expect(1).body;
        assert!(said.ends_with("notes.txt: not a partition's record\n"), "{said}");
    });
}

/// A root whose poller looks for itself no sooner than a test lasts.
fn root_without_scans() -> TestRoot {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nscan_every = 10m\n");
    root.open();
    root
}

/// A job is in this state within two or three seconds.
fn soon(root: &TestRoot, job: u64, state: &str) {
    wait_for(Duration::from_secs(3), || {
        let status = root.status(job);
        if status["state"] == state { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn whatever_is_done_to_a_record_counts_at_once() {
    type Start = fn(&TestRoot) -> Poller;
    for start in [TestRoot::poller as Start, TestRoot::poller_without_inotify] {
        let root = root_without_scans();
        make(&root, &json!({"name": "main"}));
        let (record, aside) = (root.path(&path("main")), root.path("main.json"));
        let poller = start(&root);
        node_reaches(&root, "localhost", "connected");
        let job = || root.submit(&json!({"command": ["true"], "partition": "main"}));
        // What lies elsewhere, by another name.
        for link in [
            |from: &Path, to: &Path| symlink(from, to),
            |from: &Path, to: &Path| fs::hard_link(from, to),
        ] {
            let held =
                root.submit(&json!({"command": ["true"], "partition": "main", "state": "held"}));
            fs::rename(&record, &aside).unwrap();
            root.update(held, "release=1").expect(0);
            root.reason(held, "partition main does not exist any more");
            let next = root.submit(&json!({"command": ["true"]}));
            soon(&root, next, "stopped"); // what was released before was looked at before
            link(&aside, &record).unwrap();
            soon(&root, held, "stopped");
            fs::remove_file(&record).unwrap();
            fs::rename(&aside, &record).unwrap();
        }
        // Written where it lies.
        root.write(&path("main"), "{\"node\": \"none\"}");
        let waits = job();
        root.reason(waits, "no node has 1 core, in partition main");
        let next = root.submit(&json!({"command": ["true"]}));
        soon(&root, next, "stopped");
        root.write(&path("main"), "{}");
        soon(&root, waits, "stopped");
        // What is kept for a job is not, when its partition is moved away.
        let runs = root.submit(&until_file(&root, "main", "go", json!({})));
        root.reaches(runs, "running");
        let wide = json!({"command": ["true"], "partition": "main", "priority": 5,
            "requested_resources": {"cores": 2}});
        let wide = root.submit(&wide);
        root.reason(wide, "waiting for room");
        let narrow = root.submit(&json!({"command": ["true"]}));
        let kept = format!("; some is kept for job {wide}");
        until("a node is kept for the wide one", || {
            root.submit(&json!({"command": ["true"], "state": "held"})); // it is said with the next that comes
            root.status(narrow)["reason"].as_str().is_some_and(|reason| reason.ends_with(&kept))
        });
        fs::rename(&record, &aside).unwrap();
        soon(&root, narrow, "stopped");
        root.write("go", "");
        fs::rename(&aside, &record).unwrap();
        [runs, wide].iter().for_each(|job| _ = root.reaches(*job, "stopped"));
        assert!(poller.end("TERM").success());
        root.check();
    }
}
