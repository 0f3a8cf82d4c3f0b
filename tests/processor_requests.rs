//! What a node answers: repeated requests, lists, logs, the feed, its two faces.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::node::{assert_clean, log, root, run, submit};
use common::{TestRoot, until};
use serde_json::{Value, json};

#[test]
fn a_repeated_request_is_the_same_job() {
    let root = root();
    let post = |request: Value| {
        root.cgi("POST", "/processor/jobs/new", &[], request.to_string().as_bytes())
    };
    let request =
        json!({"command": ["sh", "-c", "echo x >> witness"], "dir": root.dir, "request_id": "r"});
    let answer = post(request.clone()).expect(201);
    assert_eq!(answer.header("Location"), Some("/cgi-bin/processor/jobs/r"));
    assert_eq!(answer.json(), request);
    assert_eq!(post(request.clone()).expect(200).json(), request);
    root.ended("r");
    post(request).expect(200);
    post(json!({"command": ["true"], "request_id": "r"})).expect(422);
    post(json!({"command": ["true"], "requested_resources": {"cores": 3}})).expect(422);
    post(json!({"command": ["true"], "priority": 1})).expect(400);
    post(json!({"command": ["true"], "request_id": "../r"})).expect(400);
    let many =
        json!([{"command": ["true"], "request_id": "s"}, {"command": ["true"], "request_id": "r"}]);
    let many = post(many).expect(200).json();
    assert_eq!(
        (&many["nodejobs"][0]["state"], &many["nodejobs"][1]["code"]),
        (&json!("queued"), &json!(422))
    );
    // What is wrong with one job says nothing of the others.
    let many = post(json!([{"comand": 1}, {"command": ["true"], "request_id": "../t"},
        {"command": ["true"], "request_id": "t"}, 7]));
    let many = many.expect(200).json();
    let codes: Vec<&Value> =
        many["nodejobs"].as_array().unwrap().iter().map(|n| &n["code"]).collect();
    assert_eq!(codes, [&json!(400), &json!(400), &Value::Null, &json!(400)]);
    root.ended("t");
    root.ended("s");
    let (request, story) = ("state/processor/job/t/request.json", "state/processor/job/t/status");
    let kept = (root.read(request), root.read(story));
    root.write(request, "{");
    root.write(story, "");
    let all = root.cgi("GET", "/processor/jobs/status?ids=t,s,.x", &[], b"").expect(200).json();
    assert_eq!(
        (&all[0]["code"], &all[1]["state"], &all[2]["code"]),
        (&json!(500), &json!("stopped"), &json!(404))
    );
    let ack = json!({"nodejobs": ["../x", "s"]}).to_string();
    let ack = root.cgi("POST", "/processor/jobs/ack", &[], ack.as_bytes()).expect(200).json();
    assert_eq!(ack["acknowledged"], 1);
    root.write(request, &kept.0);
    root.write(story, &kept.1);
    assert_eq!(root.read("witness"), "x\n");
    assert_clean(&root);
}

#[test]
fn a_repeat_may_come_from_another_address() {
    let root = root();
    let hold = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}, "request_id": "hold"});
    submit(&root, hold);
    until("hold runs", || root.node_status("hold")["state"] == "running");
    let post = |url: &str, key: &str, command: &str| {
        let request = json!({"command": [command], "request_id": "lab-x-1.1",
            "environment": {"CORKBOARD_URL": url, "CORKBOARD_TOKEN": key}});
        root.cgi("POST", "/processor/jobs/new", &[], request.to_string().as_bytes())
    };
    post("http://a", "k", "true").expect(201);
    post("http://b", "k", "true").expect(200);
    post("http://a", "other", "true").expect(422);
    post("http://a", "k", "false").expect(422);
    let form = |name: &str| {
        let part = |what: &str, content: &str| {
            format!("--b\r\nContent-Disposition: form-data; {what}\r\n\r\n{content}\r\n")
        };
        let body = part("name=\"job\"", r#"{"command": ["true"], "request_id": "up"}"#)
            + &part(&format!("name=\"file\"; filename=\"{name}\""), "x")
            + "--b--\r\n";
        let kind = ("Content-Type", "multipart/form-data; boundary=b");
        root.cgi("POST", "/processor/jobs/new", &[kind], body.as_bytes())
    };
    form("one").expect(201);
    form("one").expect(200);
    form("two").expect(422);
}

#[test]
fn killing_what_waits_and_what_never_came() {
    let root = root();
    let both = json!({"command": ["sleep", "1000"], "requested_resources": {"cores": 2}});
    let first = submit(&root, both.clone());
    until("it runs", || root.node_status(&first)["state"] == "running");
    let second = submit(&root, both);
    assert!(root.exists(&format!("state/processor/queue/{second}")));
    let end = root.cmd("processor", &["jobs", &second, "kill"]).expect(0).json();
    assert_eq!((&end["state"], &end["cause"]), (&json!("stopped"), &json!("killed")));
    assert!(!root.exists(&format!("state/processor/queue/{second}")));

    let end = root.cmd("processor", &["jobs", "ghost", "kill"]).expect(0).json();
    assert_eq!(end["cause"], "killed");
    let body = json!({"command": ["true"], "request_id": "ghost"}).to_string();
    root.cgi("POST", "/processor/jobs/new", &[], body.as_bytes()).expect(410);
    root.cgi("GET", "/processor/jobs/ghost/status", &[], b"").expect(410);
    root.cmd("processor", &["jobs", &first, "kill", "grace=0"]).expect(0);
    root.ended(&first);
    assert_clean(&root);
}

#[test]
fn jobs_are_listed_and_found_by_process() {
    let root = root();
    let end = run(&root, json!({"command": ["true"], "request_id": "a"}));
    run(&root, json!({"command": ["false"], "request_id": "b"}));
    assert_eq!(end["state"], "stopped");
    assert_eq!(root.cmd("processor", &["jobs"]).expect(0).body, "b\na\n");
    assert_eq!(root.cmd("processor", &["jobs", "limit=1"]).expect(0).body, "b\n");
    assert_eq!(root.cmd("processor", &["jobs", "state=running"]).expect(0).body, "");
    let story = root.read("state/processor/job/a/status");
    let line: Value =
        serde_json::from_str(story.lines().find(|l| l.contains("pid")).unwrap()).unwrap();
    let pid = format!("pid={}", line["pid"]);
    assert_eq!(root.cmd("processor", &["jobs", &pid]).expect(0).body, "a\n");
    let found = root.cmd("processor", &["jobs", "status", "ids=a,b,c"]).expect(0).json();
    assert_eq!(
        (&found[0]["status"], &found[1]["code"], &found[2]["code"]),
        (&json!("good"), &json!(1), &json!(404))
    );
    let record = root.cmd("processor", &["jobs", "a"]).expect(0).json();
    assert_eq!(record["request"]["command"], json!(["true"]));
    until("the link has its end", || {
        let names: Vec<String> = fs::read_dir(root.path("state/processor/pid"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.len() == 2 && names.iter().all(|name| name.split('_').count() == 3)
    });
}

#[test]
fn a_log_is_read_in_pieces() {
    let root = root();
    let id = submit(&root, json!({"command": "seq 1 1000"}));
    root.ended(&id);
    let read = |query: &str| {
        let path = format!("/processor/jobs/{id}/log?{query}");
        let answer = root.cgi("GET", &path, &[], b"").expect(200);
        (answer.body.clone(), answer.header("X-Corkboard-Offset").unwrap().to_string())
    };
    assert_eq!(read("limit=4"), ("1\n2\n".into(), "4".into()));
    assert_eq!(read("offset=4&limit=4"), ("3\n4\n".into(), "8".into()));
    assert_eq!(read("tail=2").0, "999\n1000\n");
    assert_eq!(read("offset=99999").0, "");
    assert!(read("").0.starts_with("1\n2\n"));
}

#[test]
fn a_log_is_followed_to_its_end() {
    let root = root();
    let go = root.path("go");
    let script = format!("echo one; until [ -e {} ]; do sleep 0.01; done; echo two", go.display());
    let id = submit(&root, json!({"command": script}));
    let dir = root.path(&format!("state/processor/job/{id}/log"));
    std::thread::scope(|scope| {
        let follow = scope
            .spawn(|| root.cgi("GET", &format!("/processor/jobs/{id}/log?follow=1"), &[], b""));
        until("the first line", || fs::read(&dir).is_ok_and(|log| log == b"one\n"));
        fs::write(&go, "").unwrap();
        assert_eq!(follow.join().unwrap().expect(200).body, "one\ntwo\n");
    });
}

#[test]
fn the_feed_tells_every_end_once_it_is_durable() {
    let root = root();
    let cursor = |page: &Value| format!("since={}", page["cursor"].as_str().unwrap());
    let page = root.cmd("processor", &["events"]).expect(0).json();
    assert_eq!(page["events"], json!([]));
    let id = submit(&root, json!({"command": "sleep 0.2"}));
    let next = root.cmd("processor", &["events", &cursor(&page), "wait=10"]).expect(0).json();
    assert_eq!(
        (&next["events"][0]["id"], &next["events"][0]["state"]),
        (&json!(id), &json!("running"))
    );
    let last = root.cmd("processor", &["events", &cursor(&next), "wait=10"]).expect(0).json();
    assert_eq!(last["events"][0]["state"], "stopped");
    let none = root.cmd("processor", &["events", &cursor(&last), "wait=0.05"]).expect(0).json();
    assert_eq!((&none["events"], &none["cursor"]), (&json!([]), &last["cursor"]));
    root.cgi("GET", "/processor/events?since=abc.12", &[], b"").expect(410);
    root.cgi("GET", "/processor/events?since=abc", &[], b"").expect(400);

    let body = json!({"nodejobs": [id, "unknown"]}).to_string();
    let said = root.cgi("POST", "/processor/jobs/ack", &[], body.as_bytes()).expect(200).json();
    assert_eq!(said["acknowledged"], 1);
    let story = root.path(&format!("state/processor/job/{id}/status"));
    assert_eq!(fs::metadata(story).unwrap().permissions().mode() & 0o777, 0o440);
}

#[test]
fn through_a_web_server() {
    let root = root();
    let httpd = root.httpd();
    let answer = httpd
        .curl(&["-d", r#"{"command":["echo","hello"],"request_id":"h"}"#], "/processor/job/new")
        .expect(201);
    assert_eq!(answer.header("Location"), Some("/cgi-bin/processor/jobs/h"));
    let end = httpd.curl(&[], "/processor/jobs/h/status?wait=10").expect(200).json();
    assert_eq!(end["status"], "good");
    assert_eq!(httpd.curl(&[], "/processor/jobs/h/log").expect(200).body, "hello\n");
    let both = httpd
        .curl(&["-d", r#"{"command":["sleep","0.2"]}"#], "/processor/jobs/new?wait=10")
        .expect(201)
        .body;
    let lines: Vec<Value> = both.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (lines.len(), &lines[0]["state"], &lines[1]["status"]),
        (2, &json!("running"), &json!("good"))
    );

    root.write("input.dat", "some input\n");
    root.write("job.json", r#"{"command":"cat input.dat; echo more > result","request_id":"up"}"#);
    let form = [
        format!("job=@{}", root.path("job.json").display()),
        format!("file=@{}", root.path("input.dat").display()),
    ];
    httpd.curl(&["-F", &form[0], "-F", &form[1]], "/processor/jobs/new").expect(201);
    root.ended("up");
    assert_eq!(httpd.curl(&[], "/processor/jobs/up/log").expect(200).body, "some input\n");
    let files = httpd.curl(&[], "/processor/jobs/up/files").expect(200).json();
    assert_eq!(files["files"], json!(["input.dat", "result"]));
    assert_eq!(httpd.curl(&[], "/processor/jobs/up/files/result").expect(200).body, "more\n");
    symlink("/etc/passwd", root.path("state/processor/job/up/work/link")).unwrap();
    httpd.curl(&[], "/processor/jobs/up/files/link").expect(404);
    httpd.curl(&["-X", "POST"], "/processor/tokens/new?role=admin").expect(403);
    assert_clean(&root);
}

#[test]
fn commands_from_a_shell() {
    let root = root();
    let answer =
        root.cmd("processor", &["jobs", "new", "--wait", "--", "sh", "-c", "echo hi; exit 7"]);
    assert_eq!((answer.code, answer.body.as_str()), (7, "hi\n"), "{answer:?}");
    root.write("env.json", r#"{"X": "y"}"#);
    let env = root.path("env.json");
    let words = [
        "jobs",
        "new",
        "-r",
        "mine",
        "-e",
        env.to_str().unwrap(),
        "-q",
        "--",
        "sh",
        "-c",
        "echo $X",
    ];
    assert_eq!(root.cmd("processor", &words).expect(0).body, "mine\n");
    root.ended("mine");
    assert_eq!(log(&root, "mine"), "y\n");
    root.cmd("processor", &["jobs", "new", "--help"]).expect(0);
    root.cmd("processor", &["jobs", "new", "--nonsense", "--", "x"]).expect(2);
    let token = root.cmd("processor", &["tokens", "new", "role=user", "-q"]).expect(0).body;
    assert!(token.starts_with("cb_"), "{token}");
    let tokens = root.cmd("processor", &["tokens", "ls"]).expect(0).json();
    let id = format!("id={}", tokens["tokens"][0]["id"].as_str().unwrap());
    root.cmd("processor", &["tokens", "rm", &id]).expect(0);
    assert_eq!(root.cmd("processor", &["tokens"]).expect(0).json()["tokens"], json!([]));
}

/// To open it would wait for its writer, with the board's lock in hand.
#[test]
fn a_pipe_in_its_work_directory_holds_up_no_repeat() {
    let root = root();
    let request = json!({"command": "mkfifo pipe; chmod 0 pipe; sleep 1000", "request_id": "r"});
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{request}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in\"\r\n\r\nhello\r\n--b--\r\n"
    );
    let form = [("Content-Type", "multipart/form-data; boundary=b")];
    let post = || root.cgi("POST", "/processor/jobs/new", &form, body.as_bytes());
    post().expect(201);
    until("it is there", || root.exists("state/processor/job/r/work/pipe"));
    post().expect(200);
    root.cmd("processor", &["jobs", "r", "kill", "grace=0.1"]).expect(0);
    root.ended("r");
    post().expect(200);
    assert_clean(&root);
}

#[test]
fn a_job_that_waits_says_nothing_of_its_progress() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    root.open();
    let first = submit(&root, json!({"command": ["sleep", "100"]}));
    until("it runs", || root.node_status(&first)["state"] == "running");
    let second = submit(&root, json!({"command": ["sleep", "100"]}));
    let say = |id: &str| root.cgi("POST", &format!("/processor/jobs/{id}/status"), &[], b"x");
    say(&second).expect(409);
    assert!(!root.exists(&format!("state/processor/job/{second}/progress")));
    say(&first).expect(200);
    for id in [second, first] {
        root.cmd("processor", &["jobs", &id, "kill"]).expect(0);
        root.ended(&id);
    }
    root.check();
}
