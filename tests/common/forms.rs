//! Forms with files, whole or in part, as bare CGI; and what they leave behind.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{self, Answer, TestRoot};

pub const NEW: &str = "/scheduler/jobs/new";

pub const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=b");

/// Sends a file with a job as bare CGI; what it answers.
pub fn send(root: &TestRoot, job: &Value, file: &Path) -> Answer {
    let name = file.file_name().unwrap().to_str().unwrap();
    let head = format!(
        "--b\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{job}\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    );
    let tail = "\r\n--b--\r\n";
    let length = head.len() as u64 + fs::metadata(file).unwrap().len() + tail.len() as u64;
    let length = length.to_string();
    let mut child = start(root.cgi_command("POST", NEW, &[FORM, ("Content-Length", &length)]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(head.as_bytes()).unwrap();
    std::io::copy(&mut File::open(file).unwrap(), &mut stdin).unwrap();
    stdin.write_all(tail.as_bytes()).unwrap();
    drop(stdin);
    common::answered(&child.wait_with_output().unwrap())
}

pub fn start(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

pub fn number(answer: Answer) -> u64 {
    answer.expect(201).json()["job"].as_u64().unwrap()
}

/// What is in `tmp/` of both boards.
pub fn left_behind(root: &TestRoot) -> Vec<PathBuf> {
    let boards = ["state/scheduler/tmp", "state/processor/tmp"].map(|dir| root.path(dir));
    let dirs = boards.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
    dirs.map(|entry| entry.unwrap().path()).collect()
}

/// The directory was changed for the last time two hours ago.
pub fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    File::open(path).unwrap().set_modified(then).unwrap();
}

/// A request with a form of this length, of which only the beginning has come.
pub fn begin(root: &TestRoot, path: &str, length: usize, beginning: &[u8]) -> Child {
    let length = length.to_string();
    let mut child = start(root.cgi_command("POST", path, &[FORM, ("Content-Length", &length)]));
    child.stdin.as_mut().unwrap().write_all(beginning).unwrap();
    child
}

pub fn part(disposition: &str, content: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

pub fn file(name: &str, content: &str) -> String {
    part(&format!("name=\"file\"; filename=\"{name}\""), content)
}

pub const END: &str = "--b--\r\n";
