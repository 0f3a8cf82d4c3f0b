//! A request that is repeated under its `request_id`: the same job, whatever has changed since.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::head::{CONF, both_ways, open_root};
use common::{Answer, Httpd, SOON, TestRoot, until, wait_for};
use corkboard::clock;
use serde_json::{Value, json};

fn upload(root: &TestRoot, httpd: &Httpd, request: &Value, files: &[(&str, &str)]) -> Answer {
    root.write("job.json", &request.to_string());
    let mut args = vec!["-F".to_string(), format!("job=@{}", root.path("job.json").display())];
    for (name, text) in files {
        root.write(name, text);
        args.extend(["-F".into(), format!("file=@{}", root.path(name).display())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    httpd.curl(&args, "/scheduler/jobs/new")
}

/// Names and contents of files belong to the request, after the end of the job too.
#[test]
fn other_files_are_another_request() {
    let root = open_root("");
    let httpd = root.httpd();
    let request = json!({"command": "cat a", "request_id": "r", "state": "held"});
    let send = |files: &[(&str, &str)]| upload(&root, &httpd, &request, files);
    let (a, b) = (("a", "one\n"), ("b", "two\n"));
    let job = send(&[a, b]).expect(201).json()["job"].as_u64().unwrap();
    let again = || {
        assert_eq!(send(&[b, a]).expect(200).json()["job"], job);
        for other in [&[][..], &[a], &[("a", "two\n"), b], &[a, ("c", "two\n")], &[a, b, ("c", "")]]
        {
            let error = send(other).expect(422).body;
            assert!(error.contains(&format!("was used for job {job} with other files")), "{error}");
        }
    };
    again();
    let poller = root.poller();
    root.update(job, "release=1").expect(0);
    root.reaches(job, "stopped");
    wait_for(SOON, || match root.exists(&format!("state/scheduler/files/{job}")) {
        true => Err(root.tree()),
        false => Ok(()),
    });
    again();
    drop(poller); // it would see the card that is written below while it is empty

    // A card of an older program says nothing of its files: they are compared while they are there.
    let request = json!({"command": "cat a", "request_id": "old", "state": "held"});
    let old = upload(&root, &httpd, &request, &[a]).expect(201).json()["job"].as_u64().unwrap();
    let path = root.path(&format!("state/scheduler/queue/{old}.job"));
    let text = fs::read_to_string(&path).unwrap();
    let digest = root.card(old)[0]["files"].as_str().unwrap().to_string();
    let text = text.replace(&format!(r#""files":"{digest}","#), "");
    assert!(!text.contains("files"), "{text}");
    fs::write(&path, text).unwrap(); // the same inode
    assert_eq!(upload(&root, &httpd, &request, &[a]).expect(200).json()["job"], old);
    upload(&root, &httpd, &request, &[b]).expect(422);
    root.check();
}

/// What a new request would be refused for is no reason to refuse one that was accepted.
#[test]
fn what_was_accepted_stays_so() {
    both_ways("max_jobs_per_request = 3\n", |root, door| {
        let new = |request: &Value| door.post("/scheduler/jobs/new", request);
        let parent = door.submit(&json!({"command": ["true"]}));
        let soon = SystemTime::now() + Duration::from_secs(2);
        let late = json!({"command": ["true"], "request_id": "late", "expires": clock::rfc3339(soon),
            "parent": parent, "state": "held"});
        let job = new(&late).expect(201).json()["job"].clone();
        let one = |index: u32| json!({"command": ["true"], "request_id": format!("a{index}"), "parent": parent});
        let array = json!([one(0), one(1), one(2)]);
        let jobs = new(&array).expect(201).json();
        let numbers: Vec<Value> =
            jobs.as_array().unwrap().iter().map(|job| job["job"].clone()).collect();

        let _poller = root.poller();
        door.ended(job.as_u64().unwrap());
        door.ended(parent);
        root.write("corkboard.conf", &format!("{CONF}max_jobs_per_request = 2\nmax_body = 400\n"));
        fs::remove_file(root.path(&format!("state/scheduler/done/0/{parent}.job"))).unwrap();
        for _ in 0..3 {
            assert_eq!(new(&late).expect(200).json()["job"], job);
            let again = new(&array).expect(200).json();
            let again: Vec<Value> =
                again.as_array().unwrap().iter().map(|job| job["job"].clone()).collect();
            assert_eq!(again, numbers);
        }
        // Nor does it leave numbers of jobs that never were.
        let children = root.read(&format!("state/scheduler/children/{parent}"));
        assert_eq!(children.lines().filter(|line| !line.is_empty()).count(), 4, "{children:?}");
        assert!(
            new(&json!({"command": ["false"], "request_id": "late"}))
                .expect(422)
                .body
                .contains("another request")
        );
        let past =
            json!({"command": ["true"], "request_id": "past", "expires": "2020-01-01T00:00:00Z"});
        assert!(new(&past).expect(400).body.contains("lies in the past"));
        assert!(
            new(&json!([one(0), one(1), one(3)]))
                .expect(422)
                .body
                .contains("nothing was submitted")
        );
        assert!(new(&json!([one(4), one(1)])).expect(400).body.contains("parent"));
    });
}

/// A copy of a root's state, made as `cp` makes it with these options.
fn copied(root: &TestRoot, options: &str) -> TestRoot {
    let copy = TestRoot::new(&root.read("corkboard.conf"));
    let mut cp = Command::new("cp");
    assert!(cp.arg(options).arg(root.path("state")).arg(&copy.dir).status().unwrap().success());
    copy
}

#[test]
fn a_request_id_of_a_copied_board_runs_nothing_again() {
    let witness = tempfile();
    let request = json!({"command": format!("echo ran >> {}", witness.display()), "dir": "/",
        "request_id": "once", "state": "held"});
    let root = open_root("keep_done = 10d\n");
    let job = root.submit(&request);
    let run = |root: &TestRoot| {
        root.update(job, "release=1").expect(0);
        until("it has ended", || {
            root.cmd("poller", &["--once"]).expect(0);
            root.status(job)["state"] == "stopped"
        });
    };
    let claim = |root: &TestRoot| {
        let dir = root.path("state/scheduler/requests");
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).next()
    };
    let card = |root: &TestRoot| root.path(&format!("state/scheduler/done/0/{job}.job"));
    let is_one = |root: &TestRoot| {
        let ids = [claim(root).unwrap(), card(root)].map(|p| fs::metadata(p).unwrap().ino());
        ids[0] == ids[1]
    };
    // The copy has the claim as it was when the job waited. A repeat is told how it is now.
    let copy = copied(&root, "-r");
    run(&copy);
    assert_eq!(copy.submit(&request), job);
    assert!(!is_one(&copy));
    let found = copy.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.contains("is not the card of job"), "{found}");
    copy.cmd("scheduler", &["check", "--repair"]).expect(0);
    assert!(is_one(&copy));
    copy.check();
    // Without that, clean-up tells the claim what has become of the job.
    let copy = copied(&root, "-r");
    run(&copy);
    let old = card(&copy);
    File::open(&old)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(20 * 86_400))
        .unwrap();
    // The claim outlives its card where that goes by count.
    copy.write("corkboard.conf", &format!("{CONF}keep_done = 30d\nkeep_done_count = 0\n"));
    copy.cmd("poller", &["--once"]).expect(0);
    assert!(!old.exists());
    assert_eq!(copy.submit(&request), job);
    copy.cmd("poller", &["--once"]).expect(0);
    assert_eq!(fs::read_to_string(&witness).unwrap(), "ran\nran\n");
    // The card was cleaned up by a program that knows nothing of this.
    let copy = copied(&root, "-r");
    run(&copy);
    fs::remove_file(card(&copy)).unwrap();
    let repeat = copy.cmd_in("scheduler", &["jobs", "new"], &request.to_string()).expect(1);
    assert!(repeat.stderr.contains("give another request_id"), "{repeat:?}");
    copy.cmd("poller", &["--once"]).expect(0);
    assert_eq!(fs::read_to_string(&witness).unwrap(), "ran\nran\nran\n");
    // A copy by `cp -a` is as good as the board.
    let copy = copied(&root, "-a");
    copy.check();
    run(&copy);
    assert!(is_one(&copy));
    let _ = fs::remove_file(witness);
}

fn tempfile() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("corkboard-witness-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}
