//! What is kept secret, the key of an attempt, and what a job gets to see.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::head::{CONF, open_root};
use common::users::plain_root;
use common::{Httpd, SOON, TestRoot, wait_for};
use serde_json::{Value, json};

fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn every_file(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            every_file(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn who_can_write_where_tokens_are_is_told_and_nothing_is_done() {
    let root = open_root("");
    let admin = token(&root, &["role=admin"]);
    let header = bearer(&admin);
    let (name, value) = header.split_once(": ").unwrap();
    let ask = || root.cgi("GET", "/scheduler/jobs", &[(name, value)], b"");
    for (dir, loose, tight) in [("state", 0o757, 0o750), ("state/tokens", 0o720, 0o700)] {
        let chmod = |mode| {
            fs::set_permissions(root.path(dir), fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod(loose);
        let mend = format!("chmod go-w {}", root.path(dir).display());
        let told = root.cmd("scheduler", &["jobs"]).expect(1);
        assert!(told.stderr.contains(&mend), "{told:?}");
        let answer = ask().expect(500);
        assert!(!answer.body.contains("state") && answer.stderr.contains(&mend), "{answer:?}");
        chmod(tight);
        ask().expect(200);
    }
    root.check();
}

#[test]
fn secrets_on_disk() {
    let root = open_root("");
    let admin = token(&root, &["role=admin"]);
    let node = json!({"name": "n", "uri": "http://127.0.0.1:9", "token": "presented-to-n"});
    root.cmd("scheduler", &["nodes", "new", "-d", &node.to_string()]).expect(0);
    let _poller = root.poller();
    let job = root.submit(&json!({"command": ["true"]}));
    root.reaches(job, "stopped");
    let mut files = Vec::new();
    every_file(&root.path("state"), &mut files);
    let secret = admin.rsplit_once('_').unwrap().1;
    let mut kept = 0;
    for path in files {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        let name = path.strip_prefix(root.path("state")).unwrap().display().to_string();
        if name.starts_with("tokens")
            || name.starts_with("secrets")
            || name.ends_with("request.json")
        {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{name}");
            kept += usize::from(path.is_file());
        }
        let mark = path.is_symlink() || name == "open"; // the test itself made that one
        assert!(mark || mode & 0o007 == 0, "{name} {mode:o}");
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(secret), "{name}");
        assert!(!text.contains("presented-to-n") || name == "secrets/nodes/n", "{name}");
        // The key of an attempt is on its node alone.
        assert!(!text.contains("cbkey_") || name.ends_with("request.json"), "{name}");
    }
    assert_eq!(kept, 4, "a token, a node's token, the key of keys, a request");
    root.check();
}

/// A job that tells its key and waits.
fn key_of(root: &TestRoot) -> (u64, String) {
    let script = format!(
        "echo $CORKBOARD_TOKEN > {0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.02; done",
        root.path("key").display(),
        root.path("go").display()
    );
    let job = root.submit(&json!({"command": script}));
    let key = wait_for(SOON, || {
        let key = root.read("key");
        if key.is_empty() { Err(root.tree()) } else { Ok(key.trim().to_string()) }
    });
    (job, key)
}

#[test]
fn the_key_of_an_attempt() {
    let mut root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let _poller = root.poller();
    let (job, key) = key_of(&root);
    let id = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
    assert!(key.starts_with(&format!("cbkey_{id}_")), "{key}");
    let with = |httpd: &Httpd, args: &[&str], path: &str| {
        httpd.curl(&[&["-H", &bearer(&key) as &str], args].concat(), path)
    };
    with(&httpd, &[], "/scheduler/jobs").expect(200);
    with(&httpd, &["-d", r#"{"command": ["true"]}"#], "/scheduler/jobs/new").expect(201);
    assert_eq!(
        (&root.card(2)[0]["parent"], &root.card(2)[0]["by"]),
        (&json!(job), &json!(format!("job {job}")))
    );
    for (args, path) in [
        (&["-X", "POST"] as &[&str], format!("/scheduler/jobs/{job}/update?kill=1")),
        (&["-X", "DELETE"], "/scheduler/queue/2".into()),
        (&["-d", r#"{"name":"n","uri":"http://x"}"#], "/scheduler/nodes/new".into()),
        (&["-X", "POST"], "/scheduler/tokens/new?role=admin".into()),
        (&["-X", "POST"], format!("/processor/jobs/{id}/kill")),
    ] {
        with(&httpd, args, &path).expect(403);
    }
    // Its children are its own.
    let foreign = r#"{"command": ["true"], "parent": 2}"#;
    with(&httpd, &["-d", foreign], "/scheduler/jobs/new").expect(403);
    // Another job's key, made of this one.
    let forged = key.replace(&id, &id.replace(&format!("-{job}."), "-2."));
    httpd.curl(&["-H", &bearer(&forged)], "/scheduler/jobs").expect(401);
    let next = key.replace(&id, &id.replace(".1", ".2"));
    httpd.curl(&["-H", &bearer(&next)], "/scheduler/jobs").expect(401);
    // In a shell it says whose child a job is; it takes no rights away.
    root.env.push(("CORKBOARD_TOKEN".into(), key.clone()));
    let child = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.card(child)[0]["parent"], json!(job));
    // It dies with the attempt.
    root.write("go", "");
    root.reaches(job, "stopped");
    with(&httpd, &[], "/scheduler/jobs").expect(401);
    with(&httpd, &["-d", r#"{"command": ["true"]}"#], "/scheduler/jobs/new").expect(401);
    let orphan = root.submit(&json!({"command": ["true"]}));
    assert_eq!(root.card(orphan)[0]["parent"], Value::Null);
    for job in 2..=orphan {
        root.reaches(job, "stopped");
    }
    root.check();
}

#[test]
fn what_a_job_sees_of_its_surroundings() {
    let mut root = open_root("advertise = http://head.example/cgi-bin\n");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let secrets = [("SECRET_OF_HTTPD", "1"), ("HTTP_PROXY", "http://evil"), ("LD_PRELOAD_X", "1")];
    let httpd = root.try_httpd(port, &secrets).expect("the port is free");
    root.env.push(("SECRET_OF_POLLER".into(), "1".into()));
    let _poller = root.poller();
    let names = |text: &str| -> Vec<String> {
        let mut names: Vec<String> =
            text.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n.to_string()).collect();
        names.sort();
        names
    };
    let base = ["CORKBOARD_NODE_URL", "HOME", "LANG", "PATH", "TMPDIR", "USER"];
    let set_by_head = ["CORKBOARD_JOB", "CORKBOARD_NODEJOB", "CORKBOARD_TOKEN", "CORKBOARD_URL"];
    let request =
        json!({"command": ["env"], "environment": {"MINE": "x", "CORKBOARD_TOKEN": "forged"}});
    let sorted = |more: &[&str]| {
        let mut all: Vec<String> = base.iter().chain(more).map(|s| s.to_string()).collect();
        all.sort();
        all
    };
    // Placed by the poller, on a local node.
    let job = root.submit(&request);
    root.reaches(job, "stopped");
    let log = root.log(job);
    let more = [&set_by_head[..], &["CORKBOARD_ROOT", "MINE"]].concat();
    assert_eq!(names(&log), sorted(&more), "{log}");
    assert!(log.contains("CORKBOARD_URL=http://head.example/cgi-bin\n"), "{log}");
    assert!(!log.contains("forged"), "{log}");
    // Accepted by a CGI program of a web server, with all that a web server sets.
    let plain = r#"{"command": ["env"], "request_id": "plain"}"#;
    httpd
        .curl(&["-H", "Proxy: http://evil", "-H", "X-Evil: 1", "-d", plain], "/processor/jobs/new")
        .expect(201);
    root.ended("plain");
    let log = httpd.curl(&[], "/processor/jobs/plain/log").expect(200).body;
    assert_eq!(names(&log), sorted(&["CORKBOARD_NODEJOB"]), "{log}");
    // Placed by the poller, on the same processor as an http node: no root to be had that way.
    let node = json!({"name": "localhost", "uri": httpd.url()});
    root.cmd("scheduler", &["nodes", "new", "-d", &node.to_string()]).expect(0);
    wait_for(SOON, || {
        let node = root.cmd("scheduler", &["nodes", "localhost"]).expect(0).json();
        if node["state"] == "connected" { Ok(()) } else { Err(node.to_string()) }
    });
    let job = root.submit(&request);
    assert_eq!(root.reaches(job, "stopped")["status"], "good");
    let log = root.log(job);
    let more = [&set_by_head[..], &["MINE"]].concat();
    assert_eq!(names(&log), sorted(&more), "{log}");
    root.check();
}

/// Nothing is placed without a key; and where there is nothing to place nobody looks for one.
#[test]
fn a_secret_that_cannot_be_read_is_missed_by_what_needs_it() {
    let root = plain_root(CONF);
    let first = root.submit(&json!({"command": ["true"], "dir": "/"}));
    let poller = root.poller();
    root.reaches(first, "stopped");
    drop(poller);
    let secret = root.path("state/secrets/attempts");
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let wide = json!({"command": ["true"], "dir": "/", "requested_resources": {"cores": 3}});
    let wide = root.submit(&wide);
    let poller = root.poller();
    root.reason(wide, "no node has 3 cores");
    let log = root.read("poller.log");
    assert!(!log.contains("secrets/attempts"), "{log}");
    let next = root.submit(&json!({"command": ["true"], "dir": "/"}));
    wait_for(SOON, || {
        let log = root.read("poller.log");
        if log.contains("secrets/attempts: permission denied") { Ok(()) } else { Err(log) }
    });
    assert_eq!(root.status(next)["state"], "queued");
    mode(0o600);
    root.reaches(next, "stopped");
    drop(poller);
    root.check();
}
