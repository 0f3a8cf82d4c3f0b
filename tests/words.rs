//! What people type: the help of every word, and that words are read however they are arranged.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::process::Command;

use common::head::CONF;
use common::{Answer, TestRoot, program};
use corkboard::cgi::{Key, Program};
use corkboard::{nodemgr, processor, scheduler};

const PROGRAMS: [&Program; 3] = [&scheduler::PROGRAM, &processor::PROGRAM, &nodemgr::PROGRAM];

/// Widest line of a help, for terminals as they come.
const WIDTH: usize = 80;

/// A pattern as somebody might type it.
fn typed(pattern: &str) -> Vec<&str> {
    let value = |segment| match segment {
        ":number" => "7",
        ":id" => "x-1.1",
        ":name" => "far",
        word => word,
    };
    pattern.split('/').filter(|segment| !segment.is_empty()).map(value).collect()
}

/// A pattern as help shows it.
fn shown(pattern: &str) -> String {
    pattern.replace(":number", "N").replace(":id", "ID").replace(":name", "NAME").replace('/', " ")
}

fn help(root: &TestRoot, program: &str, words: &[&str]) -> String {
    let answer = root.cmd(program, &[words, &["--help"]].concat()).expect(0);
    assert_eq!(answer.stderr, "", "{program} {words:?}");
    for line in answer.body.lines() {
        assert!(line.chars().count() <= WIDTH, "{program} {words:?}: too wide: {line}");
        assert_eq!(line.trim_end(), line, "{program} {words:?}");
    }
    let short = root.cmd(program, &[words, &["-h"]].concat()).expect(0);
    assert_eq!(short.body, answer.body);
    answer.body
}

#[test]
fn every_program_has_help() {
    let root = TestRoot::new(CONF);
    for (name, words) in [
        (
            "scheduler",
            &["jobs N status", "DELETE queue N", "check [repair=]", "tokens new", "Exit codes"]
                as &[&str],
        ),
        ("processor", &["jobs ID log", "Exit codes"]),
        ("nodemgr", &["jobs run", "NAME jobs ID kill"]),
        ("node", &["jobs run"]),
        ("poller", &["--once", "--step", "--pace", "SIGTERM"]),
    ] {
        if !program(if name == "node" { "nodemgr" } else { name }).exists() {
            panic!("{name} is not built");
        }
        let help = root.cmd(name, &["--help"]).expect(0);
        for word in words {
            assert!(help.body.contains(word), "{name}: {word} in {}", help.body);
        }
        assert_eq!(help.stderr, "");
    }
    let help = root.cmd("scheduler", &["jobs", "new", "--help"]).expect(0).body;
    for option in ["--wait", "--quiet", "--retry-lost", "--held", "--expires"] {
        assert!(help.contains(option), "{option} in {help}");
    }
    assert!(!root.exists("state"), "help makes nothing");
}

#[test]
fn every_word_has_a_help_that_names_its_keys_and_options() {
    let root = TestRoot::new(CONF);
    for program in PROGRAMS {
        let all = help(&root, program.name, &[]);
        let routes = program.routes.iter().map(|route| (route.pattern, route.help, route.query));
        let specials = program.specials.iter().map(|own| (own.pattern, own.help, own.query));
        for (pattern, about, query) in routes.chain(specials) {
            let words = shown(pattern);
            assert!(all.contains(words.trim()) && all.contains(about), "{words} in {all}");
            let text = help(&root, program.name, &typed(pattern));
            let usage = format!("usage: {}", format!("{} {words}", program.name).trim());
            assert!(text.contains(&usage) && text.contains(about), "{usage} in {text}");
            for Key { name, value, help, .. } in query {
                assert!(text.contains(&format!("  {name}={value} ")), "{name} in {text}");
                assert!(text.contains(help), "{name} in {text}");
                assert!(all.contains(&format!(" [{name}=]")) || *name == "id", "{name} in {all}");
            }
            // What lies on the way has one, too, which leads on.
            let path = typed(pattern);
            for length in 1..path.len() {
                let text = help(&root, program.name, &path[..length]);
                assert!(text.contains(&words), "{words} in {text}");
            }
        }
        for special in program.specials {
            let text = help(&root, program.name, &typed(special.pattern));
            for option in (special.options)() {
                let Some(long) = option.get_long() else { continue };
                assert!(text.contains(&format!("--{long}")), "--{long} in {text}");
            }
        }
        let titles: Vec<usize> = (program.sections.iter())
            .map(|(title, _)| {
                all.find(&format!("\n{title}:\n")).unwrap_or_else(|| panic!("{title} in {all}"))
            })
            .collect();
        assert!(titles.is_sorted(), "{all}");
    }
    let poller = help(&root, "poller", &[]);
    for option in ["--once", "--step", "--pace <DURATION>", "--job <N>", "-q, --quiet"] {
        assert!(poller.contains(option), "{option} in {poller}");
    }
    assert_eq!(
        help(&root, "scheduler", &["job", "7", "log"]),
        help(&root, "scheduler", &["jobs/7/log"])
    );
    assert!(!root.exists("state"), "help makes nothing");
}

#[test]
fn boards_are_checked_by_the_same_words() {
    let root = TestRoot::new(CONF);
    root.open();
    for program in ["scheduler", "processor"] {
        for words in
            [&["check"][..], &["check", "repair=0"], &["check", "repair=1"], &["check", "--repair"]]
        {
            assert_eq!(root.cmd(program, words).expect(0).body, "", "{program} {words:?}");
        }
        root.cmd(program, &["check", "repair=please"]).expect(1);
        root.cgi("GET", &format!("/{program}/check"), &[], b"").expect(403);
    }
}

#[test]
fn every_program_tells_its_version() {
    let root = TestRoot::new(CONF);
    let version = env!("CARGO_PKG_VERSION");
    for (program, words) in [
        ("scheduler", &[] as &[&str]),
        ("processor", &[]),
        ("nodemgr", &[]),
        ("poller", &[]),
        ("scheduler", &["jobs", "7", "log"]),
        ("processor", &["check"]),
    ] {
        for option in ["--version", "-V"] {
            let told = root.cmd(program, &[words, &[option]].concat()).expect(0);
            assert_eq!((told.body, told.stderr), (format!("{program} {version}\n"), String::new()));
        }
    }
    assert!(!root.exists("state"), "a version makes nothing");
}

#[test]
fn words_are_read_however_they_are_arranged() {
    let root = TestRoot::new(CONF);
    let run = |words: &[&str]| -> Answer { root.cmd("scheduler", words) };
    let job = r#"{"command": ["true"], "state": "held"}"#;
    for words in [
        &["-q", "jobs", "new", "-d", job] as &[&str],
        &["-d", job, "jobs/new", "-q"],
        &["job", "-q", "-d", "no", "new", "-d", job, "-q"],
        &["jobs", "/new/", "--quiet", "-X", "GET", "-X", "post", &format!("-d{job}")],
        &["jobs", "new", "-qd", job],
    ] {
        run(words).expect(0);
    }
    assert_eq!(run(&["limit=2", "jobs"]).expect(0).body, "5\n4\n");
    assert_eq!(run(&["jobs", "limit=9", "state=held", "limit=1"]).expect(0).body, "5\n");
    assert_eq!(run(&["wait=0", "jobs/5", "status"]).expect(75).json()["state"], "held");
    // Several methods of a path: GET unless another is named.
    assert_eq!(run(&["queue", "5"]).expect(0).json()["valid"], true);
    assert_eq!(run(&["-X", "DELETE", "queue", "5"]).expect(0).json()["state"], "stopped");
    assert_eq!(run(&["queue", "5", "-X", "get"]).expect(0).json()["valid"], false);
    assert_eq!(run(&["-XGET", "queue", "5"]).expect(0).json()["valid"], false);
    run(&["-XDELETE", "queue", "4"]).expect(0);
    run(&[&format!("-d{job}"), "nodes", "new"]).expect(1);
    // Words of the paths may be names.
    let node = r#"{"name": "update", "uri": "http://127.0.0.1:9"}"#;
    run(&["nodes", "new", "-d", node]).expect(0);
    assert_eq!(run(&["nodes", "update"]).expect(0).json()["name"], "update");
    run(&["nodes", "update", "update", "-d", r#"{"drain": true}"#]).expect(0);
    assert_eq!(run(&["nodes", "update", "remove"]).expect(0).json()["drain"], true);
    // A value may begin with a hyphen; what is behind `--` is not ours.
    let words = [
        "--name",
        "-n",
        "--priority",
        "-4",
        "--env",
        "A=-1",
        "--env=B=--b",
        "--held",
        "--env=--c=-",
    ];
    let command = ["-q", "--", "--", "--help", "-X", "a=b"];
    let made = run(&[&["jobs", "new"], words.as_slice(), &command].concat()).expect(0);
    assert_eq!(made.body, "6\n");
    let request = run(&["jobs", "6"]).expect(0).json()["request"].clone();
    assert_eq!(request["command"], serde_json::json!(["--", "--help", "-X", "a=b"]));
    assert_eq!((&request["name"], &request["priority"]), (&"-n".into(), &(-4).into()));
    assert_eq!(request["environment"], serde_json::json!({"A": "-1", "B": "--b", "--c": "-"}));
    // Tokens by their short words.
    let id =
        run(&["tokens", "new", "role=user"]).expect(0).json()["id"].as_str().unwrap().to_string();
    assert_eq!(run(&["tokens", "ls"]).expect(0).json(), run(&["tokens"]).expect(0).json());
    run(&["tokens", "rm", &id]).expect(0);
    assert_eq!(run(&["tokens"]).expect(0).json()["tokens"], serde_json::json!([]));
    root.check();
}

#[test]
fn a_request_by_a_server_reads_no_words() {
    let root = TestRoot::new(CONF);
    for words in [&["--help"] as &[&str], &["--version"], &["supervise"], &["jobs", "--nonsense"]] {
        for name in ["scheduler", "processor", "nodemgr"] {
            let mut command = Command::new(program(name));
            command
                .args(words)
                .env("CORKBOARD_ROOT", &root.dir)
                .env("GATEWAY_INTERFACE", "CGI/1.1");
            let answer =
                command.env("REQUEST_METHOD", "GET").env("PATH_INFO", "/").output().unwrap();
            let text = String::from_utf8_lossy(&answer.stdout).into_owned();
            assert!(text.starts_with("Status: 403 "), "{name} {words:?}: {answer:?}");
        }
    }
}
