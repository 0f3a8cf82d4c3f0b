//! A root belongs to one user. Others, root too, may look at most, and leave it as it is.
//!
//! These tests need root, to be two users at once; without it they say so and end.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use common::head::CONF;
use common::users::{NOBODY, nobodys_root};
use common::{TestRoot, feed, program};

/// Neither the owner nor root.
const OTHER: u32 = 54321;

/// Whether this can be tried; told if not.
fn can_be_others() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can try what another user does");
    }
    root
}

/// Everything below `state/`: whose it is, how long, when it was changed.
fn snapshot(root: &TestRoot) -> BTreeMap<String, (u32, u64, i64, i64)> {
    fn walk(dir: &Path, found: &mut BTreeMap<String, (u32, u64, i64, i64)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let seen = (meta.uid(), meta.len(), meta.mtime(), meta.mtime_nsec());
            found.insert(path.to_string_lossy().into_owned(), seen);
            if meta.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root.path("state"), &mut found);
    found
}

#[test]
fn root_changes_nothing_in_another_users_root_and_may_look() {
    if !can_be_others() {
        return;
    }
    let mut root = nobodys_root(CONF);
    let hello = ["jobs", "new", "--dir", "/", "--wait", "--", "echo", "hello"];
    assert_eq!(root.cmd("scheduler", &hello).expect(0).body, "hello\n");
    let held = serde_json::json!({"command": "true", "dir": "/", "state": "held"});
    let held = root.submit(&held).to_string();
    for (id, command) in [("blocks", "sleep 1000"), ("waits", "true")] {
        let both = serde_json::json!({"cores": 2});
        let request = serde_json::json!({"command": command, "dir": "/", "request_id": id,
            "requested_resources": both});
        root.cmd("processor", &["jobs", "new", "-d", &request.to_string()]).expect(0);
    }
    common::until("it runs and is told", || root.read("state/processor/events").contains("blocks"));
    root.cmd("scheduler", &["tokens", "new", "role=admin"]).expect(0);
    // The one that ran the first job lingers a while.
    common::until("one supervisor is left", || root.processes() == root.supervisors());
    let running = root.processes();

    root.user = None;
    let before = snapshot(&root);
    let node = r#"{"name": "two", "driver": "http", "uri": "http://127.0.0.1:9"}"#;
    for (program, words) in [
        ("scheduler", &["jobs", "new", "--", "true"][..]),
        ("scheduler", &["jobs", "new", "-d", r#"{"command": "true"}"#]),
        ("scheduler", &["jobs", "new", "-d", r#"[{"command": "true"}]"#]),
        ("scheduler", &["jobs", &held, "update", "release=1"]),
        ("scheduler", &["jobs", &held, "update", "kill=1"]),
        ("scheduler", &["queue", &held, "-X", "DELETE"]),
        ("scheduler", &["nodes", "new", "-d", node]),
        ("scheduler", &["nodes", "localhost", "update", "-d", r#"{"drain": true}"#]),
        ("scheduler", &["tokens", "new", "role=admin"]),
        ("scheduler", &["check", "--repair"]),
        ("processor", &["jobs", "new", "--", "true"]),
        ("processor", &["jobs", "new", "-d", r#"{"command": "true"}"#]),
        ("processor", &["jobs", "waits", "kill"]),
        ("processor", &["jobs", "unknown", "kill"]),
        ("processor", &["sweep"]),
        ("processor", &["supervise"]),
        ("processor", &["supervise", "--stay"]),
        ("processor", &["check", "--repair"]),
        ("nodemgr", &["localhost", "jobs", "new", "-d", r#"{"command": "true"}"#]),
        ("nodemgr", &["localhost", "jobs", "waits", "kill"]),
        ("poller", &["--once"]),
        ("poller", &["--job", &held]),
        ("poller", &[]),
    ] {
        let refused = root.cmd(program, words);
        // A supervisor has left its caller before it looks.
        if !words.contains(&"supervise") || words.contains(&"--stay") {
            assert_eq!(refused.code, 1, "{program} {words:?}: {refused:?}");
            let advice = "belongs to nobody, who alone changes it: sudo -u nobody";
            assert!(refused.stderr.contains(advice), "{program} {words:?}: {refused:?}");
        }
    }
    common::until("nobody else supervises", || root.processes() == running);
    assert_eq!(snapshot(&root), before);

    for words in [
        &["jobs"][..],
        &["jobs", "1", "status"],
        &["jobs", "1", "log"],
        &["queue"],
        &["nodes", "list"],
        &["check"],
    ] {
        root.cmd("scheduler", words).expect(0);
    }
    root.cmd("scheduler", &["jobs", &held, "status", "wait=1"]).expect(75); // it goes on
    root.cmd("scheduler", &["jobs", "77", "status"]).expect(1);
    root.cmd("processor", &["jobs"]).expect(0);
    root.cmd("processor", &["jobs", "waits", "status"]).expect(0);
    assert_eq!(snapshot(&root), before);

    // Over HTTP the reason is for the server's log.
    root.user = Some(NOBODY);
    root.write("state/open", "");
    chown(root.path("state/open"), Some(NOBODY), Some(NOBODY)).unwrap();
    root.user = None;
    let before = snapshot(&root);
    for path in ["/scheduler/jobs/new", "/processor/jobs/new", "/processor/jobs/waits/kill"] {
        let json = [("Content-Type", "application/json")];
        let refused = root.cgi("POST", path, &json, br#"{"command": "true"}"#).expect(500);
        assert!(!refused.body.contains("nobody"), "{refused:?}");
        assert!(refused.stderr.contains("sudo -u nobody"), "{refused:?}");
    }
    root.cgi("GET", "/scheduler/jobs", &[], b"").expect(200);
    root.cgi("GET", "/processor/jobs", &[], b"").expect(200);
    assert_eq!(snapshot(&root), before);

    root.user = Some(NOBODY);
    root.cmd("scheduler", &["jobs", &held, "update", "release=1"]).expect(0);
    root.cmd("processor", &["jobs", "blocks", "kill"]).expect(0);
    root.ended("waits");
    common::until("the owner's jobs run", || {
        root.cmd("poller", &["--once", "-q"]).expect(0);
        root.status(held.parse().unwrap())["state"] == "stopped"
    });
    root.check();
}

#[test]
fn the_group_may_look_and_others_may_not() {
    if !can_be_others() {
        return;
    }
    let root = nobodys_root(CONF);
    let job = root.submit(&serde_json::json!({"command": "true", "dir": "/"})).to_string();
    let as_other = |group: u32, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={OTHER}"), &format!("--regid={group}"), "--clear-groups"])
            .arg(root.path("cgi-bin/scheduler"))
            .args(words)
            .env("CORKBOARD_ROOT", &root.dir);
        feed(&mut command, b"")
    };
    let before = snapshot(&root);
    let status = as_other(NOBODY, &["jobs", &job, "status"]);
    assert!(status.status.success(), "{status:?}");
    let check = as_other(NOBODY, &["check"]);
    assert!(check.status.success(), "{check:?}");
    // Never on the board: said as it is to the owner.
    let unknown = as_other(NOBODY, &["jobs", "900", "status"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no job 900"), "{unknown:?}");
    let new = as_other(NOBODY, &["jobs", "new", "--", "true"]);
    assert!(String::from_utf8_lossy(&new.stderr).contains("sudo -u nobody"), "{new:?}");
    // Whoever may not even look is told whose it is, and by whom it is to be asked.
    for words in [&["jobs", &job, "status"][..], &["jobs", "new", "--", "true"], &["check"]] {
        let refused = as_other(OTHER, words);
        assert!(!refused.status.success(), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let advice = "belongs to nobody, who does not let this user read it: sudo -u nobody";
        assert!(said.contains(advice), "{words:?}: {said}");
    }
    // What the group may look at needs no right to write.
    let info = |group: u32| {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={OTHER}"), &format!("--regid={group}"), "--clear-groups"])
            .arg(root.path("cgi-bin/processor"))
            .env("CORKBOARD_ROOT", &root.dir);
        command
    };
    for words in [&["info"][..], &["jobs", "state=running"]] {
        let seen = feed(info(NOBODY).args(words), b"");
        assert!(seen.status.success() && seen.stderr.is_empty(), "{words:?}: {seen:?}");
    }
    assert_eq!(snapshot(&root), before);
}

#[test]
fn a_tree_is_not_made_where_state_is_another_users() {
    if !can_be_others() {
        return;
    }
    let mut root = nobodys_root(CONF);
    fs::create_dir(root.path("state")).unwrap();
    chown(root.path("state"), Some(NOBODY), Some(NOBODY)).unwrap();
    root.user = None;
    let refused = root.cmd("scheduler", &["jobs"]).expect(1);
    assert!(refused.stderr.contains("sudo -u nobody"), "{refused:?}");
    assert!(snapshot(&root).is_empty());
    root.user = Some(NOBODY);
    root.cmd("scheduler", &["jobs"]).expect(0);
}

#[test]
fn the_scripts_leave_another_users_root_alone() {
    if !can_be_others() {
        return;
    }
    let mut root = nobodys_root(CONF);
    root.submit(&serde_json::json!({"command": "true", "dir": "/"}));
    root.user = None;
    let before = (snapshot(&root), fs::metadata(&root.dir).unwrap().mtime());
    let programs = program("processor").parent().unwrap().to_path_buf();
    for script in ["up", "down"] {
        let mut command = Command::new(format!("{}/scripts/{script}", env!("CARGO_MANIFEST_DIR")));
        command.arg("--root").arg(&root.dir);
        if script == "up" {
            command.arg("--programs").arg(&programs);
        }
        let refused = feed(&mut command, b"");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("belongs to nobody, who alone changes it: sudo -u nobody"), "{said}");
    }
    assert!(!root.exists("run"));
    assert_eq!((snapshot(&root), fs::metadata(&root.dir).unwrap().mtime()), before);
}

#[test]
fn check_names_what_another_user_left() {
    if !can_be_others() {
        return;
    }
    let root = nobodys_root(CONF);
    root.submit(&serde_json::json!({"command": "true", "dir": "/"}));
    root.check();
    root.write("state/processor/slot/7", "");
    let found = root.cmd("scheduler", &["check"]).expect(1);
    assert!(found.body.contains("slot/7: belongs to uid 0, the tree to uid 65534"), "{found:?}");
}
