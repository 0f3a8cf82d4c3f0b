//! Files of the head that were damaged: they are put aside and named, and their neighbours live on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::head::{CONF, open_root};
use common::users::plain_root;
use common::{SOON, until, wait_for};
use serde_json::json;

#[test]
fn what_cannot_be_put_aside_is_not_repaired() {
    let root = open_root("");
    root.submit(&json!({"command": ["true"], "state": "held"}));
    root.write("state/scheduler/queue/1.job", "{");
    let (bad, aside) = (root.path("state/scheduler/bad"), root.path("aside"));
    fs::rename(&bad, &aside).unwrap();
    fs::write(&bad, "").unwrap();
    let repaired = root.cmd("scheduler", &["check", "--repair"]).expect(1);
    assert!(!repaired.stderr.contains("repaired"), "{repaired:?}");
    let why = "job 1: its card cannot be read, and cannot be put aside";
    assert!(repaired.body.contains(why), "{repaired:?}");
    fs::remove_file(&bad).unwrap();
    fs::rename(&aside, &bad).unwrap();
    let repaired = root.cmd("scheduler", &["check", "--repair"]).expect(1);
    assert!(repaired.stderr.contains("repaired"), "{repaired:?}");
    assert!(root.exists("state/scheduler/bad/1.job"));
}

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
    // Looked at, each is told of, and stays; what wants to change it puts it aside.
    let before = root.tree();
    for job in 1..=3 {
        let status = root.status(job);
        let reason = status["reason"].as_str().unwrap();
        assert_eq!((&status["state"], &status["cause"]), (&json!("stopped"), &json!("lost")));
        assert!(reason.contains(&format!("queue/{job}.job cannot be read: its")), "{status}");
        root.cgi("GET", &format!("/scheduler/jobs/{job}"), &[], b"").expect(200);
        root.cgi("GET", &format!("/scheduler/jobs/{job}/log"), &[], b"").expect(410);
        root.cmd("scheduler", &["check"]).expect(1);
    }
    assert_eq!(root.tree(), before);
    root.update(2, "release=1").expect(1);
    assert_ne!(root.tree(), before);
    let _poller = root.poller();
    root.update(4, "release=1").expect(0);
    assert_eq!(root.reaches(4, "stopped")["status"], "good");
    let repaired = root.cmd("scheduler", &["check", "--repair"]).expect(1);
    assert_eq!(repaired.body.lines().count(), 3, "{repaired:?}");
    assert_eq!(repaired.body.matches("bad/").count(), 3, "{repaired:?}");
    let nodes = "nodes/localhost.json\n";
    assert_eq!(root.tree(), format!("bad/1.job\nbad/2.job\nbad/3.job\ndone/0/4.job\n{nodes}"));
    let listed = root.cmd("scheduler", &["jobs", "state=stopped"]).expect(0).body;
    assert_eq!(listed, "4\n3\n2\n1\n");
    assert_eq!(root.status(3)["reason"], "its card cannot be read and lies in bad/3.job");
    root.cgi("POST", "/scheduler/jobs/3/update?kill=1", &[], b"").expect(410);
    for job in 1..=3 {
        fs::remove_file(root.path(&format!("state/scheduler/bad/{job}.job"))).unwrap();
    }
    root.check();
    root.cgi("GET", "/scheduler/jobs/3", &[], b"").expect(410);
    assert_eq!(root.submit(&json!({"command": ["true"]})), 5);
    root.reaches(5, "stopped");
    root.check();
}

#[test]
fn a_damaged_card_whose_number_was_never_given_out_does_not_stay() {
    let root = open_root("");
    let held = root.submit(&json!({"command": ["true"], "state": "held"}));
    root.write("state/scheduler/queue/900000.job", "what");
    let _poller = root.poller();
    until("it is put aside", || root.exists("state/scheduler/bad/900000.job"));
    assert_eq!(root.cmd("scheduler", &["queue"]).expect(0).body, format!("{held}\n"));
}

/// As long as it lies where it lay, nobody may take it for gone.
#[test]
fn a_damaged_card_that_cannot_be_put_aside_is_not_gone() {
    let root = open_root("");
    let job = root.submit(&json!({"command": ["true"], "state": "held"}));
    let card = format!("state/scheduler/queue/{job}.job");
    let whole = root.read(&card);
    root.write(&card, "what");
    fs::remove_dir(root.path("state/scheduler/bad")).unwrap();
    let path = format!("/scheduler/jobs/{job}/update?release=1");
    let refused = root.cgi("POST", &path, &[], b"").expect(500);
    assert!(refused.body.contains("cannot be read, and cannot be put aside"), "{refused:?}");
    root.write(&card, &whole);
    root.cgi("POST", &path, &[], b"").expect(200);
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
fn numbers_come_to_an_end_and_are_not_begun_again() {
    let root = open_root("");
    let one = r#"{"command": ["true"], "state": "held"}"#;
    root.cmd("scheduler", &["jobs"]).expect(0);
    for next in [u64::MAX, u64::MAX - 1, 999_999_999_999_999_999, 999_999_999_999_999_998] {
        root.write("state/scheduler/seq", &format!("next={next} limit={next} boot=x\n"));
        for body in [one.to_string(), format!("[{one},{one}]")] {
            let answer = root.cmd_in("scheduler", &["jobs", "new", "-q"], &body);
            if next == 999_999_999_999_999_998 && body == one {
                assert_eq!(answer.expect(0).body, format!("{next}\n"));
                root.cmd("scheduler", &["jobs", &next.to_string()]).expect(0);
                continue;
            }
            assert!(answer.stderr.contains("the job numbers are used up"), "{next}: {answer:?}");
            assert_eq!(answer.code, 1);
        }
    }
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

/// Directories stand for what cannot be read, whoever looks.
#[test]
fn what_cannot_be_read_keeps_nothing_else_from_being_listed_and_checked() {
    let root = open_root("");
    let parent = root.submit(&json!({"command": ["true"], "state": "held"}));
    root.submit(&json!({"command": ["true"], "state": "held", "parent": parent}));
    let blocked = root.submit(&json!({"command": ["true"], "state": "held"}));
    let paths = [
        format!("state/scheduler/queue/{blocked}.job"),
        format!("state/scheduler/children/{parent}"),
        "state/scheduler/nodes/far.json".to_string(),
        "state/scheduler/seq".to_string(),
    ];
    for path in &paths {
        let path = root.path(path);
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::create_dir(path).unwrap();
    }
    let listed = root.cmd("scheduler", &["jobs", "format=json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    let reason = listed[0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("is a directory") && listed[0].get("state").is_none(), "{listed}");
    let held = root.cmd("scheduler", &["jobs", "state=held"]).expect(0).body;
    assert_eq!(held.lines().count(), 2, "{held}");
    let record = root.cmd("scheduler", &["jobs", &parent.to_string()]).expect(0);
    assert_eq!((&record.json()["job"], record.json().get("children")), (&json!(parent), None));
    assert!(record.stderr.contains(&format!("children/{parent}: is a directory")), "{record:?}");
    let graph = root.cmd("scheduler", &["jobs", &parent.to_string(), "graph"]).expect(0).json();
    assert_eq!((graph["jobs"].as_array().unwrap().len(), &graph["cut"]), (1, &json!(true)));
    let nodes = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
    let far = nodes["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "far").unwrap();
    assert!(far["reason"].as_str().unwrap().ends_with("is a directory"), "{nodes}");
    fs::create_dir(root.path("state/scheduler/running/77.job")).unwrap();
    let run = root.cmd("nodemgr", &["jobs", "run", "json_data={\"command\": \"true\"}"]);
    assert!(run.stderr.contains("no node has room"), "{run:?}"); // none was asked yet
    fs::remove_dir(root.path("state/scheduler/running/77.job")).unwrap();
    for words in [&["check"][..], &["check", "--repair"]] {
        let found = root.cmd("scheduler", words).expect(1).body;
        for path in &paths {
            let path = root.path(path);
            let lines = found.lines().filter(|line| line.contains(path.to_str().unwrap()));
            assert_eq!(lines.count(), 1, "{}: {found}", path.display());
        }
    }
}

#[test]
fn a_round_from_cron_tells_all_that_went_wrong() {
    let root = open_root("");
    root.cmd("scheduler", &["jobs"]).expect(0);
    let paths = [7, 8, 9].map(|job| root.path(&format!("state/scheduler/queue/{job}.job")));
    paths.iter().for_each(|path| fs::create_dir(path).unwrap());
    let said = root.cmd("poller", &["--once"]).expect(1).stderr;
    for path in &paths {
        assert_eq!(said.matches(path.to_str().unwrap()).count(), 1, "{said}");
    }
}

#[test]
fn a_directory_of_finished_cards_that_cannot_be_read_hides_no_others() {
    let root = plain_root(CONF);
    let job = root.submit(&json!({"command": ["true"], "dir": "/"}));
    until("it has ended", || {
        root.cmd("poller", &["--once"]).expect(0);
        root.status(job)["state"] == "stopped"
    });
    let closed = root.path("state/scheduler/done/7");
    let mode = |mode| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&closed).unwrap();
    mode(0o000);
    if let Some(owner) = root.user {
        std::os::unix::fs::chown(&closed, Some(owner), Some(owner)).unwrap();
    }
    let listed = root.cmd("scheduler", &["jobs"]).expect(0);
    assert_eq!(listed.body, format!("{job}\n"));
    assert!(listed.stderr.contains("done/7: permission denied"), "{listed:?}");
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.contains("done/7: permission denied"), "{found}");
    fs::remove_dir(&closed).unwrap();
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

/// As no job has ever had so many.
#[test]
fn a_card_with_the_last_number_of_an_attempt_ends_no_program() {
    let root = open_root("");
    let job = root.submit(&json!({"command": "true", "dir": "/", "max_retry_count": 5}));
    let array = root.submit(&json!({"command": "true", "dir": "/", "array": "0-3"}));
    for (job, tasks) in [(job, json!(null)), (array, json!("0-3"))] {
        let name = format!("state/scheduler/queue/{job}.job");
        let mut placed = json!({"at": "2026-01-01T00:00:00.000Z", "event": "placed",
            "attempt": u32::MAX, "node": "n", "nodejob": format!("c-1-{job}.{}", u32::MAX),
            "driver": "local"});
        if !tasks.is_null() {
            placed["tasks"] = tasks;
        }
        let refused = json!({"at": "2026-01-01T00:00:01.000Z", "event": "refused",
            "attempt": u32::MAX, "reason": "x", "not_before": "2026-01-01T00:00:01.000Z"});
        root.write(&name, &format!("{}\n{placed}\n\n{refused}\n", root.read(&name)));
    }
    let other = root.submit(&json!({"command": "true", "dir": "/"}));
    let _poller = root.poller();
    root.reaches(other, "stopped");
    for job in [job, array] {
        let status = root.reaches(job, "stopped");
        assert_eq!(status["cause"], "aborted", "{status}");
        assert_eq!(status["reason"], "no number is left for another attempt");
    }
}
