//! What is refused, and how: wrong requests by every way in.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::TestRoot;
use common::head::{both_ways, open_root};
use serde_json::{Value, json};

#[test]
fn wrong_bodies() {
    both_ways("max_body = 64 KiB\n", |root, door| {
        // Accepted here, it would be refused by a node of the same setting.
        let job = json!({"command": ["x"], "stdin": "x".repeat(60 << 10)});
        door.post("/scheduler/jobs/new", &job).expect(413);
        let long = "x".repeat(300);
        let deep = "[".repeat(5000);
        let big = format!("{{\"command\": [\"{}\"]}}", "x".repeat(64 << 10));
        let id = |id: &str| json!({"command": ["x"], "request_id": id}).to_string();
        let field = |name: &str, value: Value| json!({"command": ["x"], name: value}).to_string();
        let ids =
            [id(".."), id("../x"), id("a/b"), id("a\nb"), id(""), id("-x"), id(&long), id("a\0")];
        let mut cases: Vec<(String, u16, &str)> = vec![
            ("not json".into(), 400, "the body is not JSON: expected ident"),
            ("{\"command\": [\"x\"]".into(), 400, "the body is not JSON: EOF"),
            ("{\"command\": [\"x\"]} trailing".into(), 400, "the body is not JSON: trailing"),
            (deep, 400, "the body is not JSON: recursion limit"),
            ("3".into(), 400, "must be a JSON object"),
            ("null".into(), 400, "must be a JSON object"),
            ("{}".into(), 400, "the request needs a command"),
            (big, 413, "the body is larger than 65536 bytes (setting max_body)"),
            (
                field("comand", json!(1)),
                400,
                "unknown field \\\"comand\\\" in the request; known are action, command",
            ),
            (field("commands", json!([])), 400, "give command or commands, not both"),
            (json!({"command": []}).to_string(), 400, "a command must name a program"),
            (json!({"command": [""]}).to_string(), 400, "a command must name a program"),
            (json!({"commands": []}).to_string(), 400, "commands must not be empty"),
            (json!({"commands": [{"exec": []}]}).to_string(), 400, "a command must name a program"),
            (json!({"commands": [{"exec": ["x"], "dir": "/"}]}).to_string(), 400, "unknown field"),
            (json!({"command": ["a\0b"]}).to_string(), 400, "command must not contain a NUL byte"),
            (json!({"command": 3}).to_string(), 400, "the request has a wrong value"),
            (json!({"command": ["x", 3]}).to_string(), 400, "the request has a wrong value"),
            (field("action", json!("del_job")), 400, "action must be"),
            (field("environment", json!({"A=B": "x"})), 400, "cannot be a name"),
            (field("environment", json!({"A": 1})), 400, "wrong value"),
            (field("environment", json!({"A": "x\0"})), 400, "NUL"),
            (field("dir", json!("relative")), 400, "dir must be an absolute path"),
            (field("timeout", json!("soon")), 400, "is not a duration"),
            (field("timeout", json!(0)), 400, "timeout must be longer than 0"),
            (field("timeout", json!(-1)), 400, "is not a duration"),
            (field("timeout", json!(1e300)), 400, "is not a duration"),
            (field("priority", json!("high")), 400, "wrong value"),
            (field("max_retry_count", json!(-1)), 400, "wrong value"),
            (field("requested_resources", json!({"cores": 0})), 400, "cores must be at least 1"),
            (field("requested_resources", json!({"cores": -1})), 400, "wrong value"),
            (field("requested_resources", json!({"memory": "lots"})), 400, "memory must be a size"),
            (field("requested_resources", json!({"Quantum": 1})), 400, "is no resource"),
            (field("expires", json!("tomorrow")), 400, "expires must be a time"),
            (field("state", json!("running")), 400, "unknown variant"),
            (field("output", json!("none")), 400, "unknown variant"),
            (field("parent", json!(7)), 400, "parent: there is no job 7"),
            (field("name", json!(long)), 400, "name must have at most 200 characters"),
            (field("array", json!(3)), 400, "expected a string"),
            (field("array", json!("9-0")), 400, "ends before it begins"),
            (field("after", json!([1])), 400, "unknown field"),
        ];
        cases.extend(ids.map(|id| (id, 400, "is not an id: 1 to 64 of")));
        for (body, code, part) in &cases {
            let answer = door.send("POST", "/scheduler/jobs/new", &[], body);
            let shown: String = body.chars().take(200).collect();
            assert_eq!(answer.code, i32::from(*code), "{shown}: {answer:?}");
            assert!(answer.body.contains(part), "{shown}: {answer:?}");
            assert!(answer.body.len() < 1000, "{answer:?}");
        }
        assert_eq!(root.tree(), "", "nothing was accepted");
        assert_eq!(door.submit(&json!({"command": ["x"]})), 1, "no number was used");
        root.check();
    });
}

#[test]
fn wrong_paths_queries_and_methods() {
    both_ways("", |root, door| {
        let job = door.submit(&json!({"command": ["true"], "state": "held"}));
        for (method, path, code, part) in [
            (
                "GET",
                "/scheduler/jobs?colour=red",
                400,
                "unknown query parameter \\\"colour\\\"; known are limit, state, format",
            ),
            ("GET", "/scheduler/jobs/1?x", 400, "this path takes none"),
            ("GET", "/scheduler/jobs?limit=-1", 400, "limit must be a whole number in range"),
            ("GET", "/scheduler/jobs?limit=99999999999999999999", 400, "in range"),
            ("GET", "/scheduler/jobs?state=sleeping", 400, "state must be held"),
            ("GET", "/scheduler/jobs?format=xml", 400, "format must be"),
            ("GET", "/scheduler/jobs/1/status?wait=long", 400, "wait must be a number of seconds"),
            ("POST", "/scheduler/jobs/1/update?kill=yes", 400, "kill must be 1 or 0"),
            (
                "POST",
                "/scheduler/jobs/1/update?priority=high",
                400,
                "priority must be a whole number",
            ),
            ("POST", "/scheduler/jobs/1/update?colour=red", 400, "unknown query parameter"),
            ("GET", "/scheduler/no/such/path", 404, "no such path"),
            ("GET", "/scheduler/jobs/1/status/more", 404, "no such path"),
            ("GET", "/scheduler/jobs/01", 404, "no such job"),
            ("GET", "/scheduler/jobs/1234567890123456789012345", 404, "no such job"),
            ("GET", "/scheduler/jobs/%2e%2e/status", 404, ""),
            ("GET", "/scheduler/nodes/.hidden", 400, "a node's name must be"),
            ("GET", "/nodemgr/localhost/jobs/-x/status", 404, "no such job"),
            ("GET", "/processor/jobs/.x/status", 404, ""),
            ("POST", "/scheduler/jobs", 405, "this path has only GET"),
            ("GET", "/scheduler/jobs/1/update?kill=1", 405, "this path has only POST"),
            ("GET", "/scheduler/jobs/new", 405, "this path has only POST"),
            ("PATCH", "/scheduler/jobs/1", 405, "this path has only GET"),
            ("BREW", "/scheduler/jobs", 405, "only GET, HEAD, POST, PATCH and DELETE are known"),
            ("POST", "/scheduler/jobs/new", 411, "needs a body, sent with its Content-Length"),
        ] {
            let answer = door.send(method, path, &[], "");
            assert_eq!(answer.code, code, "{method} {path}: {answer:?}");
            assert!(answer.body.contains(part), "{method} {path}: {answer:?}");
            assert_eq!(answer.header("Allow").is_some(), code == 405, "{answer:?}");
        }
        let text = json!({"command": ["true"]}).to_string();
        let send = |method: &str, path: &str, header: (&str, &str)| {
            door.send(method, path, &[header], &text)
        };
        let new = "/scheduler/jobs/new";
        for kind in ["text/plain", "text/html", "application/xml", "x"] {
            send("POST", new, ("Content-Type", kind)).expect(415);
        }
        send("POST", new, ("Content-Type", "application/json; charset=utf-8")).expect(201);
        send("POST", new, ("Content-Type", "multipart/form-data")).expect(400);
        let form = ("Content-Type", "multipart/form-data; boundary=b");
        for (body, part) in [
            ("no form at all", "the form cannot be read"),
            (
                "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ny\r\n--b--\r\n",
                "no part named job",
            ),
            (
                "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../x\"\r\n\r\ny\r\n--b--\r\n",
                "cannot be a file's name here",
            ),
            (
                "--b\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\ny\r\n--b--\r\n",
                "a form has one part named job",
            ),
        ] {
            let said = door.send("POST", new, &[form], body).expect(400).body;
            assert!(said.contains(part), "{said}");
        }
        for (header, code) in [
            (("X-HTTP-Method-Override", "GET"), 400),
            (("X-HTTP-Method-Override", "BREW"), 400),
            (("Transfer-Encoding", "chunked"), 501),
        ] {
            send("POST", new, header).expect(code);
        }
        for method in ["DELETE", "PATCH"] {
            let length = text.len().to_string();
            let answer = send(method, "/scheduler/queue/1", ("Content-Length", &length));
            let hint = "send it by POST with the header X-HTTP-Method-Override";
            assert!(answer.code == 411 && answer.body.contains(hint), "{answer:?}");
        }
        let head = door.send("HEAD", "/scheduler/jobs", &[], "").expect(200);
        assert_eq!(head.body, "");
        assert_eq!(root.status(job)["state"], "held", "nothing of this changed anything");
        root.check();
    });
}

/// The status line's code.
fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
fn raw_requests() {
    let root = open_root("");
    let httpd = root.httpd();
    let host = format!("Host: 127.0.0.1:{}\r\n", httpd.port);
    let ask = |line: &str, headers: &str, body: &str| {
        let request = format!("{line} HTTP/1.1\r\n{host}{headers}\r\n{body}");
        httpd.raw(request.as_bytes())
    };
    let new = "POST /cgi-bin/scheduler/jobs/new";
    // Refused before the body is there: nobody waits for two gigabytes.
    let huge = ask(new, "Content-Length: 2000000000\r\n", "");
    assert_eq!(code(&huge), "413", "{huge}");
    let chunked = ask(new, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(code(&chunked), "501", "{chunked}");
    let both = ask(new, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
    assert_eq!(code(&both), "501", "{both}");
    let twice = ask("GET /cgi-bin/scheduler/jobs", "Host: evil.example\r\n", "");
    assert_eq!(code(&twice), "421", "the last Host counts: {twice}");
    for path in [
        "jobs/1%0a",
        "jobs/%0d%0aX-Evil:%201",
        "nodes/%0aX",
        "jobs/%2e%2e/%2e%2e",
        "jobs/..%2f..",
        "jobs/1/files/%2e%2e",
        "nodes/..%2f..%2ftokens%2fx",
        "jobs//1",
        "jobs/1/",
        "jobs/%00",
        "jobs/%zz",
        "jobs/%ff",
        "../../etc/passwd",
        "jobs/\u{1}",
        "nodes/%e2%80%ae",
    ] {
        let answer = ask(&format!("GET /cgi-bin/scheduler/{path}"), "", "");
        // 403 is what busybox says where a path climbed out of the programs.
        assert!(["400", "403", "404"].contains(&code(&answer)), "{path}: {answer}");
        assert!(!answer.contains("X-Evil"), "{path}: {answer}");
    }
    let long = format!("GET /cgi-bin/scheduler/jobs/{}", "9".repeat(4000));
    assert_eq!(code(&ask(&long, "", "")), "404");
    let answer =
        ask("GET /cgi-bin/scheduler/jobs", &format!("X-Long: {}\r\n", "y".repeat(300_000)), "");
    assert!(["200", "413"].contains(&code(&answer)), "{answer}");
    let many: String = (0..2000).map(|n| format!("X-{n}: {}\r\n", "z".repeat(100))).collect();
    assert_eq!(code(&ask("GET /cgi-bin/scheduler/jobs", &many, "")), "413");
    let answer = ask("GET /cgi-bin/scheduler/jobs", "Authorization: Bearer \u{7f}\u{1}%0a\r\n", "");
    assert_eq!(code(&answer), "401", "{answer}");
    assert_eq!(root.tree(), "");
    // A body that ends too early is refused, not guessed.
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", httpd.port)).unwrap();
    let short =
        format!("{new} HTTP/1.1\r\n{host}Content-Length: 100\r\n\r\n{{\"command\":[\"x\"]}}");
    std::io::Write::write_all(&mut stream, short.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert_eq!(code(&answer), "411", "{answer}");
    assert!(answer.contains("the body ended after 17 of 100 bytes"), "{answer}");
    assert_eq!(root.tree(), "");
    root.check();
}

#[test]
fn bare_requests_that_no_server_would_send() {
    let root = open_root("");
    let new = |headers: &[(&str, &str)], body: &[u8]| {
        root.cgi("POST", "/scheduler/jobs/new", headers, body)
    };
    new(&[("Content-Length", "2000000000")], b"").expect(413);
    new(&[("Content-Length", "99999999999999999999999")], b"").expect(400);
    new(&[("Content-Length", "-1")], b"x").expect(400);
    new(&[("Content-Length", "100")], b"{}").expect(411);
    new(&[], b"\xff\xfe").expect(400);
    // What lies beyond the length is not of this request.
    new(&[("Content-Length", "21")], b"{\"command\": [\"true\"]}GET / HTTP/1.1").expect(201);
    for path in [
        "/scheduler/jobs/a\nb",
        "/scheduler/nodes/x\r\nX: y",
        "/scheduler//jobs",
        "/scheduler/jobs/../jobs",
        "/scheduler/jobs/\u{7f}",
    ] {
        root.cgi("GET", path, &[], b"").expect(404);
    }
    let long = format!("/scheduler/nodes/{}", "n".repeat(300));
    root.cgi("GET", &long, &[], b"").expect(404);
    root.cgi("", "/scheduler/jobs", &[], b"").expect(405);
    root.check();
}

#[test]
fn a_wrong_setting_is_named() {
    for (conf, part) in [
        ("cores = 2\nlog = x\n", "corkboard.conf, line 2: there is no setting \"log\""),
        (
            "\n\nscan_every = often",
            "corkboard.conf, line 3: scan_every: \"often\" is not a duration",
        ),
        ("cores = many", "line 1: cores: \"many\" is not a whole number of cores or auto"),
        ("cores 2", "line 1: not `name = value`: cores 2"),
        ("cores = 1\ncores = 2", "line 2: cores is set twice"),
    ] {
        let root = TestRoot::new(conf);
        for (name, words) in [
            ("scheduler", &["jobs"] as &[&str]),
            ("processor", &["jobs"]),
            ("nodemgr", &["list"]),
            ("poller", &["--once"]),
        ] {
            let answer = root.cmd(name, words).expect(1);
            assert!(answer.stderr.contains(part), "{name}: {answer:?}");
        }
        let answer = root.cgi("GET", "/scheduler/jobs", &[], b"").expect(500);
        let told = "the root's corkboard.conf is wrong; see the server's log";
        assert_eq!(answer.json()["error"], told);
        assert!(answer.stderr.contains(part), "{answer:?}");
        assert!(!root.exists("state"));
    }
}
