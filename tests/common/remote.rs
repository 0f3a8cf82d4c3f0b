//! Commands that stand in no root and ask one by HTTP.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::head::CONF;
use crate::common::{Httpd, TestRoot, program};

/// What a command printed and said, and its exit code.
#[derive(Debug, PartialEq)]
pub struct Told {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A command that stands in no root.
pub fn elsewhere(url: &str, token: &str, args: &[&str], input: &str) -> Told {
    told(asking("scheduler", url, token, args), input)
}

/// The same, not begun yet, of any program. It does not wait for ever.
pub fn asking(name: &str, url: &str, token: &str, args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(env::temp_dir());
    command.args(["-s", "KILL", "100"]).arg(program(name)).args(args);
    command.env("CORKBOARD_URL", url).env("CORKBOARD_TOKEN", token);
    command
}

pub fn told(mut command: Command, input: &str) -> Told {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may not read it
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A closed root with a server, and an admin's token.
pub fn root() -> (TestRoot, Httpd, String) {
    let root = TestRoot::new(CONF);
    let token = root.cmd("scheduler", &["tokens", "new", "role=admin", "-q"]).expect(0).body;
    let httpd = root.httpd();
    (root, httpd, token.trim().to_string())
}
