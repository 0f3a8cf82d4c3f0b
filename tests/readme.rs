//! What the README tells people to type is typed here: its `sh` blocks run in order, in one shell,
//! in a root that `scripts/up` made. `console` blocks only show.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

const PAGES: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "cgi-bin/README.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/decisions.md",
    "docs/operation.md",
    "state/README.md",
];

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(SOURCE).join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The contents of the blocks of this kind.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(name), None) => open = Some((name == kind, String::new())),
            (Some(_), Some((wanted, content))) => {
                if *wanted {
                    found.push(std::mem::take(content));
                }
                open = None;
            }
            (None, Some((_, content))) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// The commands that a page names, in blocks and between backticks, as words.
fn commands(page: &str) -> Vec<Vec<String>> {
    let text = self::page(page);
    let pieces =
        text.split('`').flat_map(str::lines).flat_map(|line| line.split(['|', '(', '<', '&', ';']));
    let mut found = Vec::new();
    for piece in pieces {
        let words: Vec<&str> = piece.split_whitespace().collect();
        let is_program = |word: &&str| {
            let name = word.rsplit('/').next().unwrap();
            ["scheduler", "processor", "nodemgr", "poller"].contains(&name)
                && !word.starts_with(['.', '/'])
        };
        let Some(first) = words.iter().position(is_program) else { continue };
        // Prose has no path before the name, or begins with it between backticks.
        if !words[first].contains('/') && (first > 0 || !text.contains(&format!("`{piece}"))) {
            continue;
        }
        let clean = |word: &&str| word.trim_matches(['[', ']', '"', '\'', ',', '.']).to_string();
        found.push(words[first..].iter().map(clean).filter(|word| !word.is_empty()).collect());
    }
    found
}

/// What `scripts/up` started in this root, jobs and all: ended when dropped.
struct Up(PathBuf);

impl Drop for Up {
    fn drop(&mut self) {
        let mut down = Command::new(format!("{SOURCE}/scripts/down"));
        let _ = down.arg("--jobs").arg("--root").arg(&self.0).output();
    }
}

#[test]
fn blocks_are_shell() {
    let all = blocks(&page("README.md"), "sh").join("\n");
    assert!(!all.is_empty());
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn links_lead_somewhere() {
    for name in PAGES {
        let text = page(name);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let mut target = Path::new(SOURCE).join(name);
            if !file.is_empty() {
                target = target.parent().unwrap().join(file);
            }
            assert!(target.exists(), "{name} links to {link}");
            let slug = |heading: &str| {
                let words = heading.trim_matches(['#', ' ']).to_lowercase().replace('\'', "");
                words.replace(' ', "-")
            };
            let is_there = |page: String| {
                page.lines().any(|line| line.starts_with('#') && slug(line) == place)
            };
            let led = place.is_empty() || is_there(std::fs::read_to_string(&target).unwrap());
            assert!(led, "{name} links to {link}");
        }
    }
}

#[test]
fn what_the_readme_says_works() {
    let programs = Path::new(env!("CARGO_BIN_EXE_scheduler")).parent().unwrap();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    drop(Up(root.clone())); // of a run that died
    let _ = fs::remove_dir_all(&root);
    let running = Up(root.clone());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let up = Command::new(format!("{SOURCE}/scripts/up"))
        .args(["--open", "--port", &port, "--root"])
        .arg(&root)
        .arg("--programs")
        .arg(programs)
        .output()
        .unwrap();
    assert!(up.status.success(), "{up:?}");
    let script = blocks(&page("README.md"), "sh").join("\n").replace(":8080", &format!(":{port}"));
    let mut bash = Command::new("timeout")
        .args(["120", "bash", "-euxo", "pipefail", "-s"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    drop(running);
    assert!(output.status.success(), "{shown}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!shown.contains("\"error\":"), "{shown}");
    for expected in
        ["\nhello\n", "from the shell", "its log is printed here", "\"killed\"", "\"said\""]
    {
        assert!(shown.contains(expected), "{expected:?} is missing in:\n{shown}");
    }
}

#[test]
fn the_commands_of_all_pages_are_known() {
    let programs = Path::new(env!("CARGO_BIN_EXE_scheduler")).parent().unwrap();
    let mut count = 0;
    for page in PAGES.iter().filter(|page| **page != "CHANGELOG.md") {
        for command in commands(page) {
            let program = command[0].rsplit('/').next().unwrap();
            let is_value = |word: &String| word == "--" || word == "-d"; // what follows may be anything
            let end = command.iter().position(is_value).unwrap_or(command.len());
            let mut words: Vec<&str> = command[1..end].iter().map(String::as_str).collect();
            words.iter_mut().filter(|word| **word == "N").for_each(|word| *word = "7");
            words.push("--help");
            let answer = Command::new(programs.join(program)).args(&words).output().unwrap();
            assert!(answer.status.success(), "{page}: {command:?}: {answer:?}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} commands were found");
}
