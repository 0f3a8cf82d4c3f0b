//! What clean-up removes, what it must not, and what must not stop it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use common::head::{CONF, open_root};
use common::users::plain_root;
use common::{TestRoot, let_pass, until};
use faults::{Act, Point};
use serde_json::json;

const DAY: Duration = Duration::from_secs(86_400);

/// Makes a file or directory of the root that old.
fn age(root: &TestRoot, name: &str, age: Duration) {
    let file = File::open(root.path(name)).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

/// A round of cron: what it said.
fn once(root: &TestRoot) -> String {
    root.cmd("poller", &["--once"]).expect(0).stderr
}

/// A finished job of the node, long ago.
fn ended_on_node(root: &TestRoot, id: &str, command: &str) {
    let request = json!({"command": command, "dir": "/", "request_id": id});
    root.cmd_in("processor", &["jobs", "new"], &request.to_string()).expect(0);
    root.ended(id);
}

fn long_ago(root: &TestRoot, id: &str) {
    for name in ["status", "request.json", ""] {
        let name = format!("state/processor/job/{id}/{name}");
        if root.exists(&name) {
            age(root, &name, 100 * DAY);
        }
    }
}

fn mode(root: &TestRoot, name: &str, mode: u32) {
    fs::set_permissions(root.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn nothing_on_a_node_stops_the_clean_up() {
    let root = plain_root(CONF);
    let job = |name: &str| format!("state/processor/job/{name}");
    for id in ["read-only", "plain", "half", "deep", "locked", "unread", "pipe", "endless"] {
        ended_on_node(&root, id, "true");
    }
    // What lies in the place of their stories tells no end.
    fs::remove_file(root.path(&job("pipe/status"))).unwrap();
    let pipe = Command::new("mkfifo").arg(root.path(&job("pipe/status"))).status().unwrap();
    assert!(pipe.success());
    let story = File::options().write(true).open(root.path(&job("endless/status"))).unwrap();
    story.set_len(2 << 30).unwrap();
    // As Go's module cache is: directories that may not be written.
    fs::create_dir_all(root.path(&job("read-only/work/mod/inner"))).unwrap();
    root.write(&job("read-only/work/mod/inner/file"), "x");
    for name in ["read-only/work/mod/inner", "read-only/work/mod", "locked"] {
        mode(&root, &job(name), 0o555);
    }
    // Longer than a path may be.
    let deep =
        "d=%; cd $d && for i in $(seq 60); do mkdir $n && cd -P $n || exit 1; done; chmod 0 .";
    let long = "n".repeat(100);
    let deep = deep.replace('%', &root.path(&job("deep")).to_string_lossy());
    assert!(Command::new("bash").args(["-c", &deep]).env("n", long).status().unwrap().success());
    // As a removal leaves it that was cut short.
    fs::remove_file(root.path(&job("half/request.json"))).unwrap();
    fs::remove_file(root.path(&job("half/status"))).unwrap();
    root.write(&job("stray"), "not a job");
    fs::create_dir(root.path("state/processor/pid/stray")).unwrap();
    if let Some(owner) = root.user {
        for name in ["read-only", "deep"] {
            give(&root.path(&job(name)), owner);
        }
    }
    for id in ["read-only", "plain", "half", "deep", "locked", "unread", "endless"] {
        long_ago(&root, id);
    }
    let touch = ["touch", "-d", "100 days ago"];
    let aged =
        Command::new(touch[0]).args(&touch[1..]).arg(root.path(&job("pipe/status"))).status();
    assert!(aged.unwrap().success());
    // No absence: it cannot be read.
    mode(&root, &job("unread/status"), 0);
    let said = once(&root);
    assert!(said.contains("unread/status: permission denied"), "{said}");
    let mut left: Vec<_> = fs::read_dir(root.path("state/processor/job"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["stray", "unread"], "{said}");
    assert_eq!(fs::read_dir(root.path("state/processor/tmp")).unwrap().count(), 0, "{said}");
    fs::remove_file(root.path(&job("stray"))).unwrap();
    fs::remove_dir(root.path("state/processor/pid/stray")).unwrap();
    mode(&root, &job("unread/status"), 0o640);
    once(&root);
    assert!(!root.exists(&job("unread")));
    root.check();
}

fn give(path: &Path, owner: u32) {
    let owned = Command::new("chown").arg("-R").arg(format!("{owner}:{owner}")).arg(path).status();
    assert!(owned.unwrap().success());
}

#[test]
fn what_cannot_be_removed_is_told_and_the_round_goes_on() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can plant what its user cannot remove");
        return;
    }
    let root = plain_root(CONF);
    let job = root.submit(&json!({"command": "true", "dir": "/"}));
    ended_on_node(&root, "foreign", "true");
    ended_on_node(&root, "plain", "true");
    let foreign = "state/processor/job/foreign/work";
    fs::create_dir_all(root.path(foreign)).unwrap();
    root.write(&format!("{foreign}/file"), "root's");
    for name in ["requests", "bad", "tmp", "children/7", "files/8"] {
        fs::create_dir_all(root.path(&format!("state/scheduler/{name}/stray"))).unwrap();
        age(&root, &format!("state/scheduler/{name}/stray"), 200 * DAY);
        age(&root, &format!("state/scheduler/{name}"), 200 * DAY);
    }
    long_ago(&root, "foreign");
    long_ago(&root, "plain");
    let said = once(&root);
    assert!(!root.exists("state/processor/job/foreign"), "{said}");
    assert!(!root.exists("state/processor/job/plain"), "{said}");
    assert!(said.contains("/work: operation not permitted"), "{said}");
    assert!(said.contains("files/8") && said.contains("bad/stray"), "{said}");
    until("the job is done", || {
        once(&root);
        root.status(job)["state"] == "stopped"
    });
    // A poller that stays tells each of them once.
    let _poller = root.poller();
    until("it is told", || root.read("poller.log").contains("bad/stray"));
    assert_eq!(root.read("poller.log").matches("bad/stray").count(), 1);
}

/// A held job with an upload and a request id; its number.
fn held_with_upload(root: &TestRoot) -> u64 {
    let body = concat!(
        "--b\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n",
        r#"{"command": "cat hello", "state": "held", "request_id": "once"}"#,
        "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"hello\"\r\n\r\n",
        "from the file\r\n--b--\r\n",
    );
    let form = [("Content-Type", "multipart/form-data; boundary=b")];
    let answer = root.cgi("POST", "/scheduler/jobs/new", &form, body.as_bytes()).expect(201);
    answer.json()["job"].as_u64().unwrap()
}

#[test]
fn uploads_of_a_submission_that_was_cut_off_are_kept() {
    let root = open_root("");
    let job = held_with_upload(&root);
    // As a submitter leaves it that dies between the claim and the last rename.
    let prepared = root.path(&format!("state/scheduler/tmp/{job}.job"));
    fs::rename(root.path(&format!("state/scheduler/queue/{job}.job")), &prepared).unwrap();
    age(&root, &format!("state/scheduler/files/{job}"), DAY);
    once(&root);
    assert!(root.exists(&format!("state/scheduler/queue/{job}.job")));
    root.update(job, "release=1").expect(0);
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    assert_eq!(root.log(job), "from the file");
    root.check();
}

#[test]
fn what_cannot_be_read_is_not_absent() {
    let root = plain_root(CONF);
    root.cmd("scheduler", &["jobs"]).expect(0);
    root.write("state/open", "");
    let job = held_with_upload(&root);
    let card = format!("state/scheduler/queue/{job}.job");
    let children = format!("state/scheduler/children/{job}");
    root.write(&children, "\n99\n");
    for name in ["files/1", "children/1"] {
        age(&root, &format!("state/scheduler/{name}"), DAY);
    }
    for (name, wrong, right) in [(card.as_str(), 0, 0o640), ("state/scheduler/queue", 0, 0o750)] {
        mode(&root, name, wrong);
        root.cmd("poller", &["--once"]);
        mode(&root, name, right);
        assert!(root.exists(&format!("state/scheduler/files/{job}/hello")), "{name}");
        assert!(root.exists(&children), "{name}");
    }
    // Nor is a card that was put aside, and can be mended.
    let aside = format!("state/scheduler/bad/{job}.job");
    fs::rename(root.path(&card), root.path(&aside)).unwrap();
    once(&root);
    assert!(root.exists(&format!("state/scheduler/files/{job}/hello")) && root.exists(&children));
    fs::remove_file(root.path(&aside)).unwrap();
    once(&root);
    assert!(!root.exists(&format!("state/scheduler/files/{job}")) && !root.exists(&children));
}

/// Puts a finished card on the board, so old.
fn plant_done(root: &TestRoot, job: u64, old: Duration) {
    let accepted = json!({"job": job, "request_id": format!("r{job}"),
        "at": "2026-01-01T00:00:00.000Z", "by": "open", "request": {"command": "true"}});
    let stopped = json!({"at": "2026-01-01T00:00:01.000Z", "event": "stopped",
        "status": "error", "cause": "killed"});
    fs::create_dir_all(root.path(&format!("state/scheduler/done/{}", job / 1000))).unwrap();
    let name = format!("state/scheduler/done/{}/{job}.job", job / 1000);
    root.write(&name, &format!("{accepted}\n\n{stopped}\n"));
    age(root, &name, old);
}

#[test]
fn one_recent_card_keeps_no_old_ones() {
    let root = open_root("keep_done = 10d\nkeep_done_count = 100\n");
    root.cmd("scheduler", &["jobs"]).expect(0);
    root.write("state/scheduler/seq", "next=60000 limit=60000 boot=x\n");
    // In the first directories only recent cards, so that all of it seems to be.
    for shard in 0..50 {
        plant_done(&root, shard * 1000 + 1, if shard < 45 { DAY } else { 20 * DAY });
    }
    for shard in 45..50 {
        age(&root, &format!("state/scheduler/done/{shard}"), 20 * DAY);
    }
    plant_done(&root, 2, 20 * DAY);
    once(&root);
    assert!(root.exists("state/scheduler/done/0/1.job"));
    assert!(!root.exists("state/scheduler/done/0/2.job"));
    for shard in 45..50 {
        assert!(!root.exists(&format!("state/scheduler/done/{shard}")), "{shard}");
    }
    assert!(root.exists("state/scheduler/done/44/44001.job"));
    // By count: the newest numbers stay.
    root.write("corkboard.conf", &format!("{CONF}keep_done = 10d\nkeep_done_count = 2\n"));
    once(&root);
    let tree = root.tree();
    let done: Vec<&str> = tree.lines().filter(|line| line.starts_with("done/")).collect();
    assert_eq!(done, ["done/43/43001.job", "done/44/44001.job"]);
    root.check();
}

#[test]
fn a_child_of_a_job_that_was_cleaned_up_is_in_order() {
    let root = open_root("keep_done = 1d\n");
    let parent = root.submit(&json!({"command": ["true"]}));
    let child = root.submit(&json!({"command": ["true"], "state": "held", "parent": parent}));
    let poller = root.poller();
    root.reaches(parent, "stopped");
    drop(poller);
    for name in [format!("done/0/{parent}.job"), "done/0".into()] {
        age(&root, &format!("state/scheduler/{name}"), 2 * DAY);
    }
    once(&root);
    assert!(!root.exists(&format!("state/scheduler/children/{parent}")), "{}", root.tree());
    root.check();
    root.cmd("scheduler", &["check", "--repair"]).expect(0);
    assert!(!root.exists(&format!("state/scheduler/children/{parent}")), "{}", root.tree());
    assert_eq!(root.status(child)["state"], "held");
}

#[test]
fn nothing_that_has_not_stopped_is_removed_from_done() {
    let root = open_root("keep_done = 1d\nkeep_bad = 1d\n");
    let [ended, held, damaged] = [
        root.submit(&json!({"command": ["true"]})),
        root.submit(&json!({"command": ["true"], "state": "held"})),
        root.submit(&json!({"command": ["true"], "state": "held"})),
    ];
    until("it has ended", || {
        once(&root);
        root.status(ended)["state"] == "stopped"
    });
    let done = |job: u64| format!("state/scheduler/done/0/{job}.job");
    for job in [held, damaged] {
        fs::rename(root.path(&format!("state/scheduler/queue/{job}.job")), root.path(&done(job)))
            .unwrap();
    }
    root.write(&done(damaged), "\0\0\0\0");
    for name in [done(ended), done(held), done(damaged), "state/scheduler/done/0".into()] {
        age(&root, &name, 2 * DAY);
    }
    let said = once(&root);
    assert!(!root.exists(&done(ended)), "{said}");
    assert_eq!(root.status(held)["state"], "held", "{}", root.tree());
    assert!(root.exists(&format!("state/scheduler/queue/{held}.job")), "{}", root.tree());
    let aside = format!("state/scheduler/bad/{damaged}.job");
    assert!(root.exists(&aside), "{}", root.tree());
    assert!(said.contains(&format!("lies in bad/{damaged}.job")), "{said}");
    fs::remove_file(root.path(&aside)).unwrap();
    root.check();
}

/// Whoever takes a request id that nobody has any more keeps it, though a clean-up has just found it free.
#[test]
fn a_clean_up_takes_no_request_id_that_is_taken_meanwhile() {
    let root = open_root("keep_done = 1d\n");
    root.submit(&json!({"command": "true", "state": "held"}));
    let one = |id: &str| json!({"command": "true", "dir": "/", "state": "held", "request_id": id});
    let both = json!([one("a"), one("b")]);
    // As a batch leaves them whose submitter died before its commit, and somebody has emptied tmp/.
    let commit = Point { name: "renameat2".into(), nth: 1, seen: true };
    assert!(Act::submit(&root, &both).kill_at(&commit).killed);
    for entry in fs::read_dir(root.path("state/scheduler/tmp")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let claims = || -> Vec<String> {
        let names = fs::read_dir(root.path("state/scheduler/requests")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let left = claims();
    assert!(!left.is_empty(), "{}", root.tree());
    for name in &left {
        age(&root, &format!("state/scheduler/requests/{name}"), 20 * DAY);
    }
    let done = 900;
    plant_done(&root, done, 20 * DAY);
    age(&root, "state/scheduler/done/0", 20 * DAY);
    let numbers = std::thread::scope(|scope| {
        let clean = Act::cmd(&root, "poller", &["--once", "-q"], "");
        let slow = scope.spawn(move || clean.inject("unlink:delay_enter=2000000"));
        // It has removed the card, goes on to its children, and then to the claims.
        until("it is at it", || !root.exists(&format!("state/scheduler/done/0/{done}.job")));
        // Nothing shows that it has looked at the claims, and is about to remove what it must not.
        let_pass(Duration::from_secs(3));
        let first = root.cmd_in("scheduler", &["jobs", "new"], &both.to_string()).expect(0).json();
        assert!(slow.join().unwrap().acknowledged());
        first
    });
    let again = root.cmd_in("scheduler", &["jobs", "new"], &both.to_string()).expect(0).json();
    assert_eq!(again[0]["job"], numbers[0]["job"], "{again} {numbers} {}", root.tree());
    assert_eq!(again[1]["job"], numbers[1]["job"], "{again} {numbers}");
    root.check();
}
