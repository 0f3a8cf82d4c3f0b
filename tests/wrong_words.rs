//! What people type and did not mean: what may have been meant is said.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use common::head::CONF;
use common::{TestRoot, program};

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
