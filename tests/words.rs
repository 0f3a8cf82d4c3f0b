//! What people type: the help of every word, what may have been meant by a wrong one, and that words
//! are read however they are arranged.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::os::unix::ffi::OsStrExt;
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
            for Key { name, value, help } in query {
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
fn a_wrong_word_is_told_what_may_have_been_meant() {
    let root = TestRoot::new(CONF);
    let mut wrong = Vec::new();
    for (program, words, code, said) in [
        // Words.
        (
            "scheduler",
            "jbos",
            2,
            "no such word \"jbos\": did you mean \"jobs\"? try scheduler --help",
        ),
        (
            "scheduler",
            "nodez list",
            2,
            "no such word \"nodez\": did you mean \"nodes\"? try scheduler --help",
        ),
        (
            "scheduler",
            "jobs 7 sttaus wait=1",
            2,
            "no such word \"sttaus\": did you mean \"status\"? try scheduler jobs N --help",
        ),
        (
            "scheduler",
            "jobs 7 xyz",
            2,
            "\"xyz\": no such words; --help lists them; try scheduler jobs N --help",
        ),
        ("scheduler", "nodes", 2, "no such words; --help lists them; try scheduler nodes --help"),
        (
            "processor",
            "swep",
            2,
            "no such word \"swep\": did you mean \"sweep\"? try processor --help",
        ),
        // Words where a name or a number may stand, too.
        (
            "scheduler",
            "jobs newe",
            1,
            "there is no such job: a job's number is like 1 or 42; did you mean \"new\"?",
        ),
        ("scheduler", "nodes lsit", 1, "there is no node lsit; did you mean \"list\"?"),
        ("scheduler", "nodes elsewhere", 1, "there is no node elsewhere"),
        ("nodemgr", "lisst", 1, "there is no node lisst; did you mean \"list\"?"),
        ("processor", "jobs staus", 1, "no job staus here; did you mean \"status\"?"),
        (
            "scheduler",
            "jobs newe --wait -- true",
            2,
            "unknown option --wait: did you mean \"new\"? try scheduler jobs N --help",
        ),
        // Options.
        (
            "scheduler",
            "jobs new --nmae x -- true",
            2,
            "unknown option --nmae: did you mean \"--name\"? try scheduler jobs new --help",
        ),
        ("scheduler", "jobs new -x -- true", 2, "unknown option -x; try scheduler jobs new --help"),
        ("scheduler", "jobs --nonsense", 2, "unknown option --nonsense; try scheduler jobs --help"),
        (
            "scheduler",
            "check --repiar",
            2,
            "unknown option --repiar: did you mean \"--repair\"? try scheduler check --help",
        ),
        (
            "processor",
            "check --repiar",
            2,
            "unknown option --repiar: did you mean \"--repair\"? try processor check --help",
        ),
        (
            "poller",
            "--onec",
            2,
            "unknown option --onec: did you mean \"--once\"? try poller --help",
        ),
        // Nothing, as of a variable that is not set.
        ("scheduler", "jobs  update kill=1", 2, "a word is empty; try scheduler --help"),
        ("nodemgr", " jobs", 2, "a word is empty; try nodemgr --help"),
        ("nodemgr", "jobs", 2, "no such words; --help lists them; try nodemgr jobs --help"),
        (
            "nodemgr",
            "jobs runn",
            2,
            "no such word \"runn\": did you mean \"run\"? try nodemgr jobs --help",
        ),
        ("scheduler", "tokens rm id=--help", 1, "\"--help\" is no token's id"),
        ("scheduler", "tokens rm id=", 1, "\"\" is no token's id"),
        ("poller", "now", 2, "\"now\": no such words; --help lists them; try poller --help"),
        ("scheduler", "jobs 7 -- status", 2, "unknown option --; try scheduler jobs N --help"),
        // Keys.
        (
            "scheduler",
            "jobs 7 status wiat=5",
            1,
            "unknown query parameter \"wiat\": did you mean \"wait\"? known are wait, task, format",
        ),
        (
            "scheduler",
            "jobs colour=red",
            1,
            "unknown query parameter \"colour\"; known are limit, state, format",
        ),
        ("scheduler", "jobs 7 wait=5", 1, "unknown query parameter \"wait\"; this path takes none"),
        (
            "processor",
            "jobs x log tial=3",
            1,
            "unknown query parameter \"tial\": did you mean \"tail\"? known are stream, offset, limit, tail, follow, task",
        ),
        (
            "nodemgr",
            "jobs run nod=x",
            1,
            "unknown query parameter \"nod\": did you mean \"node\"? known are job-number, json_data, node",
        ),
        // Values, and options that lack or exclude each other.
        (
            "scheduler",
            "queue 7 -X DELET",
            2,
            "no such method \"DELET\": did you mean \"DELETE\"? known are GET, HEAD, POST, PATCH, DELETE; try scheduler queue N --help",
        ),
        ("scheduler", "jobs new -d", 2, "-d needs a value; try scheduler jobs new --help"),
        (
            "scheduler",
            "jobs new --name -- true",
            2,
            "--name needs a value; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --name --wait -- true",
            2,
            "--name needs a value; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --wait=1 -- true",
            2,
            "--wait takes no value; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --wait --wait -- true",
            2,
            "--wait is given twice; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --name a --name=b -- true",
            2,
            "--name is given twice; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --",
            2,
            "a command is required: -- CMD ARGS; try scheduler jobs new --help",
        ),
        (
            "scheduler",
            "jobs new --held",
            2,
            "a command is required: -- CMD ARGS; try scheduler jobs new --help",
        ),
        (
            "processor",
            "jobs new -r x",
            2,
            "a command is required: -- CMD ARGS; try processor jobs new --help",
        ),
        (
            "scheduler",
            "jobs new -d {} -- true",
            2,
            "-d does not go with -- CMD ARGS; try scheduler jobs new --help",
        ),
        (
            "poller",
            "--pace soon",
            2,
            "--pace: \"soon\" is not a duration such as 2s; try poller --help",
        ),
        ("poller", "--job x", 2, "--job: \"x\" is not a job's number; try poller --help"),
        ("poller", "--once --job 5", 2, "--once does not go with --job; try poller --help"),
        ("poller", "--once --once", 2, "--once is given twice; try poller --help"),
    ] {
        let answer = root.cmd(program, &words.split(' ').collect::<Vec<_>>());
        let expected = format!("{program}: {said}\n");
        if (answer.code, &answer.stderr, answer.body.is_empty()) != (code, &expected, true) {
            wrong.push(format!("{program} {words}: {answer:?}\nexpected {code}: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    root.check();
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
fn words_that_are_no_text_are_wrong_words() {
    let root = TestRoot::new(CONF);
    let word = std::ffi::OsStr::from_bytes(b"jo\xffbs");
    for name in ["scheduler", "processor", "nodemgr", "poller"] {
        let mut command = Command::new(program(name));
        let answer = command.arg(word).env("CORKBOARD_ROOT", &root.dir).output().unwrap();
        assert_eq!(answer.status.code(), Some(2), "{name}: {answer:?}");
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        let is_a_line = said.starts_with(&format!("{name}: ")) && said.lines().count() == 1;
        assert!(is_a_line && said.ends_with(" --help\n"), "{name}: {said}");
    }
    assert!(!root.exists("state"));
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
