//! Who may do what: closed roots, open mode, tokens and their roles, the key of an attempt, and
//! what a job gets to see.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::head::{CONF, Door, open_root};
use common::{Httpd, SOON, TestRoot, wait_for};
use corkboard::cgi::{Method, Need, Program};
use serde_json::{Value, json};

const PROGRAMS: [&Program; 3] =
    [&corkboard::scheduler::PROGRAM, &corkboard::processor::PROGRAM, &corkboard::nodemgr::PROGRAM];

/// Every route of every program, as a request to something that is not there.
fn every_route() -> Vec<(&'static str, String, Need)> {
    let all = PROGRAMS.iter().flat_map(|program| {
        program.routes.iter().map(|route| {
            let words = route.pattern.split('/').filter(|word| !word.is_empty());
            let filled = words.map(|word| if word.starts_with(':') { "/1" } else { word });
            let path = filled.map(|word| format!("/{}", word.trim_start_matches('/')));
            let method =
                if route.method == Method::Delete { "DELETE" } else { route.method.name() };
            (method, format!("/{}{}", program.name, path.collect::<String>()), route.need)
        })
    });
    all.collect()
}

fn token(root: &TestRoot, words: &[&str]) -> String {
    let words = [&["tokens", "new", "-q"], words].concat();
    root.cmd("scheduler", &words).expect(0).body.trim().to_string()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[test]
fn closed_unless_opened() {
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    for door in [Door::Bare(&root), Door::Web(&httpd)] {
        for (method, path, _) in every_route() {
            let refused = door.send(method, &path, &[], "").expect(403).json();
            let advice = refused["error"].as_str().unwrap();
            assert!(
                advice.starts_with("closed: make a token with `scheduler tokens new role=admin`"),
                "{path}: {advice}"
            );
        }
        door.get("/scheduler/no/such/path").expect(403);
        door.send("GET", "/scheduler/jobs", &[("Authorization", "Bearer cb_x_y")], "").expect(401);
        door.send("GET", "/scheduler/jobs", &[("Authorization", "Basic eDp5")], "")
            .expect(if matches!(door, Door::Bare(_)) { 401 } else { 403 });
    }
    assert_eq!(root.tree(), "");
    // With a token it is still closed to those who have none.
    token(&root, &["role=admin"]);
    for (method, path, _) in every_route() {
        let refused = root.cgi(method, &path, &[], b"").expect(401);
        assert_eq!(refused.header("WWW-Authenticate"), Some("Bearer"));
    }
    root.check();
}

#[test]
fn open_mode_is_for_this_machine_and_no_web_page() {
    let root = open_root("");
    for (header, value, code) in [
        ("Remote-Addr", "127.0.0.1", 200),
        ("Remote-Addr", "127.8.9.1:4242", 200),
        ("Remote-Addr", "[::1]", 200),
        ("Remote-Addr", "[::1]:4242", 200),
        ("Remote-Addr", "::1", 200),
        ("Remote-Addr", "[::ffff:127.0.0.1]", 200),
        ("Remote-Addr", "[::ffff:127.0.0.1]:4242", 200),
        ("Remote-Addr", "10.0.0.7", 403),
        ("Remote-Addr", "[::ffff:10.0.0.7]", 403),
        ("Remote-Addr", "[fe80::1]", 403),
        ("Remote-Addr", "", 403),
        ("Host", "localhost", 200),
        ("Host", "LOCALHOST:8080", 200),
        ("Host", "[::1]:8080", 200),
        ("Host", "127.0.0.1", 200),
        ("Host", "", 421),
        ("Host", "evil.example:8080", 421),
        ("Host", "localhost.evil.example", 421),
        ("Host", "127.0.0.1.evil.example", 421),
        ("Origin", "http://127.0.0.1:8080", 200),
        ("Origin", "http://127.0.0.1:9090", 403),
        ("Origin", "http://localhost:8080", 403),
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "", 403),
        ("Sec-Fetch-Site", "none", 200),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        // Never believed:
        ("X-Forwarded-For", "127.0.0.1", 200),
    ] {
        for (method, path) in
            [("GET", "/scheduler/jobs"), ("GET", "/processor/info"), ("GET", "/nodemgr/list")]
        {
            let answer = root.cgi(method, path, &[(header, value)], b"");
            assert_eq!(answer.code, code, "{header}: {value}: {answer:?}");
        }
    }
    let evil =
        [("Remote-Addr", "10.0.0.7"), ("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1")];
    root.cgi("GET", "/scheduler/jobs", &evil, b"").expect(403);
    let httpd = root.httpd();
    httpd.curl(&[], "/scheduler/jobs").expect(200);
    for (header, code) in [
        ("Host: evil.example", 421),
        ("Origin: http://evil.example", 403),
        ("Sec-Fetch-Site: cross-site", 403),
    ] {
        httpd.curl(&["-H", header], "/scheduler/jobs").expect(code);
        httpd.curl(&["-H", header, "-d", r#"{"command":"x"}"#], "/scheduler/jobs/new").expect(code);
    }
    // Tokens and repairs are for a shell of the machine alone.
    for (method, path, need) in every_route() {
        if need == Need::Shell {
            root.cgi(method, &path, &[], b"").expect(403);
        }
    }
    assert_eq!(root.tree(), "");
    root.check();
}

/// A web server on another kind of address, asked by curl.
fn answers_on(root: &TestRoot, listen: &str, url: &str) -> i32 {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut httpd = Command::new("busybox")
        .args(["httpd", "-f", "-p", &format!("{listen}:{port}"), "-h"])
        .arg(root.path("www"))
        .env_clear()
        .env("CORKBOARD_ROOT", &root.dir)
        .spawn()
        .unwrap();
    let url = format!("http://{url}:{port}/cgi-bin/scheduler/jobs");
    let code = wait_for(SOON, || {
        let mut curl = Command::new("curl");
        let said =
            curl.args(["-gs", "-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
        match String::from_utf8_lossy(&said.stdout).parse() {
            Ok(0) | Err(_) => Err(format!("{said:?}")),
            Ok(code) => Ok(code),
        }
    });
    httpd.kill().unwrap();
    httpd.wait().unwrap();
    code
}

#[test]
fn open_mode_knows_how_busybox_writes_loopback() {
    let root = open_root("");
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("no IPv6 here");
        return;
    }
    assert_eq!(answers_on(&root, "[::1]", "[::1]"), 200);
    assert_eq!(answers_on(&root, "[::]", "127.0.0.1"), 200); // [::ffff:127.0.0.1]
}

#[test]
fn roles() {
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let as_role = |role: &str| token(&root, &[&format!("role={role}"), &format!("name={role}-1")]);
    let (admin, user, worker) = (as_role("admin"), as_role("user"), as_role("worker"));
    let allowed = |need: Need| match need {
        Need::Read => [true, true, true],
        Need::Submit | Need::Control => [true, true, false],
        Need::Admin => [true, false, false],
        Need::Shell => [false, false, false],
    };
    for (method, path, need) in every_route() {
        for (may, token) in allowed(need).into_iter().zip([&admin, &user, &worker]) {
            let answer =
                root.cgi(method, &path, &[("Authorization", &format!("Bearer {token}"))], b"");
            assert_eq!(answer.code != 403, may, "{method} {path}: {answer:?}");
            assert_ne!(answer.code, 401, "{answer:?}");
        }
    }
    let new = ["-H", &bearer(&user), "-d", r#"{"command": ["true"]}"#];
    httpd.curl(&new, "/scheduler/jobs/new").expect(201);
    assert_eq!(root.card(1)[0]["by"], "token user-1");
    let refused = httpd.curl(
        &["-H", &bearer(&user), "-d", r#"{"name":"n","uri":"http://x"}"#],
        "/scheduler/nodes/new",
    );
    assert_eq!(
        refused.expect(403).json()["error"],
        "token user-1 may not do that: this needs a token with the role admin"
    );
    let lowercase = format!("authorization: bearer {worker}");
    assert_eq!(httpd.curl(&["-H", &lowercase], "/scheduler/jobs").expect(200).body, "1\n");
    // A token needs no loopback: that is what it is for.
    let far = [
        ("Remote-Addr", "10.0.0.7"),
        ("Host", "head.example"),
        ("Authorization", &format!("Bearer {user}")),
    ];
    root.cgi("GET", "/scheduler/jobs", &far, b"").expect(200);
    root.cmd("scheduler", &["tokens", "new", "role=king"]).expect(1);
    root.check();
}

#[test]
fn revoked_expired_and_wrong_tokens() {
    let root = TestRoot::new(&format!("{CONF}allowed_hosts = head.example\n"));
    let get = |token: &str| {
        root.cgi("GET", "/scheduler/jobs", &[("Authorization", &format!("Bearer {token}"))], b"")
    };
    let good = token(&root, &["role=user", "expires=1h"]);
    get(&good).expect(200);
    let brief = token(&root, &["role=user", "expires=300ms"]);
    wait_for(SOON, || match get(&brief).code {
        401 => Ok(()),
        code => Err(code.to_string()),
    });
    let (id, _) = good.strip_prefix("cb_").unwrap().split_once('_').unwrap();
    let other = token(&root, &["role=admin"]);
    let (other_id, other_secret) = other.strip_prefix("cb_").unwrap().split_once('_').unwrap();
    for wrong in [
        "",
        "x",
        "cb_",
        "cb__",
        &good[..good.len() - 1],
        &format!("{good}0"),
        &good.to_uppercase(),
        &format!("cb_{id}_{other_secret}"),
        &format!("cb_../tokens/{other_id}_{other_secret}"),
        "cbkey_x-1.1_00",
        "cb_open_x",
    ] {
        let answer = get(wrong).expect(401);
        assert!(!answer.body.contains(id), "{answer:?}");
    }
    let far = [("Host", "evil.example"), ("Authorization", &format!("Bearer {good}") as &str)];
    root.cgi("GET", "/scheduler/jobs", &far, b"").expect(421);
    let near = [("Host", "head.example"), ("Authorization", &format!("Bearer {good}") as &str)];
    root.cgi("GET", "/scheduler/jobs", &near, b"").expect(200);
    let listed = root.cmd("scheduler", &["tokens", "ls"]).expect(0).body;
    assert!(
        listed.contains(id) && !listed.contains("hash") && !listed.contains(other_secret),
        "{listed}"
    );
    root.cmd("scheduler", &["tokens", "rm", &format!("id={id}")]).expect(0);
    get(&good).expect(401);
    root.cmd("scheduler", &["tokens", "rm", &format!("id={id}")]).expect(1);
    root.cmd("scheduler", &["tokens", "rm", "id=../open"]).expect(2);
    root.check();
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
    let base = ["HOME", "LANG", "PATH", "TMPDIR", "USER"];
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
