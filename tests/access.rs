//! Who may do what: closed roots, open mode, tokens and their roles, the key of an attempt, and
//! what a job gets to see.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::net::TcpListener;
use std::process::Command;

use common::head::{CONF, Door, open_root};
use common::{SOON, TestRoot, wait_for};
use corkboard::cgi::{Method, Program};
use corkboard::model::access::Need;
use serde_json::json;

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
        // Through a proxy it could be anybody:
        ("X-Forwarded-For", "127.0.0.1", 403),
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
fn what_a_token_may_and_how_it_is_sent() {
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    let as_role = |role: &str| token(&root, &[&format!("role={role}"), &format!("name={role}-1")]);
    let [user, worker] = ["user", "worker"].map(as_role);
    let new = ["-H", &bearer(&user), "-d", r#"{"command": ["true"]}"#];
    httpd.curl(&new, "/scheduler/jobs/new").expect(201);
    assert_eq!(root.card(1)[0]["by"], "user-1");
    let refused = httpd.curl(
        &["-H", &bearer(&user), "-d", r#"{"name":"n","uri":"http://x"}"#],
        "/scheduler/nodes/new",
    );
    assert_eq!(
        refused.expect(403).json()["error"],
        "user-1 may not do that: this needs a token with the role admin or provider"
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
    let long = format!("name={}", "n".repeat(65));
    root.cmd("scheduler", &["tokens", "new", "role=user", &long]).expect(1);
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
    root.cmd("scheduler", &["tokens", "rm", "id=../open"]).expect(1);
    root.check();
}

#[test]
fn a_token_as_the_user_name_of_basic() {
    let root = TestRoot::new(CONF);
    let good = token(&root, &["role=user"]);
    let get_from = |text: &str, origin: &str| {
        let encode = r#"printf %s "$1" | base64 -w0"#;
        let said = Command::new("sh").args(["-c", encode, "sh", text]).output().unwrap();
        let header = format!("Basic {}", String::from_utf8(said.stdout).unwrap());
        let headers = [("Authorization", header.as_str()), ("Origin", origin)];
        let headers = &headers[..if origin.is_empty() { 1 } else { 2 }];
        root.cgi("GET", "/scheduler/jobs", headers, b"").code
    };
    let get = |text: &str| get_from(text, "");
    assert_eq!(get(&format!("{good}:")), 200);
    // A browser that was told it once sends it for whatever page asks.
    assert_eq!(get_from(&format!("{good}:"), "https://evil.example"), 403);
    assert_eq!(get(&format!("{good}:anything")), 200);
    for wrong in [good.clone(), format!("x:{good}"), format!("{good}0:"), String::new()] {
        assert_eq!(get(&wrong), 401, "{wrong}");
    }
    for wrong in ["Basic", "Basic ====", "Digest x"] {
        root.cgi("GET", "/scheduler/jobs", &[("Authorization", wrong)], b"").expect(401);
    }
}

#[test]
fn values_and_request_ids_are_for_those_who_gave_them() {
    let root = TestRoot::new(CONF);
    let as_role = |role: &str, user: &str| {
        token(&root, &[&format!("role={role}"), "name=same", &format!("user={user}")])
    };
    let (one, two) = (as_role("user", "ada"), as_role("user", "ben"));
    let viewer = as_role("viewer", "ada");
    let ask = |method: &str, path: &str, token: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        root.cgi(method, path, &[("Authorization", &bearer)], body.as_bytes())
    };
    // Users do not meet in their request ids.
    for (token, job) in [(&one, 1), (&two, 2), (&one, 1)] {
        let request = format!(
            r#"{{"command":"true","request_id":"r","state":"held","environment":{{"WHO":"{}"}}}}"#,
            token.len()
        );
        assert_eq!(ask("POST", "/scheduler/jobs/new", token, &request).json()["job"], job);
    }
    let value = |token: &str| {
        let record = ask("GET", "/scheduler/jobs/1", token, "").expect(200).json();
        record["request"]["environment"]["WHO"].clone()
    };
    assert_eq!(value(&one), json!(one.len().to_string()));
    assert_eq!(value(&viewer), "…");
    let many = r#"{"command":"true","max_retry_count":1001}"#;
    let refused = ask("POST", "/scheduler/jobs/new", &one, many).expect(400);
    assert!(refused.body.contains("max_retry_count must be at most 1000"), "{refused:?}");
    let node = |request: &str| ask("POST", "/processor/jobs/new", &one, request).expect(201);
    node(r#"{"command":"true","request_id":"n","environment":{"A":"b"}}"#);
    for (token, value) in [(&one, "b"), (&viewer, "…")] {
        let record = ask("GET", "/processor/jobs/n", token, "").expect(200).json();
        assert_eq!(record["request"]["environment"]["A"], value);
    }
    root.ended("n");
    root.check();
}

#[test]
fn whoever_may_list_jobs_may_read_the_feed() {
    let root = TestRoot::new("");
    for role in ["worker", "viewer", "user", "head", "admin"] {
        let token =
            root.cmd("scheduler", &["tokens", "new", &format!("role={role}"), "-q"]).expect(0);
        let bearer = format!("Bearer {}", token.body.trim());
        let list = root.cgi("GET", "/scheduler/jobs", &[("Authorization", &bearer)], b"").code;
        let feed = root.cgi("GET", "/scheduler/events", &[("Authorization", &bearer)], b"").code;
        assert_eq!((list, feed), (200, 200), "{role}");
    }
    root.cgi("GET", "/scheduler/events", &[], b"").expect(401);
}
