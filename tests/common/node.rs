//! A node by itself: what its tests do with `processor`, without a head.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{TestRoot, lives, program, signal, until};

pub const CONF: &str = "cores = 2\nmemory = 4 GiB\n";

/// An open root, whose poller does not run.
pub fn root() -> TestRoot {
    let root = TestRoot::new(CONF);
    root.open();
    root
}

/// An account without rights.
pub const NOBODY: u32 = 65534;

/// A root of a user without rights, with programs of its own.
pub fn root_of_nobody() -> TestRoot {
    let mut root = TestRoot::new(CONF);
    fs::remove_file(root.path("cgi-bin/processor")).unwrap();
    root.install("cgi-bin/processor", &program("processor"), "755");
    for name in ["", "cgi-bin", "corkboard.conf"] {
        chown(root.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    root.user = Some(NOBODY);
    root
}

/// Gives it a job; the id.
pub fn submit(root: &TestRoot, request: Value) -> String {
    let answer = root.cmd_in("processor", &["jobs", "new", "-q"], &request.to_string()).expect(0);
    answer.body.trim().to_string()
}

/// Gives it a job; its end.
pub fn run(root: &TestRoot, request: Value) -> Value {
    let id = submit(root, request);
    root.ended(&id)
}

/// What the feed says of a job's end; `Null` where it says nothing.
pub fn told(root: &TestRoot, id: &str) -> Value {
    let events = root.read("state/processor/events");
    let mut lines = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.rfind(|line| line["id"] == id && line["state"] == "stopped").unwrap_or(Value::Null)
}

/// Waits until it says something.
pub fn is_told(root: &TestRoot, id: &str) {
    until(&format!("the end of {id} is told"), || !told(root, id).is_null());
}

/// What the job has written.
pub fn log(root: &TestRoot, id: &str) -> String {
    root.cmd("processor", &["jobs", id, "log"]).expect(0).body
}

/// The record of a slot in which this process, in this boot, has claimed these jobs.
pub fn claims(pid: i32, jobs: &[&str]) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let one = json!({"cores": 1, "memory": 0});
    format!("{}\n", json!({"pid": pid, "boot": boot.trim(), "resources": one, "jobs": jobs}))
}

/// `check` finds nothing wrong.
pub fn assert_clean(root: &TestRoot) {
    let check = root.cmd("processor", &["check"]);
    assert_eq!((check.code, check.body.as_str()), (0, ""), "{check:?}");
}

impl TestRoot {
    /// Puts a copy of a program here. Not by this process: what some thread's child still has open
    /// for writing cannot be started.
    pub fn install(&self, name: &str, from: &Path, mode: &str) -> PathBuf {
        let path = self.path(name);
        let mut install = Command::new("install");
        assert!(install.args(["-m", mode]).arg(from).arg(&path).status().unwrap().success());
        path
    }

    /// From now on a supervisor is started by nobody but the test, and by `processor` itself: what
    /// others would start does nothing.
    pub fn starts_no_supervisor(&self) {
        let program = self.path("cgi-bin/processor");
        fs::remove_file(&program).unwrap();
        symlink("/bin/true", program).unwrap();
    }
}

/// What a newer program wrote of a job, until it is taken away.
pub struct Obstacle {
    request: PathBuf,
    before: String,
}

impl Obstacle {
    pub fn take_away(self) {
        fs::write(&self.request, self.before).unwrap();
    }
}

/// Jobs `a` and `b` run, then their supervisors are killed; a newer program alone knows what `a` is.
pub fn two_orphans(root: &TestRoot) -> Obstacle {
    for id in ["a", "b"] {
        submit(root, json!({"command": ["sleep", "1000"], "request_id": id}));
    }
    until("both run", || ["a", "b"].iter().all(|id| root.node_status(id)["state"] == "running"));
    let request = root.path("state/processor/job/a/request.json");
    let before = fs::read_to_string(&request).unwrap();
    let accepted = fs::metadata(&request).unwrap().modified().unwrap();
    fs::write(&request, before.replacen('{', r#"{"labels":["x"],"#, 1)).unwrap();
    fs::File::open(&request).unwrap().set_modified(accepted).unwrap();
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
    Obstacle { request, before }
}
