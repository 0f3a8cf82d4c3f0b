//! A job worker's words: start a process, stop it, ask about one, or which there are.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/lighttpd.rs"]
mod lighttpd;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::rights::token;
use common::{Answer, Httpd, SOON, TestRoot, answered, feed, lives, signal, until, wait_for};
use lighttpd::Lighttpd;
use serde_json::{Value, json};

const CONF: &str = "cores = 8\nmemory = 4 GiB\nbatch_size = 2\nmax_answer = 16\nlinger = 0\n";

/// A way in, with somebody's token.
#[derive(Clone)]
struct Door<'a> {
    root: &'a TestRoot,
    port: Option<u16>,
    token: String,
}

impl Door<'_> {
    fn command(&self, method: &str, path: &str, body: &str) -> Command {
        let authorization = format!("Bearer {}", self.token);
        let Some(port) = self.port else {
            let headers =
                [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
            let mut command = self.root.cgi_command(method, path, &headers);
            if method == "POST" {
                command.env("CONTENT_LENGTH", body.len().to_string());
            }
            return command;
        };
        let mut command = Command::new("curl");
        command.args(["-s", "-i", "-N", "--max-time", "100", "-X", method]);
        command.args(["-H", &format!("Authorization: {authorization}")]);
        if method == "POST" {
            command.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
        }
        command.arg(format!("http://127.0.0.1:{port}/cgi-bin{path}"));
        command
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let text = body.to_string();
        let answer = answered(&feed(&mut self.command(method, path, &text), text.as_bytes()));
        println!("{method} {path} {text}: {} {}", answer.code, answer.body);
        answer
    }

    fn post(&self, what: &str, body: Value) -> Answer {
        self.ask("POST", &format!("/processor/{what}"), &body)
    }

    /// Begins a start; its lines as they come.
    fn start(&self, body: Value) -> Stream {
        let text = body.to_string();
        let mut command = self.command("POST", "/processor/start", &text);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let status = lines.next().unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        for line in lines.by_ref() {
            if line.unwrap().is_empty() {
                break;
            }
        }
        Stream { child, lines }
    }

    fn running(&self) -> Vec<Value> {
        let answer = self.ask("GET", "/processor/query_running", &Value::Null).expect(200).json();
        answer["dataTable"].as_array().unwrap().clone()
    }
}

struct Stream {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    /// The next answer, and how many empty lines came before it; `None` at the end.
    fn next(&mut self) -> Option<(Value, u32)> {
        let mut beats = 0;
        for line in self.lines.by_ref() {
            match line.unwrap() {
                line if line.is_empty() => beats += 1,
                line => {
                    println!("{line}");
                    return Some((serde_json::from_str(&line).unwrap(), beats));
                }
            }
        }
        None
    }

    fn answer(&mut self) -> Value {
        self.next().expect("an answer").0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bare, behind busybox httpd, and behind lighttpd.
fn every_way(test: impl Fn(&Door)) {
    let root = TestRoot::new(CONF);
    let token = token(&root, &["role=user", "user=ada"]);
    let httpd: Httpd = root.httpd();
    let lighttpd = Lighttpd::start(&root);
    for port in [None, Some(httpd.port), Some(lighttpd.port)] {
        println!("by {port:?}");
        test(&Door { root: &root, port, token: token.clone() });
    }
    until("no process is left", || root.supervisors().is_empty());
    root.check();
}

fn named(started: &Value) -> Value {
    json!({"pid": started["pid"], "startingTimeStamp": started["timeStamp"]})
}

/// The request about a process that was started, with these ranges.
fn query(started: &Value, out: &str, err: &str) -> Value {
    let mut query = named(started);
    query["outputLog"] = out.into();
    query["errorLog"] = err.into();
    query
}

#[test]
fn a_process_is_started_waited_for_asked_about_and_stopped() {
    every_way(|door| {
        // One that ends by itself.
        let script = "echo one; echo two; echo three; echo to $WHOM >&2; pwd >&2; exit 3";
        let mut stream = door.start(json!({"command": "/bin/sh", "args": ["-c", script],
            "env": ["WHOM=ada"], "dir": "/tmp"}));
        let started = stream.answer();
        let pid = started["pid"].as_i64().unwrap();
        assert!(pid > 0 && started["finished"] == false, "{started}");
        assert_eq!((&started["output"], &started["ErrorOutput"]), (&json!(""), &json!("")));
        let ended = stream.answer();
        assert!(stream.next().is_none());
        assert_eq!(ended["pid"], started["pid"]);
        assert_eq!(ended["finished"], true);
        assert_eq!(ended["ErrorOutput"], "da\n/tmp\n", "the last bytes of the last lines: {ended}");
        assert_eq!(ended["output"], "o\nthree\n");
        let link = |start: &Value| format!("state/processor/pid/{pid}_{}", start.as_str().unwrap());
        let link =
            format!("{}_{}", link(&started["timeStamp"]), ended["timeStamp"].as_str().unwrap());
        assert!(door.root.exists(&link), "{link}");
        let read = |stream: &str| door.root.read(&format!("{link}/{stream}"));
        assert_eq!(
            (read("stdout"), read("stderr")),
            ("one\ntwo\nthree\n".into(), "to ada\n/tmp\n".into())
        );
        // What it wrote, in parts.
        let asked =
            door.post("query_one", query(&started, "lines=2-2", "bytes=3-5")).expect(200).json();
        assert_eq!(
            asked,
            json!({"output": "two\n", "errorOutput": "ada", "running": false,
            "exitCode": 3, "reason": "exit 3"})
        );
        let part =
            |range: &str| door.post("query_one", query(&started, range, "none")).expect(200).json();
        assert_eq!(part("lines=1-")["output"], "one\ntwo\nthree\n");
        let pieces =
            door.post("query_one", query(&started, "lines=1-2", "lines=1-")).expect(200).json();
        assert_eq!((&pieces["output"], pieces.get("nextOutputLog")), (&json!("one\ntwo\n"), None));
        assert_eq!(pieces["nextErrorLog"], "bytes=8-");
        assert_eq!(
            door.post("query_one", query(&started, "none", "bytes=8-")).expect(200).json()["errorOutput"],
            "tmp\n"
        );
        let wrong = door.post("query_one", query(&started, "everything", "")).expect(400).body;
        assert!(wrong.contains("lines=1-20"), "{wrong}");
        // It has ended: there is nothing to stop.
        let refused = door.post("stop", named(&started)).expect(409).body;
        assert!(refused.contains("does not run any more: exit 3"), "{refused}");

        // One that goes on until it is stopped.
        let script = "echo ready; echo err >&2; exec sleep 100.5";
        let mut stream = door.start(json!({"command": "sh", "args": ["-c", script]}));
        let started = stream.answer();
        until("it writes", || {
            door.post("query_one", query(&started, "tail=9", "")).expect(200).json()["output"]
                == "ready\n"
        });
        let asked = door.post("query_one", query(&started, "bytes=0-", "none")).expect(200).json();
        assert_eq!(
            asked,
            json!({"output": "ready\n", "errorOutput": "", "running": true,
            "nextOutputLog": "bytes=6-"})
        );
        let running = door.running();
        assert_eq!(
            running,
            [json!({"pid": started["pid"], "processName": "sh",
            "startingTimeStamp": started["timeStamp"]})]
        );
        let stopped = door.post("stop", named(&started)).expect(200).json();
        assert_eq!(stopped, json!({"Output": "ready\n", "errorOutput": "err\n"}));
        assert!(!lives(started["pid"].as_i64().unwrap() as i32));
        let end = stream.answer();
        assert_eq!((&end["finished"], &end["output"]), (&json!(true), &json!("ready\n")));
        let asked = door.post("query_one", query(&started, "", "")).expect(200).json();
        assert_eq!((&asked["running"], &asked["exitCode"]), (&json!(false), &json!(1)));
        assert_eq!(asked["reason"], "killed by ada");
        let again = door.post("stop", named(&started)).expect(409).body;
        assert!(again.contains("does not run any more: killed by ada"), "{again}");
        assert!(door.running().is_empty());
    });
}

#[test]
fn a_start_that_fails_says_why_and_ends() {
    every_way(|door| {
        for (request, why) in [
            (json!({"command": "/no/such/program"}), "cannot start \"/no/such/program\""),
            (json!({"command": "true", "dir": "/no/such/dir"}), "cannot enter directory"),
            (json!({"command": "/etc/passwd"}), "permission denied"),
        ] {
            let mut stream = door.start(request);
            let answer = stream.answer();
            assert_eq!(
                (&answer["pid"], &answer["finished"]),
                (&json!(0), &json!(true)),
                "{answer}"
            );
            assert!(answer["ErrorOutput"].as_str().unwrap().contains(why), "{answer}");
            assert!(stream.next().is_none());
        }
        // A program may well end as if it could not be started.
        let mut stream = door.start(json!({"command": "sh", "args": ["-c", "exit 127"]}));
        assert!(stream.answer()["pid"].as_i64().unwrap() > 0);
        assert_eq!(stream.answer()["finished"], true);
        for (request, why) in [
            (json!({"command": ""}), "must name a program"),
            (json!({"command": "true", "env": ["X"]}), "is not NAME=VALUE"),
            (json!({"command": "true", "shell": true}), "unknown field"),
        ] {
            let refused = door.post("start", request).expect(400).body;
            assert!(refused.contains(why), "{refused}");
        }
        let absent = door.post("stop", json!({"pid": 999_999_999})).expect(404).body;
        assert!(absent.contains("no process 999999999 runs here"), "{absent}");
        door.post("stop", json!({})).expect(400);
    });
}

#[test]
fn a_process_goes_on_when_nobody_reads_its_answers() {
    every_way(|door| {
        let go = door.root.path("go");
        let _ = std::fs::remove_file(&go);
        let script = format!("until [ -e {} ]; do sleep 0.02; done; echo done", go.display());
        let request = json!({"command": "sh", "args": ["-c", script], "request_id": format!("left-{:?}", door.port).replace(['(', ')'], "")});
        let mut stream = door.start(request.clone());
        let started = stream.answer();
        drop(stream);
        assert!(lives(started["pid"].as_i64().unwrap() as i32));
        // Who asks again by the same name of the request hears of the same process.
        let mut again = door.start(request);
        assert_eq!(again.answer(), started);
        door.root.write("go", "");
        assert_eq!(again.answer()["output"], "done\n");
        let asked = door.post("query_one", query(&started, "", "")).expect(200).json();
        assert_eq!((&asked["running"], &asked["exitCode"]), (&json!(false), &json!(0)));
    });
}

/// lighttpd ends an answer of which nothing comes for minutes.
#[test]
fn an_empty_line_says_now_and_then_that_it_runs() {
    let root = TestRoot::new(CONF);
    let token = token(&root, &["role=admin"]);
    let lighttpd = Lighttpd::start(&root);
    let door = Door { root: &root, port: Some(lighttpd.port), token };
    let begun = Instant::now();
    let mut stream = door.start(json!({"command": "sleep", "args": ["65"]}));
    let started = stream.answer();
    // Longer than a request lives of which nothing is heard.
    let (ended, beats) = stream.next().unwrap();
    assert_eq!((ended["finished"] == true, beats), (true, 2), "{ended}");
    assert!(begun.elapsed() > Duration::from_secs(64) && started["finished"] == false);
    root.check();
}

#[test]
fn processes_of_one_id_are_told_apart_by_when_they_were_started() {
    let root = TestRoot::new(CONF);
    let token = token(&root, &["role=admin"]);
    let door = Door { root: &root, port: None, token };
    let run = |words: &str| {
        let mut stream = door.start(json!({"command": "sh", "args": ["-c", words]}));
        let (started, _) = (stream.answer(), stream.answer());
        started
    };
    let (old, new) = (run("echo old"), run("echo new"));
    // As if both had had one id, the first a thousand seconds before.
    let links = || -> Vec<String> {
        let names = std::fs::read_dir(root.path("state/processor/pid")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let of = |started: &Value| {
        let begin = format!("{}_{}", started["pid"], started["timeStamp"].as_str().unwrap());
        wait_for(SOON, || {
            let found = links().into_iter().find(|name| name.starts_with(&begin));
            found.ok_or_else(|| format!("{begin}: {:?}", links()))
        })
    };
    let pid = new["pid"].as_i64().unwrap();
    let start: u64 = new["timeStamp"].as_str().unwrap().parse().unwrap();
    let moved = format!("{pid}_{}_{}", start - 1000, start - 999);
    let pids = root.path("state/processor/pid");
    std::fs::rename(pids.join(of(&old)), pids.join(moved)).unwrap();
    let output = |start: &str| {
        let query = json!({"pid": pid, "startingTimeStamp": start});
        door.post("query_one", query).expect(200).json()["output"].clone()
    };
    assert_eq!(output(""), "new\n");
    assert_eq!(output(&start.to_string()), "new\n");
    assert_eq!(output(&(start - 1000).to_string()), "old\n");
    door.post("query_one", json!({"pid": pid, "startingTimeStamp": "7"})).expect(404);
    // One that runs is not stopped in the place of another that had its id.
    let mut stream = door.start(json!({"command": "sleep", "args": ["100.5"]}));
    let living = stream.answer();
    let wrong = json!({"pid": living["pid"], "startingTimeStamp": "1000000000"});
    door.post("stop", wrong).expect(404);
    let other = json!({"pid": living["pid"], "processName": "make"});
    door.post("stop", other).expect(404);
    assert!(lives(living["pid"].as_i64().unwrap() as i32));
    // By its name.
    let mut second = door.start(json!({"command": "/bin/sleep", "args": ["100.5"]}));
    let second_started = second.answer();
    let several = door.post("stop", json!({"processName": "sleep"})).expect(409).body;
    assert!(several.contains("say which by its pid"), "{several}");
    door.post("stop", json!({"processName": "/bin/sleep"})).expect(200);
    assert!(!lives(second_started["pid"].as_i64().unwrap() as i32));
    door.post("stop", json!({"processName": "sleep"})).expect(200);
    assert!(!lives(living["pid"].as_i64().unwrap() as i32));
    root.check();
}

#[test]
fn another_users_processes_are_not_shown_nor_stopped() {
    let root = TestRoot::new(CONF);
    let [ada, ben, admin] =
        [&["role=user", "user=ada"][..], &["role=user", "user=ben"], &["role=admin"]]
            .map(|words| Door { root: &root, port: None, token: token(&root, words) });
    let mut stream = ada.start(json!({"command": "sleep", "args": ["100.5"]}));
    let started = stream.answer();
    assert!(ben.running().is_empty());
    assert_eq!((ada.running().len(), admin.running().len()), (1, 1));
    ben.post("query_one", named(&started)).expect(403);
    ben.post("stop", named(&started)).expect(403);
    ben.post("stop", json!({"processName": "sleep"})).expect(404);
    // What is lost under a supervisor that dies is told.
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
    }
    let end = stream.next();
    assert!(end.is_some_and(|(end, _)| end["finished"] == true));
    admin.post("stop", named(&started)).expect(409);
    ben.post("stop", named(&started)).expect(403);
    root.cmd("processor", &["sweep"]).expect(0);
    root.check();
}
