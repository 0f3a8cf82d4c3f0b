//! What a job does to its own directory, or somebody by hand, is its own affair: nobody is kept waiting
//! by it, and no other job.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use common::node::{
    CONF, assert_clean, claims, is_told, log, root, root_of_nobody, submit, told, two_orphans,
};
use common::{TestRoot, lives, signal, until};
use serde_json::json;

/// The directory of a job.
fn dir(root: &TestRoot, id: &str) -> String {
    root.path(&format!("state/processor/job/{id}")).display().to_string()
}

/// Gives a job for `/` that does this in its own directory.
fn give(root: &TestRoot, id: &str, script: &str) {
    let command = format!("cd {} && {script}", dir(root, id));
    submit(root, json!({"command": command, "request_id": id, "dir": "/"}));
}

/// Whoever opens a pipe waits for whoever opens its other end.
#[test]
fn pipes_in_the_place_of_its_files_hold_nobody_up() {
    let mut root = root();
    root.wrap = ["timeout", "-s", "KILL", "20"].map(String::from).to_vec();
    let names = "status tasks kill kill-tasks request.json log";
    let pipes = format!("for name in {names}; do rm -f $name; mkfifo $name; done; echo said");
    give(&root, "p", &pipes);
    is_told(&root, "p");
    assert_eq!(told(&root, "p")["status"], "good");
    submit(&root, json!({"command": "echo other", "request_id": "o", "dir": "/"}));
    assert_eq!(root.ended("o")["status"], "good");
    assert_eq!(log(&root, "o"), "other\n");
    let answer = root.cmd("processor", &["jobs", "p", "log"]).expect(1);
    assert!(answer.stderr.contains("not a plain file"), "{answer:?}");
    for words in [&["jobs", "p", "status"][..], &["jobs", "p", "kill"]] {
        assert_eq!(root.cmd("processor", words).expect(0).json()["status"], "good", "{words:?}");
    }
    root.cmd("processor", &["jobs", "new", "-q", "-r", "p", "--", "true"]).expect(1);
    let both = root.cmd("processor", &["jobs", "format=json"]).expect(0).json();
    assert_eq!(both.as_array().unwrap().len(), 2, "{both}");
    assert_eq!(root.cmd("processor", &["jobs/status", "ids=p,o"]).expect(0).json()[1]["code"], 0);
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("not a plain file"), "{found}");
    root.cmd("processor", &["sweep"]).expect(0);
    root.cmd("processor", &["info"]).expect(0);
    fs::remove_dir_all(dir(&root, "p")).unwrap();
    until("all is reported", || root.supervisors().is_empty());
    root.cmd("processor", &["check", "--repair"]);
    assert_clean(&root);
}

/// Its supervisor has told its end, and the head goes on with others.
#[test]
fn a_head_has_the_end_of_a_job_whose_story_is_a_pipe() {
    let root = root();
    let _poller = root.poller();
    let script = format!(
        "cd {}/$CORKBOARD_NODEJOB && rm status && mkfifo status log; echo said",
        root.path("state/processor/job").display()
    );
    let job = root.submit(&json!({"command": script, "dir": "/"}));
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    let next = root.submit(&json!({"command": "true", "dir": "/"}));
    assert_eq!(root.reaches(next, "stopped")["status"], "good");
}

#[test]
fn a_story_without_end_is_not_read() {
    let root = root();
    give(&root, "l", "ln -sf /dev/zero tasks; truncate -s 1100M kill; true");
    is_told(&root, "l");
    give(&root, "m", "true");
    is_told(&root, "m");
    let story = fs::File::options().write(true).open(format!("{}/status", dir(&root, "m")));
    story.unwrap().set_len(1100 << 20).unwrap();
    let answer = root.cmd("processor", &["jobs", "m", "status"]).expect(1);
    assert!(answer.stderr.contains("status: longer than"), "{answer:?}");
    assert_eq!(root.cmd("processor", &["jobs", "l", "status"]).expect(0).json()["code"], 0);
}

#[test]
fn what_cannot_be_synced_of_one_is_told_of_that_one() {
    let root = root();
    give(&root, "a", "ln -s tasks tasks");
    submit(&root, json!({"command": "true", "request_id": "b", "dir": "/"}));
    for id in ["a", "b"] {
        assert_eq!(root.ended(id)["status"], "good");
    }
    let both = root.cmd("processor", &["jobs/status", "ids=a,b"]).expect(0).json();
    assert_eq!((&both[0]["code"], &both[1]["code"]), (&json!(0), &json!(0)), "{both}");
    root.cmd("processor", &["jobs", "format=json"]).expect(0);
    fs::remove_file(format!("{}/tasks", dir(&root, "a"))).unwrap();
    assert_clean(&root);
}

/// What was started never is again, whatever becomes of its story.
#[test]
fn a_job_that_removed_its_story_does_not_run_again_when_its_supervisor_dies() {
    no_second_run("sleep 1000", "_");
    // Also once its program has ended, and what that has left is given time.
    no_second_run("trap '' TERM; (sleep 1000; sleep 1000) > /dev/null 2>&1 &", "__");
}

/// A job that removes its story and then does this, by when its link in `pid/` has as many parts.
fn no_second_run(then: &str, parts: &str) {
    let root = root();
    give(&root, "a", &format!("echo ran >> witness; rm status; {then}"));
    let has_run = || root.read("state/processor/job/a/witness");
    until("it has no story", || {
        let links = fs::read_dir(root.path("state/processor/pid")).unwrap();
        let mut names = links.map(|link| link.unwrap().file_name().into_string().unwrap());
        !has_run().is_empty()
            && !root.exists("state/processor/job/a/status")
            && names.any(|name| name.matches('_').count() == parts.len())
    });
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    root.cmd("processor", &["sweep"]).expect(0);
    is_told(&root, "a");
    assert_eq!((told(&root, "a")["cause"].as_str(), &*has_run()), (Some("lost"), "ran\n"));
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn a_job_that_runs_is_not_cleaned_up_whatever_it_has_removed() {
    let root = root();
    give(&root, "a", "rm status request.json; sleep 1000");
    let job = dir(&root, "a");
    until("it has removed both", || {
        root.exists("state/processor/job/a")
            && !root.exists("state/processor/job/a/status")
            && !root.exists("state/processor/job/a/request.json")
    });
    let old = SystemTime::now() - Duration::from_secs(100 * 24 * 3600);
    fs::File::open(&job).unwrap().set_modified(old).unwrap();
    root.cmd("poller", &["--once", "-q"]).expect(0);
    assert!(fs::exists(&job).unwrap());
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    root.cmd("poller", &["--once", "-q"]).expect(0);
    assert!(!fs::exists(&job).unwrap(), "nobody has it any more");
}

/// Nor is what follows it kept waiting: its supervisor goes on.
#[test]
fn the_end_of_a_job_that_removes_or_closes_its_directory_is_told() {
    let root = root_of_nobody();
    for (id, script) in
        [("removes", "rm -rf $PWD"), ("closes", "chmod 0 ."), ("moves", "mv . ../x")]
    {
        give(&root, id, &format!("{script}; exit 3"));
        submit(&root, json!({"command": "true", "request_id": format!("{id}-next"), "dir": "/"}));
        is_told(&root, id);
        assert_eq!(told(&root, id)["code"], 3);
        is_told(&root, &format!("{id}-next"));
    }
    // It can be looked at again, and removed one day.
    assert_eq!(root.cmd("processor", &["jobs", "closes", "status"]).expect(0).json()["code"], 3);
    until("all is reported", || root.supervisors().is_empty());
    root.cmd("processor", &["check", "--repair"]);
    assert_clean(&root);
}

#[test]
fn recovery_tells_the_ends_of_others_beside_one_that_closed_its_directory() {
    let root = root_of_nobody();
    for id in ["a", "b"] {
        submit(&root, json!({"command": "true", "request_id": id, "dir": "/"}));
        is_told(&root, id);
    }
    until("all is reported", || root.processes().is_empty());
    fs::remove_file(root.path("state/processor/events")).unwrap();
    fs::set_permissions(dir(&root, "a"), fs::Permissions::from_mode(0o300)).unwrap();
    root.write("state/processor/slot/1", &claims(std::process::id() as i32, &["a", "b"]));
    root.cmd("processor", &["sweep"]).expect(0);
    for id in ["a", "b"] {
        assert_eq!(told(&root, id)["code"], 0);
    }
    assert_clean(&root);
}

/// Neither when it is claimed, nor when its supervisor has died.
#[test]
fn a_link_in_the_place_of_a_job_keeps_no_other_from_running() {
    let root = root();
    let both = json!({"cores": 2});
    let first = json!({"command": "sleep 1000", "request_id": "f", "requested_resources": both});
    submit(&root, first);
    until("it runs", || root.node_status("f")["state"] == "running");
    for id in ["bad", "good"] {
        submit(&root, json!({"command": "true", "request_id": id, "dir": "/"}));
    }
    let away = root.path("away");
    fs::rename(dir(&root, "bad"), &away).unwrap();
    symlink("bad", dir(&root, "bad")).unwrap();
    root.cmd("processor", &["jobs", "f", "kill", "grace=0.1"]).expect(0);
    assert_eq!(root.ended("good")["status"], "good");

    // A slot that a crash has left, and what it names.
    until("all is reported", || root.processes().is_empty());
    root.starts_no_supervisor();
    let processor = common::program("processor");
    let cmd = |words: &[&str]| {
        let mut command = root.command(&processor);
        command.args(words).env("CORKBOARD_ROOT", &root.dir);
        assert!(command.status().unwrap().success(), "{words:?}");
    };
    fs::remove_file(root.path("state/processor/queue/bad")).unwrap();
    fs::rename(root.path("state/processor/job/good"), root.path("kept")).unwrap();
    fs::create_dir(root.path("state/processor/job/good")).unwrap();
    fs::copy(root.path("kept/request.json"), root.path("state/processor/job/good/request.json"))
        .unwrap();
    root.write("state/processor/slot/1", &claims(std::process::id() as i32, &["bad", "good"]));
    cmd(&["sweep"]);
    until("it has ended", || root.node_status("good")["status"] == "good");
    fs::remove_file(dir(&root, "bad")).unwrap();
    fs::rename(&away, dir(&root, "bad")).unwrap();
    cmd(&["sweep"]);
    assert_eq!(root.ended("bad")["status"], "good");
}

/// It would be looked for in every sweep, with all others, under the lock.
#[test]
fn a_file_among_the_jobs_is_none_of_them_and_a_restart_is_over_with_it() {
    let mut root = root();
    root.cmd("processor", &["info"]).expect(0); // makes the tree
    root.write("state/processor/job/README", "");
    root.env.push(("CORKBOARD_BOOT_ID".into(), "another".into()));
    let swept = root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(swept.stderr, "");
    assert_eq!(root.read("state/processor/lock").trim(), "another");
    let found = root.cmd("processor", &["check"]).expect(1).body;
    assert!(found.contains("job/README"), "{found}");
}

#[test]
fn what_cannot_be_recovered_is_said_once() {
    let root = TestRoot::new(&format!("{CONF}scan_every = 0.2\n"));
    root.open();
    let obstacle = two_orphans(&root);
    let _poller = root.poller();
    until("the other one is recovered", || root.node_status("b")["cause"] == "lost");
    let said = |what: &str| root.read("poller.log").matches(what).count();
    until("it is said", || said("a is not recovered") > 0);
    // Later sweeps find it again: another one lies behind each job that is done meanwhile.
    for _ in 0..3 {
        let job = root.submit(&json!({"command": "true", "dir": "/"}));
        root.reaches(job, "stopped");
        common::let_pass(std::time::Duration::from_millis(500));
    }
    assert_eq!(said("a is not recovered"), 1, "{}", root.read("poller.log"));
    obstacle.take_away();
    until("it is recovered", || root.node_status("a")["cause"] == "lost");
}

#[test]
fn a_work_that_is_no_directory_has_no_files() {
    let root = root();
    give(&root, "w", "touch work");
    give(&root, "v", "ln -s / work");
    for id in ["w", "v"] {
        root.ended(id);
        let files = root.cmd("processor", &["jobs", id, "files"]).expect(0).json();
        assert_eq!(files["files"], json!([]), "{id}");
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// However many cores there are said to be.
#[test]
fn any_number_of_cores_may_be_set() {
    let root = TestRoot::new("cores = 9223372036854775808\nmemory = 4 GiB\n");
    root.open();
    let all = json!({"cores": 9_223_372_036_854_775_808_u64});
    let first = json!({"command": "sleep 1000", "request_id": "f", "requested_resources": all});
    submit(&root, first);
    until("it runs", || root.node_status("f")["state"] == "running");
    let ids: Vec<String> =
        (0..4).map(|_| submit(&root, json!({"command": "true", "dir": "/"}))).collect();
    root.cmd("processor", &["jobs", "f", "kill", "grace=0.1"]).expect(0);
    for id in ids {
        assert_eq!(root.ended(&id)["status"], "good");
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}
