//! Limits, priority and the like of whoever starts a supervisor are not those of other people's jobs.
//!
//! Needs root, and programs that set them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::node::{CONF, assert_clean, root_of_nobody, submit};
use common::{TestRoot, program, until, wait_for};
use serde_json::{Value, json};

/// An open root whose jobs share the processors, so that what they were given shows.
fn root() -> TestRoot {
    let root = TestRoot::new(&format!("{CONF}pin_cores = false\n"));
    root.open();
    root
}

/// Submits a job from within these programs, which run what follows them.
fn submit_within(root: &TestRoot, within: &[&str], request: &Value) -> String {
    let mut command = Command::new(within[0]);
    command.args(&within[1..]).arg(root.path("cgi-bin/processor")).args(["jobs", "new", "-q"]);
    command.env("CORKBOARD_ROOT", &root.dir).current_dir("/");
    if let Some(user) = root.user {
        command.uid(user).gid(user);
    }
    let output = common::feed(&mut command, request.to_string().as_bytes());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

/// A job that says what it was given.
fn looks() -> Value {
    json!({"command": "ulimit -Hf; ulimit -Sf; nice; taskset -p $$ | sed 's/.*: //'; \
                       cat /proc/self/oom_score_adj; chrt -p $$ | sed -n 's/.*policy: //p'",
           "dir": "/"})
}

fn log(root: &TestRoot, id: &str) -> String {
    assert_eq!(root.ended(id)["status"], "good");
    root.cmd("processor", &["jobs", id, "log"]).expect(0).body
}

fn all_processors() -> String {
    let output = Command::new("taskset").args(["-p", &std::process::id().to_string()]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.rsplit(' ').next().unwrap().to_string()
}

const LESS: &[&str] = &[
    "prlimit",
    "--fsize=2048000:unlimited",
    "nice",
    "-n",
    "7",
    "taskset",
    "-c",
    "0",
    "choom",
    "-n",
    "300",
    "--",
    "chrt",
    "--batch",
    "0",
];

/// The supervisor that one client's request starts serves others, too. Only a soft limit is lowered: to
/// raise a hard one takes a capability that root need not have.
#[test]
fn jobs_are_not_given_what_the_one_who_submitted_them_has() {
    let root = root();
    let expected = format!("unlimited\nunlimited\n0\n{}0\nSCHED_OTHER\n", all_processors());
    let first = submit_within(&root, LESS, &looks());
    assert_eq!(log(&root, &first), expected);
    let second = submit(&root, looks());
    assert_eq!(log(&root, &second), expected);
    assert_clean(&root);
}

/// The poller that makes the rounds of a command has what the command has, and is no measure.
#[test]
fn the_rounds_of_a_command_give_jobs_nothing_of_its_own() {
    let root = root();
    let mut command = Command::new("nice");
    command.args(["-n", "7"]).arg(root.path("cgi-bin/scheduler"));
    command.args(["jobs", "new", "--wait", "--", "nice"]);
    let output = command.env("CORKBOARD_ROOT", &root.dir).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n");
    assert_clean(&root);
}

/// Nobody else can run it.
#[test]
fn without_a_poller_a_lower_limit_holds_if_it_cannot_be_raised() {
    let root = root_of_nobody();
    let soft = submit_within(&root, &["prlimit", "--fsize=2048000:unlimited"], &looks());
    assert!(log(&root, &soft).starts_with("unlimited\nunlimited\n"));
    until("its supervisor has ended", || root.processes().is_empty());
    let hard = submit_within(&root, &["prlimit", "--fsize=2048000:2048000"], &looks());
    assert!(log(&root, &hard).starts_with("4000\n4000\n"));
    assert_clean(&root);
}

/// What is over it is like what a full disk does not take; it ends no supervisor, and the job has what is
/// usual.
#[test]
fn output_over_a_limit_on_files_ends_nobody() {
    let root = root_of_nobody();
    let command = "head -c 100000 /dev/zero; grep SigIgn /proc/self/status >&2; \
                   head -c 10000 /dev/zero > /tmp/corkboard-fsize-$$; code=$?; \
                   rm /tmp/corkboard-fsize-$$; exit $code";
    let request = json!({"command": command, "dir": "/", "output": "split"});
    let id = submit_within(&root, &["prlimit", "--fsize=8192:8192"], &request);
    assert_eq!(
        root.ended(&id)["code"],
        128 + 25,
        "SIGXFSZ is the job's: {}",
        root.node_status(&id)
    );
    let stderr = root.cmd("processor", &["jobs", &id, "log", "stream=stderr"]).expect(0).body;
    assert!(stderr.starts_with("SigIgn:\t0000000000000000\n"), "{stderr}");
    let log = fs::metadata(root.path(&format!("state/processor/job/{id}/stdout"))).unwrap();
    assert_eq!(log.len(), 8192);
    until("its supervisor has ended", || root.processes().is_empty());
    assert_clean(&root);
}

#[test]
fn what_cannot_be_raised_is_left_to_the_poller() {
    let root = root_of_nobody();
    fs::remove_file(root.path("bin/poller")).unwrap();
    root.install("bin/poller", &program("poller"), "755");
    root.write("corkboard.conf", &format!("{}scan_every = 0.3\n", common::node::CONF));
    // That of whoever runs the tests, which is the poller's.
    let own = String::from_utf8(Command::new("nice").output().unwrap().stdout).unwrap();
    let poller = root.poller();
    let less: [&[&str]; 3] = [
        &["prlimit", "--fsize=2048000:2048000"],
        &["nice", "-n", "7"],
        &["setpriv", "--no-new-privs"],
    ];
    for within in less {
        let mut request = looks();
        request["command"] = json!("ulimit -Hf; nice; grep NoNewPrivs /proc/self/status");
        let id = submit_within(&root, within, &request);
        assert_eq!(log(&root, &id), format!("unlimited\n{own}NoNewPrivs:\t0\n"), "{within:?}");
        until("its supervisor has ended", || root.processes().len() == 1);
    }
    drop(poller);
    assert_clean(&root);
}

/// A group of this test, in which nothing is left at its end.
struct Group(std::path::PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        wait_for(common::SOON, || fs::remove_dir(&self.0).map_err(|e| e.to_string()));
    }
}

#[test]
fn jobs_are_where_the_poller_is() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let two = mounts.lines().find(|line| line.contains(" - cgroup2 ")).unwrap();
    let name = format!("e-test-{}", std::process::id());
    let group = Group(std::path::Path::new(two.split(' ').nth(4).unwrap()).join(&name));
    fs::create_dir(&group.0).unwrap();
    let root = root();
    let poller = root.poller();
    let enter = format!("echo 0 > {}/cgroup.procs; exec \"$@\"", group.0.display());
    let request = json!({"command": "cat /proc/self/cgroup", "dir": "/"});
    let id = submit_within(&root, &["sh", "-c", &enter, "sh"], &request);
    let is_there = log(&root, &id);
    assert!(is_there.contains("corkboard-") && !is_there.contains(&name), "{is_there}");
    drop(poller);
    assert_clean(&root);
    drop(root);
}

/// It has none, and what it starts can take none.
#[test]
fn a_job_has_no_terminal() {
    let root = root();
    let request = json!({"command": "ps -o tty= -p $$", "dir": "/"});
    let script = format!(
        "echo '{request}' | CORKBOARD_ROOT={0} {0}/cgi-bin/processor jobs new -q > {0}/told",
        root.dir.display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-c", &script, "/dev/null"]).stdin(Stdio::null());
    assert!(terminal.stdout(Stdio::null()).status().unwrap().success());
    let id = root.read("told").trim().to_string();
    assert_eq!(log(&root, &id).trim(), "?");
    assert_clean(&root);
}
