//! The scripts where something is in their way: copies of a root, other servers, kills at any time,
//! a broken configuration, addresses of other machines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use stand_ins::{POLLER, Root, SOURCE, free_port, get, is_alive};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The installed program of a root, run as a command.
fn program(root: &Root, name: &str, words: &[&str]) -> Output {
    let output = Command::new(root.dir.join("cgi-bin").join(name))
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    eprintln!("{name} {words:?}: {output:?}");
    output
}

/// Runs a job through the head to its end, with the poller and the server that `up` started.
fn run_a_job(root: &Root) {
    let new = program(root, "scheduler", &["jobs", "new", "--wait", "--", "echo", "it ran"]);
    assert_eq!(String::from_utf8_lossy(&new.stdout), "it ran\n");
}

#[test]
fn a_copied_root_is_a_root_of_its_own() {
    let root = Root::real("original");
    assert!(root.up(&[]).status.success());
    let running = [root.pid("httpd"), root.pid("poller")];
    let copy = Root::real("copy");
    fs::remove_dir(&copy.dir).unwrap();
    let cp = Command::new("cp").arg("-a").arg(&root.dir).arg(&copy.dir).status().unwrap();
    assert!(cp.success());
    let down = Command::new(copy.dir.join("scripts/down")).output().unwrap();
    assert!(down.status.success());
    let lines = String::from_utf8_lossy(&down.stdout).into_owned();
    assert_eq!(lines, "poller was not running\nhttpd was not running\n");
    assert!(running.iter().all(|pid| is_alive(pid)));

    // Nor do its jobs talk to the original, and `up` says what they share.
    let mut cp = Command::new("cp");
    let cp = cp.arg("-aT").args([root.dir.join("run"), copy.dir.join("run")]).status().unwrap();
    assert!(cp.success());
    let board = corkboard::board::root::Root::open(&copy.dir).unwrap();
    assert_eq!(board.advertised().unwrap(), None);
    let up = copy.up(&[]);
    assert!(up.status.success());
    assert!(said(&up).contains("warning: this root is a copy of one that is at work"));
    assert_eq!(board.advertised().unwrap().unwrap(), copy.read("run/url").trim());
    assert_ne!(copy.port(), root.port());
    let node = fs::read_to_string(copy.dir.join("state/scheduler/nodes/localhost.json")).unwrap();
    assert!(node.contains(&format!("\"http://127.0.0.1:{}\"", copy.port())), "{node}");
    run_a_job(&copy);
    run_a_job(&root);
    assert!(copy.down(&[]).status.success());
    assert!(running.iter().all(|pid| is_alive(pid)));

    // Records of an older version do not name their root; the processes do.
    for name in ["httpd", "poller"] {
        let record = root.read(&format!("run/{name}.pid"));
        let old: Vec<&str> = record.split_whitespace().take(3).collect();
        for dir in [&root.dir, &copy.dir] {
            fs::write(dir.join(format!("run/{name}.pid")), old.join(" ") + "\n").unwrap();
        }
    }
    assert!(copy.down(&[]).status.success());
    assert!(running.iter().all(|pid| is_alive(pid)));
    // A root that is moved is what it was.
    assert!(root.up(&[]).status.success());
    assert_eq!(running, [root.pid("httpd"), root.pid("poller")]);
    assert!(root.down(&[]).status.success());
    assert!(running.iter().all(|pid| !is_alive(pid)));
}

#[test]
fn a_job_finds_the_board_that_it_belongs_to() {
    let root = Root::real("board-of-a-job");
    assert!(root.up(&[]).status.success());
    // The page on what lies there is there.
    assert_eq!(
        root.read("state/README.md"),
        fs::read_to_string(format!("{SOURCE}/state/README.md")).unwrap()
    );
    let child = "\"$CORKBOARD_ROOT/cgi-bin/scheduler\" jobs new -q -- echo by \"$CORKBOARD_JOB\"";
    let new = program(&root, "scheduler", &["jobs", "new", "--wait", "--", "sh", "-c", child]);
    assert_eq!(String::from_utf8_lossy(&new.stdout), "2\n");
    let record = program(&root, "scheduler", &["jobs", "2"]);
    let record: serde_json::Value = serde_json::from_slice(&record.stdout).unwrap();
    assert_eq!((&record["parent"], &record["by"]), (&1.into(), &"job 1".into()));
    assert!(root.down(&["--jobs"]).status.success());
}

#[test]
fn a_moved_root_keeps_its_daemons() {
    let root = Root::new("moved", POLLER);
    assert!(root.up(&[]).status.success());
    let running = [root.pid("httpd"), root.pid("poller")];
    let elsewhere = root.dir.with_file_name("elsewhere");
    fs::rename(&root.dir, &elsewhere).unwrap();
    let down = Command::new(elsewhere.join("scripts/down")).output().unwrap();
    fs::rename(&elsewhere, &root.dir).unwrap();
    assert!(down.status.success());
    assert!(running.iter().all(|pid| !is_alive(pid)));
}

#[test]
fn an_up_that_is_killed_at_any_time_is_finished_by_the_next() {
    let root = Root::new("killed", POLLER);
    fs::create_dir_all(root.dir.join("run")).unwrap();
    let whole = Instant::now();
    assert!(root.up(&[]).status.success());
    let whole = whole.elapsed();
    for step in 1..=12 {
        assert!(root.down(&[]).status.success());
        // What is written down does not agree with what will run.
        fs::write(root.dir.join("run/port"), "1\n").unwrap();
        let mut up = Command::new(format!("{SOURCE}/scripts/up"))
            .args(["--port", &free_port().to_string(), "--root"])
            .arg(&root.dir)
            .arg("--programs")
            .arg(&root.programs)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * step / 12); // each time it is killed at another moment
        let _ = up.kill();
        let _ = up.wait();
        assert!(root.up(&[]).status.success(), "step {step}");
        assert!(get(root.port(), "/", "").contains("Corkboard"), "step {step}");
        assert!(is_alive(&root.pid("httpd")) && is_alive(&root.pid("poller")));
        let registered = root.read("state/scheduler/nodes/localhost.json");
        assert!(registered.contains(&format!(":{}\"", root.port())), "{registered}");
        let parts = fs::read_dir(root.dir.join("cgi-bin")).unwrap().flatten();
        let parts = parts.filter(|entry| entry.file_name().to_string_lossy().contains(".new."));
        assert_eq!(parts.count(), 0);
        assert!(!root.dir.join("run/proof").exists());
    }
}

#[test]
fn a_down_that_is_killed_at_any_time_is_finished_by_the_next() {
    let root = Root::new("killed-down", POLLER);
    for step in 0..6 {
        assert!(root.up(&[]).status.success());
        let running = [root.pid("httpd"), root.pid("poller")];
        let mut down = Command::new(root.dir.join("scripts/down")).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 * step)); // each time at another moment
        let _ = down.kill();
        let _ = down.wait();
        assert!(root.down(&[]).status.success());
        assert!(running.iter().all(|pid| !is_alive(pid)), "step {step}");
    }
}

#[test]
fn the_server_of_another_is_not_asked_and_not_registered() {
    let root = Root::real("foreign");
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    foreign.set_nonblocking(true).unwrap();
    let port = foreign.local_addr().unwrap().port().to_string();
    assert!(root.up(&["--bind", "127.0.0.2", "--port", &port]).status.success());
    assert_eq!(root.read("run/url"), format!("http://127.0.0.2:{port}/cgi-bin\n"));
    run_a_job(&root);
    assert!(root.down(&[]).status.success());
    assert_eq!(foreign.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    // `up` alone is what it was before.
    assert!(root.up(&[]).status.success());
    assert_eq!((root.read("run/bind"), root.port().to_string()), ("127.0.0.2\n".into(), port));
}

#[test]
fn up_fails_where_the_head_does_not_reach_its_node() {
    let root = Root::new("unreached", POLLER);
    fs::write(root.programs.join("nodemgr"), "#!/bin/sh\necho 'no answer' >&2\nexit 75\n").unwrap();
    let up = root.up(&[]);
    assert_eq!(up.status.code(), Some(1));
    let why = said(&up);
    assert!(why.contains("the head does not reach its own machine") && why.contains("no answer"));
    // What it has is followed all the same.
    assert!(is_alive(&root.pid("poller")));
    fs::write(root.programs.join("nodemgr"), "#!/bin/sh\n").unwrap();
    assert!(root.up(&[]).status.success());

    let root = Root::new("unregistered", POLLER);
    let scheduler = fs::read_to_string(root.programs.join("scheduler")).unwrap();
    let refuses =
        scheduler.replace("cat > \"$state/registered\"", "echo 'jobs are there' >&2; exit 1");
    fs::write(root.programs.join("scheduler"), refuses).unwrap();
    let up = root.up(&[]);
    assert_eq!(up.status.code(), Some(1));
    assert!(said(&up).contains("is not registered at") && said(&up).contains("jobs are there"));
}

/// Runs lines of bash in a network of its own, which has the address 10.9.8.7 beside loopback;
/// `None` where none can be made.
fn in_a_network(root: &Root, script: &str) -> Option<Output> {
    let begin = "set -eu; ip link set lo up; ip addr add 10.9.8.7/32 dev lo";
    let unshare = |words: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "bash", "-c"]).arg(format!("{begin}; {words}"));
        command.env("ROOT", &root.dir).env("PROGRAMS", &root.programs).env("SOURCE", SOURCE);
        command.output()
    };
    if !unshare("true").is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no network namespace can be made here");
        return None;
    }
    let output = unshare(script).unwrap();
    eprintln!("{output:?}");
    Some(output)
}

const UP: &str = r#"up() { "$SOURCE/scripts/up" --root "$ROOT" --programs "$PROGRAMS" "$@"; }
trap '"$ROOT/scripts/down" >&2' EXIT; "#;

#[test]
fn an_open_head_on_an_address_of_the_network_reaches_itself() {
    let root = Root::real("open-lan");
    let script = r#"
        up --open --bind 10.9.8.7 >&2
        cd /
        "$ROOT/cgi-bin/scheduler" jobs new --wait -- echo it ran
        # Closed to the network, though it is open to this machine.
        curl -s "http://10.9.8.7:$(cat "$ROOT/run/port")/cgi-bin/scheduler/jobs" "#;
    let Some(output) = in_a_network(&root, &format!("{UP}{script}")) else { return };
    assert!(output.status.success());
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(lines.starts_with("it ran\n") && lines.contains("error"), "{lines}");

    // Its names are not all: its own address is admitted, too.
    let root = Root::real("allowed-hosts");
    fs::write(root.dir.join("corkboard.conf"), "allowed_hosts = example.org\n").unwrap();
    let output = in_a_network(&root, &format!("{UP} up --bind 10.9.8.7")).unwrap();
    assert!(output.status.success());
}

#[test]
fn a_head_whose_token_was_revoked_is_told_how_to_get_another() {
    let root = Root::real("revoked");
    assert!(root.up(&[]).status.success());
    for token in fs::read_dir(root.dir.join("state/tokens")).unwrap() {
        fs::remove_file(token.unwrap().path()).unwrap();
    }
    let up = root.up(&[]);
    assert_eq!(up.status.code(), Some(1));
    let secret = root.dir.join("state/secrets/nodes/localhost");
    assert!(said(&up).contains(&format!("rm {} and run up again", secret.display())));
    fs::remove_file(secret).unwrap();
    assert!(root.up(&[]).status.success());
    run_a_job(&root);
}

#[test]
fn down_with_jobs_does_not_say_none_where_it_cannot_know() {
    let root = Root::real("broken-conf");
    assert!(root.up(&[]).status.success());
    let sleeps = ["jobs", "new", "-r", "sleeps", "--", "sleep", "1000"];
    assert!(program(&root, "processor", &sleeps).status.success());
    assert!(root.down(&[]).status.success());
    let conf = root.read("corkboard.conf");
    fs::write(root.dir.join("corkboard.conf"), "no such setting\n").unwrap();
    let down = root.down(&["--jobs"]);
    assert_eq!(down.status.code(), Some(1));
    assert!(said(&down).contains("it is not known which jobs run here"), "{down:?}");
    let up = root.up(&[]);
    assert_eq!(up.status.code(), Some(1));
    fs::write(root.dir.join("corkboard.conf"), conf).unwrap();
    // Jobs are there without anything that `up` started.
    assert!(root.down(&[]).status.success());
    fs::remove_dir_all(root.dir.join("run")).unwrap();
    let down = root.down(&["--jobs"]);
    assert!(down.status.success());
    assert!(String::from_utf8_lossy(&down.stdout).contains("job sleeps killed"));
    assert_eq!(program(&root, "processor", &["jobs", "state=running"]).stdout, b"");
}

#[test]
fn up_writes_a_damaged_record_of_its_own_machine_anew() {
    let root = Root::real("damaged-record");
    assert!(root.up(&[]).status.success());
    for text in ["", "\0\0\0\0"] {
        fs::write(root.dir.join("state/scheduler/nodes/localhost.json"), text).unwrap();
        let up = root.up(&[]);
        assert!(up.status.success(), "{up:?}");
        assert!(
            root.read("state/scheduler/nodes/localhost.json")
                .contains(&format!(":{}\"", root.port()))
        );
        run_a_job(&root);
    }
    assert_eq!(program(&root, "scheduler", &["check"]).stdout, b"");
}

#[test]
fn down_with_jobs_kills_once_more_what_it_could_not_kill() {
    let root = Root::real("not-killed-at-once");
    assert!(root.up(&[]).status.success());
    let sleeps = ["jobs", "new", "-r", "sleeps", "--", "sleep", "1000"];
    assert!(program(&root, "processor", &sleeps).status.success());
    let (processor, real) = (root.dir.join("cgi-bin/processor"), root.dir.join("cgi-bin/real"));
    fs::copy(&processor, &real).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$3\" != kill ] || mkdir {0}/first 2>/dev/null || exec {0}/cgi-bin/real \"$@\"\n[ \"$3\" = kill ] || exec {0}/cgi-bin/real \"$@\"\necho no room >&2; exit 75\n",
        root.dir.display()
    );
    // Put in its place, as `up` does: what runs stays what it is.
    let prepared = root.dir.join("cgi-bin/.processor");
    fs::write(&prepared, script).unwrap();
    Command::new("chmod").arg("755").arg(&prepared).status().unwrap();
    fs::rename(&prepared, &processor).unwrap();
    let down = root.down(&["--jobs"]);
    assert!(down.status.success(), "{down:?}");
    let lines = String::from_utf8_lossy(&down.stdout).into_owned();
    assert_eq!((lines.matches("job sleeps killed").count(), said(&down)), (1, "no room\n".into()));
    fs::rename(&real, &processor).unwrap();
    assert_eq!(program(&root, "processor", &["jobs", "state=running"]).stdout, b"");
}

#[test]
fn a_root_may_have_any_name() {
    let root = Root::real("it's a \"root\" of $HOME; `x` \\ * ");
    let up = root.up(&["--open"]);
    assert!(up.status.success());
    run_a_job(&root);
    assert!(get(root.port(), "/", "").contains("Corkboard"));
    assert!(root.up(&[]).status.success());
    let down = root.down(&["--jobs"]);
    assert!(down.status.success());
    let lines = String::from_utf8_lossy(&down.stdout).into_owned();
    assert_eq!(lines, "poller stopped\nhttpd stopped\n");
}

#[test]
fn a_poller_of_another_version_is_replaced_and_keeps_its_pace() {
    let root = Root::real("versions");
    let older = root.dir.with_file_name("programs");
    for name in ["scheduler", "processor", "nodemgr", "poller"] {
        fs::copy(root.programs.join(name), older.join(name)).unwrap();
    }
    let root = Root { dir: root.dir.clone(), programs: older.clone() };
    assert!(root.up(&["--pace", "10ms"]).status.success());
    let poller = root.pid("poller");
    // The same, and nothing is disturbed.
    assert!(root.up(&[]).status.success());
    assert_eq!(root.pid("poller"), poller);
    // A program may have anything behind its end.
    let newer = [fs::read(older.join("poller")).unwrap(), b"newer".to_vec()].concat();
    fs::remove_file(older.join("poller")).unwrap();
    fs::write(older.join("poller"), newer).unwrap();
    Command::new("chmod").arg("755").arg(older.join("poller")).status().unwrap();
    assert!(root.up(&[]).status.success());
    assert!(!is_alive(&poller));
    let now = root.pid("poller");
    assert!(is_alive(&now));
    let words = fs::read_to_string(format!("/proc/{now}/cmdline")).unwrap();
    assert!(words.ends_with("--pace\x0010ms\0"), "{words:?}");
}

#[test]
fn what_fails_in_a_script_says_so_at_its_end() {
    let root = Root::new("descriptors-out", POLLER);
    assert!(root.up(&[]).status.success());
    for script in ["up", "down"] {
        let line = format!("ulimit -n 6; exec '{}/scripts/{script}'", root.dir.display());
        let failed = Command::new("bash").args(["-c", &line]).output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(said(&failed).ends_with("mend what is said above, then run it again\n"));
    }
    assert!(is_alive(&root.pid("httpd")));
}
