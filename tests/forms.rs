//! Forms that are refused, cut off, or meet a full disk: they leave nothing behind, and what is still
//! arriving is left alone.
//!
//! A small file system is mounted: root and tmpfs are needed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/forms.rs"]
mod forms;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use common::head::open_root;
use common::{SOON, until, wait_for};
use forms::{END, FORM, NEW, age, begin, file, left_behind, number, part};

#[test]
fn what_a_killed_request_leaves_is_removed_and_what_arrives_is_not() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    let job = part("name=\"job\"", r#"{"command": "cat in", "request_id": "r"}"#);
    let form = format!("{}{job}{END}", file("in", &"x".repeat(200_000)));
    for path in [NEW, "/processor/jobs/new"] {
        let board = if path == NEW { "scheduler" } else { "processor" };
        let (mut killed, alive) = (
            begin(&root, path, form.len(), &form.as_bytes()[..150_000]),
            begin(&root, path, form.len(), &form.as_bytes()[..150_000]),
        );
        let left = wait_for(SOON, || {
            let left = left_behind(&root);
            let arrived =
                |dir: &PathBuf| fs::metadata(dir.join("in")).is_ok_and(|m| m.len() > 65_536);
            if left.iter().filter(|dir| arrived(dir)).count() == 2 {
                Ok(left)
            } else {
                Err(format!("{left:?}"))
            }
        });
        killed.kill().unwrap();
        killed.wait().unwrap();
        root.check();
        root.cmd("poller", &["--once", "-q"]).expect(0);
        assert_eq!(left_behind(&root).len(), 2, "one that is made just now is not locked yet");
        left.iter().for_each(|path| age(path));
        root.cmd("poller", &["--once", "-q"]).expect(0);
        assert_eq!(left_behind(&root).len(), 1, "{board}");
        let mut alive = alive;
        alive.stdin.take().unwrap().write_all(&form.as_bytes()[150_000..]).unwrap();
        common::answered(&alive.wait_with_output().unwrap()).expect(201);
        assert!(left_behind(&root).is_empty());
    }
    root.ended("r");
    let _poller = root.poller();
    root.reaches(1, "stopped");
    assert_eq!(root.log(1), "x".repeat(200_000));
    root.check();
}

#[test]
fn forms_that_are_refused_leave_nothing() {
    let root = open_root("max_body = 4 KiB\nmax_upload = 300 KiB\n");
    let job = part("name=\"job\"", r#"{"command": "true"}"#);
    let one = file("a", "1");
    let bad = |why: &str| (400, why.to_string());
    let cases = [
        (format!("{one}{job}"), bad("it ends within a part")),
        (format!("{one}{}", &job[..job.len() - 9]), bad("it ends within a part")),
        (format!("{one}--b\r\n"), bad("a part without an empty line")),
        (format!("{one}--b"), bad("it ends within a boundary")),
        (format!("{one}{END}"), bad("the form has no part named job")),
        (format!("{job}{one}{job}{END}"), bad("a form has one part named job")),
        (
            format!("{job}{}{END}", part("filename=\"a\"", "1")),
            bad("a form has one part named job"),
        ),
        (format!("{one}{job}{one}{END}"), bad("two files are named \"a\"")),
        (format!("{one}--b\r\nX: {}\r\n\r\n{END}", "y".repeat(20_000)), bad("headers have over")),
        (format!("{one}{}{END}", part("name=\"job\"", "{")), bad("\"job\" is not JSON")),
        (format!("{one}{job}--bx\r\n{END}"), bad("a line that begins with the boundary")),
        (format!("{job}{}{END}", part("name=\"file\"", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file("../a", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file("/etc/x", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file("..", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file(".ssh", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file("-rf", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file("a\tb", "1")), bad("cannot be a file's name")),
        (format!("{one}{job}{}{END}", file(&"n".repeat(256), "1")), bad("cannot be a file's name")),
        (
            format!("{one}{}{END}", part("name=\"job\"", &"x".repeat(5000))),
            (413, "\"job\" has over 4096 bytes (setting max_body)".into()),
        ),
        (
            format!(
                "{job}{}{}{END}",
                file("b", &"x".repeat(200_000)),
                file("c", &"x".repeat(110_000))
            ),
            (413, "the files have more than 307200 bytes (setting max_upload)".into()),
        ),
        (
            format!("{}{END}", file("b", &"x".repeat(6_000_000))),
            (413, "bytes (settings max_upload, max_body)".into()),
        ),
        (
            format!("{one}{}{END}", part("name=\"job\"", r#"{"command": "true", "dri": "/"}"#)),
            bad("dri"),
        ),
    ];
    for path in [NEW, "/processor/jobs/new", "/nodemgr/localhost/jobs/new"] {
        for (form, (code, part)) in &cases {
            let answer = root.cgi("POST", path, &[FORM], form.as_bytes());
            let shown = &form[..form.len().min(300)];
            let said = answer.json()["error"].as_str().unwrap().to_string();
            assert!(said.contains(part) && answer.code == *code, "{path} {shown:?} {answer:?}");
            assert!(left_behind(&root).is_empty(), "{path} {shown:?}");
        }
        // One that is shorter than it says, and one whose type has no boundary.
        let form = format!("{one}{job}{END}");
        let length = (form.len() + 10).to_string();
        root.cgi("POST", path, &[FORM, ("Content-Length", &length)], form.as_bytes()).expect(411);
        let half = ("Content-Length", "100000");
        root.cgi("POST", path, &[FORM, half], &form.as_bytes()[..form.len() / 2]).expect(411);
        let none = ("Content-Type", "multipart/form-data");
        root.cgi("POST", path, &[none], form.as_bytes()).expect(400);
        assert!(left_behind(&root).is_empty());
    }
    // A route that takes no files reads its JSON from a form, too.
    let node = part("name=\"job\"", r#"{"name": "n", "uri": "http://127.0.0.1:1"}"#);
    root.cgi("POST", "/scheduler/nodes/new", &[FORM], format!("{node}{one}{END}").as_bytes())
        .expect(415);
    root.cgi("POST", "/scheduler/nodes/new", &[FORM], format!("{node}{END}").as_bytes())
        .expect(201);
    let list = part("name=\"job\"", r#"[{"command": "true"}]"#);
    root.cgi("POST", NEW, &[FORM], format!("{one}{list}{END}").as_bytes()).expect(400);
    assert_eq!(root.tree(), "nodes/n.json\n");
    assert!(left_behind(&root).is_empty());
    root.check();
}

/// What clean-up takes for old is not what has just become a job's.
#[test]
fn files_that_took_long_to_arrive_are_kept() {
    let mut root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    // Between the files' having their name and the card's being there much has to be synced.
    let slow = "strace -f -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=1500000";
    root.wrap = slow.split(' ').map(String::from).collect();
    let form =
        format!("{}{}{END}", file("in", "it\n"), part("name=\"job\"", r#"{"command": "cat in"}"#));
    let half = form.len() / 2;
    let mut arriving = begin(&root, NEW, form.len(), &form.as_bytes()[..half]);
    root.wrap = Vec::new();
    let incoming = wait_for(SOON, || {
        let dirs = left_behind(&root);
        let has_begun = |dir: &&PathBuf| fs::exists(dir.join("in")).unwrap();
        dirs.iter().find(has_begun).cloned().ok_or_else(|| format!("{dirs:?}"))
    });
    age(&incoming);
    arriving.stdin.take().unwrap().write_all(&form.as_bytes()[half..]).unwrap();
    until("the files are the job's", || root.exists("state/scheduler/files/1"));
    root.cmd("poller", &["--once", "-q"]).expect(0);
    assert!(!root.exists("state/scheduler/queue/1.job"), "the clean-up came too late");
    assert_eq!(number(common::answered(&arriving.wait_with_output().unwrap())), 1);
    let _poller = root.poller();
    root.reaches(1, "stopped");
    assert_eq!(root.log(1), "it\n");
    root.check();
}

/// However many files bring it: whoever waits for the last sync does not wait for gigabytes.
#[test]
fn what_arrives_is_synced_while_it_does() {
    let mut root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    let trace = root.path("trace");
    let strace = format!("strace -f -o {} -e trace=fdatasync,syncfs", trace.display());
    root.wrap = strace.split(' ').map(String::from).collect();
    let megabyte = "x".repeat(1 << 20);
    let files: String = (0..70).map(|n| file(&format!("f{n}"), &megabyte)).collect();
    let form = format!("{files}{}{END}", part("name=\"job\"", r#"{"command": "true"}"#));
    number(root.cgi("POST", NEW, &[FORM], form.as_bytes()));
    let trace = root.read("trace");
    assert!(trace.matches("syncfs(").count() >= 3, "twice while they arrive, and at last: {trace}");
    root.wrap = Vec::new();
    root.check();
}

#[test]
fn too_much_is_refused_as_soon_as_it_is_too_much() {
    let root = open_root("max_body = 64 KiB\nmax_upload = 256 KiB\n");
    let job = part("name=\"job\"", "");
    let files = file("a", "");
    let (job, files) = (&job[..job.len() - 2], &files[..files.len() - 2]);
    // Nothing more is sent, and nobody waits for it.
    for (length, beginning) in [
        (2_000_000_000, String::new()),
        (1 << 20, format!("{job}{}", "x".repeat(70_000))),
        (1 << 20, format!("{files}{}", "x".repeat(270_000))),
    ] {
        let mut child = begin(&root, NEW, length, beginning.as_bytes());
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        common::answered(&output).expect(413);
        assert!(left_behind(&root).is_empty());
    }
    assert_eq!(root.tree(), "");
    root.check();
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_file() {
    let root = open_root("");
    let state = root.path("state");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=6m,mode=0750", "corkboard-test"]).arg(&state);
    assert!(mount.status().unwrap().success(), "cannot mount a tmpfs: root is needed");
    let _mount = Mounted(state);
    root.open();
    root.cmd("scheduler", &["jobs"]).expect(0);
    let job = part("name=\"job\"", r#"{"command": "cat in", "request_id": "r"}"#);
    let form = |length| format!("{}{job}{END}", file("in", &"x".repeat(length)));
    for path in [NEW, "/processor/jobs/new"] {
        let answer = root.cgi("POST", path, &[FORM], form(8 << 20).as_bytes()).expect(503);
        assert!(answer.body.contains("no space left"), "{answer:?}");
        assert!(left_behind(&root).is_empty());
        root.check();
    }
    assert_eq!(root.tree(), "");
    let job = number(root.cgi("POST", NEW, &[FORM], form(100_000).as_bytes()));
    let poller = root.poller();
    root.reaches(job, "stopped");
    assert_eq!(root.log(job), "x".repeat(100_000));
    poller.end("TERM");
    until("its supervisor has ended", || root.processes().is_empty());
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
