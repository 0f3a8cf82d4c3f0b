//! Files of the head that were damaged: they are put aside and named, and their neighbours live on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use common::head::open_root;
use common::{SOON, wait_for};
use serde_json::json;

#[test]
fn damaged_cards_are_put_aside() {
    let root = open_root("");
    for _ in 0..4 {
        root.submit(&json!({"command": ["true"], "state": "held"}));
    }
    let queue = |job: u64| format!("state/scheduler/queue/{job}.job");
    root.write(&queue(1), "");
    let text = root.read(&queue(2));
    root.write(&queue(2), &text[..text.len() / 2]);
    root.write(&queue(3), "\0\0\0\0\0\0\0\0");
    let found = root.cmd("scheduler", &["check"]).expect(1);
    for job in 1..=3 {
        assert!(
            found.body.contains(&format!("queue/{job}.job: its first line is not")),
            "{found:?}"
        );
    }
    assert_eq!(found.body.lines().count(), 3, "{found:?}");
    // Looked at, each is told of, and lies in bad/; the others are as they were.
    let gone = root.cmd("scheduler", &["jobs", "1"]).expect(1);
    assert!(gone.stderr.contains("bad"), "{gone:?}");
    root.update(2, "release=1").expect(1);
    let _poller = root.poller();
    root.update(4, "release=1").expect(0);
    assert_eq!(root.reaches(4, "stopped")["status"], "good");
    let repaired = root.cmd("scheduler", &["check", "--repair"]).expect(0);
    assert_eq!(repaired.body, "", "{repaired:?}");
    let nodes = "nodes/localhost.json\n";
    assert_eq!(root.tree(), format!("bad/1.job\nbad/2.job\nbad/3.job\ndone/0/4.job\n{nodes}"));
    root.check();
    let again = root.cgi("GET", "/scheduler/jobs/3", &[], b"");
    assert_eq!(again.code, 410, "{again:?}");
    assert_eq!(root.submit(&json!({"command": ["true"]})), 5);
    root.reaches(5, "stopped");
    root.check();
}

#[test]
fn damaged_lines_are_passed_over() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"], "state": "held"}));
    let path = root.path(&format!("state/scheduler/queue/{job}.job"));
    let mut text = fs::read(&path).unwrap();
    text.extend(b"\n\0\0\0\0\0\0\n{\"at\":\"2026-01-01T00:00:00.000Z\",\"event\":\"priori");
    fs::write(&path, text).unwrap();
    root.update(job, "release=1").expect(0);
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
}

#[test]
fn a_card_in_the_wrong_column_is_moved() {
    let root = open_root("");
    root.cmd("poller", &["--once"]).expect(0); // gives the cluster its name
    let job = root.submit(&json!({"command": ["true"]}));
    let other = root.submit(&json!({"command": ["true"], "state": "held"}));
    let at = |column: &str, job: u64| root.path(&format!("state/scheduler/{column}/{job}.job"));
    fs::rename(at("queue", job), at("running", job)).unwrap();
    fs::create_dir_all(root.path("state/scheduler/done/0")).unwrap();
    fs::rename(at("queue", other), at("done/0", other)).unwrap();
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.contains("running/1.job: belongs in Queue"), "{found}");
    assert_eq!(found.lines().count(), 2, "{found}");
    root.cmd("scheduler", &["check", "--repair"]).expect(0);
    assert!(at("queue", job).exists() && at("queue", other).exists(), "{}", root.tree());
    root.check();
    fs::rename(at("queue", job), at("running", job)).unwrap();
    let _poller = root.poller();
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    root.check();
}

#[test]
fn numbers_are_not_guessed() {
    let root = open_root("");
    let request = r#"{"command": ["true"], "state": "held"}"#;
    assert_eq!(root.cmd_in("scheduler", &["jobs", "new", "-q"], request).body, "1\n");
    let good = root.read("state/scheduler/seq");
    for (text, part) in [
        (None, "seq is empty but the board has cards: write `next=N"),
        (Some(""), "seq is empty but the board has cards"),
        (Some("garbage"), "seq: not a line `next=N limit=N boot=ID`; mend it by hand"),
        (Some("next=0 limit=0 boot=x"), "mend it by hand"),
        (Some("\0\0\0\0\0\0"), "seq"),
    ] {
        match text {
            None => fs::remove_file(root.path("state/scheduler/seq")).unwrap(),
            Some(text) => root.write("state/scheduler/seq", text),
        }
        let refused = root.cmd_in("scheduler", &["jobs", "new"], request).expect(1);
        assert!(refused.stderr.contains(part), "{text:?}: {refused:?}");
        let refused =
            root.cgi("POST", "/scheduler/jobs/new", &[], format!("[{request}]").as_bytes());
        assert_eq!(refused.code, 500, "{refused:?}");
        let found = root.cmd("scheduler", &["check"]).expect(1);
        assert!(format!("{}{}", found.body, found.stderr).contains("seq"), "{found:?}");
        assert_eq!(root.tree(), "queue/1.job\n");
    }
    root.write("state/scheduler/seq", &good);
    assert_eq!(root.cmd_in("scheduler", &["jobs", "new", "-q"], request).body, "2\n");
    root.check();
}

#[test]
fn a_lost_cluster_name_is_not_made_up() {
    let root = open_root("");
    let poller = root.poller();
    let script = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
    let job = root.submit(&json!({"command": script}));
    root.reaches(job, "running");
    poller.end("TERM");
    let name = root.read("state/scheduler/cluster");
    fs::remove_file(root.path("state/scheduler/cluster")).unwrap();
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.contains("cluster is missing but jobs are with nodes: put it back"), "{found}");
    root.write("state/scheduler/cluster", &name);
    root.write("go", "");
    let _poller = root.poller();
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn strange_files_are_named_and_harm_nobody() {
    let root = open_root("");
    let held = root.submit(&json!({"command": ["true"], "state": "held"}));
    root.write("state/scheduler/queue/notes.txt", "mine");
    root.write("state/scheduler/queue/007.job", "{}");
    root.write("state/scheduler/nodes/broken.json", "{");
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    let found = wait_for(SOON, || {
        let found = root.cmd("scheduler", &["check"]).body;
        if found.lines().count() == 3 { Ok(found) } else { Err(found) }
    });
    for name in ["queue/notes.txt", "queue/007.job", "nodes/broken.json"] {
        assert!(found.contains(name), "{found}");
        fs::remove_file(root.path("state/scheduler").join(name)).unwrap();
    }
    assert_eq!(root.status(held)["state"], "held");
    root.check();
}

/// Between its stamp and its move a card is where it does not belong, for an instant, under the lock.
#[test]
fn a_card_on_the_move_is_no_damage() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"]}));
    let board = corkboard::board::root::Root::open(&root.dir).unwrap();
    let cards = corkboard::board::cards::Cards::new(&board);
    let (queue, done) = (format!("queue/{job}.job"), format!("done/0/{job}.job"));
    let [queue, done] = [queue, done].map(|name| root.path("state/scheduler").join(name));
    for words in [&["check"][..], &["check", "--repair"]] {
        let before = fs::read_to_string(&queue).unwrap();
        let lock = cards.lock().unwrap();
        let stopped = json!({"at": "2026-01-01T00:00:01.000Z", "event": "stopped",
            "status": "error", "cause": "killed"});
        fs::write(&queue, format!("{before}\n{stopped}\n")).unwrap();
        let mut check = Command::new(root.path("cgi-bin/scheduler"))
            .args(words)
            .env("CORKBOARD_ROOT", &root.dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It has read the card once it waits for the lock.
        let waits = root.path("state/scheduler/lock");
        wait_for(SOON, || {
            let fds =
                fs::read_dir(format!("/proc/{}/fd", check.id())).map_err(|e| e.to_string())?;
            let found =
                fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == waits));
            if found { Ok(()) } else { Err("it does not wait".into()) }
        });
        fs::create_dir_all(done.parent().unwrap()).unwrap();
        fs::rename(&queue, &done).unwrap();
        drop(lock);
        let mut said = String::new();
        check.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        check.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(check.wait().unwrap().success(), "{said}");
        assert_eq!(said, "", "{words:?}");
        fs::rename(&done, &queue).unwrap();
        fs::write(&queue, before).unwrap();
    }
}
