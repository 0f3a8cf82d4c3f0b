//! What a person sees at a terminal, and what a program reads in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::process::Stdio;

use common::TestRoot;
use common::head::open_root;

/// What a command prints on a terminal, which `script` makes for it.
fn on_a_terminal(root: &TestRoot, line: &str) -> String {
    let mut script = root.base("scheduler");
    let env: Vec<(std::ffi::OsString, std::ffi::OsString)> = script
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_os_string(), value?.to_os_string())))
        .collect();
    script = std::process::Command::new("script");
    let line = format!("{}/cgi-bin/{line}", root.path("").display());
    let output = script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .envs(env)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
}

#[test]
fn commands_print_tables_to_people_and_json_to_programs() {
    let root = open_root("");
    let name = "two\u{1b}[2J lines";
    root.cmd("scheduler", &["jobs", "new", "--name", name, "--held", "--", "echo", "a"]).expect(0);
    root.cmd("scheduler", &["jobs", "new", "--held", "--", "true"]).expect(0);
    let jobs = on_a_terminal(&root, "scheduler jobs");
    let lines: Vec<&str> = jobs.lines().collect();
    assert!(lines[0].starts_with("JOB  NAME"), "{jobs}");
    assert!(lines[1].starts_with("2 ") && lines[1].contains("held"), "{jobs}");
    assert!(lines[2].contains("two\\u{1b}[2J lines") && lines[2].ends_with("echo a"), "{jobs}");
    assert_eq!(lines.len(), 3, "{jobs}");
    let status = on_a_terminal(&root, "scheduler jobs 2 status");
    assert!(status.starts_with("state       held\n"), "{status}");
    assert!(on_a_terminal(&root, "scheduler queue").contains("held by"));
    let nodes = on_a_terminal(&root, "scheduler nodes list");
    assert!(nodes.starts_with("NODE") && nodes.contains("\nlocalhost"), "{nodes}");
    assert!(on_a_terminal(&root, "nodemgr list").contains("\nlocalhost"));
    root.cmd("scheduler", &["tokens", "new", "role=user", "name=ada"]).expect(0);
    assert!(on_a_terminal(&root, "scheduler tokens").contains("user  ada "));
    assert!(on_a_terminal(&root, "processor jobs").starts_with("ID  STATE"));
    // What is asked for counts more than where it goes.
    let json = on_a_terminal(&root, "scheduler jobs format=json");
    assert!(json.starts_with("[{\"job\":2,"), "{json}");
    assert_eq!(on_a_terminal(&root, "scheduler jobs format=text"), "2\n1\n");
    assert_eq!(on_a_terminal(&root, "scheduler jobs 2 status -q").chars().next(), Some('{'));
    assert_eq!(root.cmd("scheduler", &["jobs", "format=table"]).expect(0).body, jobs);
    // A program reads what it did before.
    assert_eq!(root.cmd("scheduler", &["jobs"]).expect(0).body, "2\n1\n");
    assert_eq!(root.cmd("scheduler", &["queue"]).expect(0).body, "1\n2\n");
    assert!(root.cmd("scheduler", &["nodes", "list"]).expect(0).json()["nodes"].is_array());
    let json = root.cmd("scheduler", &["queue", "format=json"]).expect(0).json();
    assert_eq!(json[0]["job"], 1);
    // Another word for a route takes what that takes.
    let tokens = root.cmd("scheduler", &["tokens", "format=table"]).expect(0).body;
    assert!(tokens.starts_with("no ") || tokens.starts_with("ID "), "{tokens}");
    assert_eq!(root.cmd("scheduler", &["tokens", "ls", "format=table"]).expect(0).body, tokens);
    // Errors are no tables.
    let wrong = root.cmd("scheduler", &["jobs", "format=xml"]).expect(1);
    assert!(wrong.stderr.contains("format must be"), "{wrong:?}");
    root.check();
}

#[test]
fn every_table_and_every_brief_is_that_of_a_route() {
    let programs = [
        &corkboard::scheduler::PROGRAM,
        &corkboard::processor::PROGRAM,
        &corkboard::nodemgr::PROGRAM,
    ] as [&corkboard::cgi::Program; 3];
    for program in programs {
        let patterns: Vec<&str> = program.routes.iter().map(|route| route.pattern).collect();
        let views = program.views.iter().map(|view| view.pattern);
        for shown in views.chain(program.briefs.iter().map(|brief| brief.pattern)) {
            assert!(patterns.contains(&shown), "{}: {shown:?} is no route's", program.name);
        }
    }
}
