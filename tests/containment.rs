//! All processes of a job end with it, whatever they do: as root, with control groups of either
//! version, and as a user without rights, who has none.
//!
//! Needs root, perl with threads, and a hierarchy of each version.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::node::{assert_clean, root, submit};
use common::processes::Process;
use common::ways::{Way, every_way, hide_version_two, kill_supervisor, notes};
use common::{TestRoot, lives, pid_in, program, signal, until, wait_for};
use nix::libc;
use serde_json::{Value, json};

/// Submits a job for `/`.
fn give(root: &TestRoot, script: &str, more: Value) -> String {
    let mut request = json!({"command": script, "dir": "/"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    submit(root, request)
}

/// A program whose first thread exits while another one goes on. Its pid is in this file then.
fn without_first_thread(pid: &Path) -> String {
    format!(
        r#"perl -Mthreads -e 'threads->create(sub {{
            open(my $f, ">", "{pid}.new"); print $f $$; close $f;
            select(undef, undef, undef, 0.01) until `cat /proc/$$/stat` =~ /\) Z /;
            rename "{pid}.new", "{pid}"; sleep 1000 while 1 }});
            syscall({exit}, 0)'"#,
        pid = pid.display(),
        exit = libc::SYS_exit,
    )
}

/// Whether a process is there at all, be it for some of its threads.
fn has_threads(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields[0] != "Z" || fields[17] != "1"
}

#[test]
fn a_program_whose_first_thread_has_exited_is_ended() {
    every_way(|_, root| {
        let pid = notes(root).join("pid");
        let more = json!({"timeout": 1.5, "max_termination_time": 0.2});
        let id = give(root, &format!("exec {}", without_first_thread(&pid)), more);
        let program = pid_in(&pid);
        let end = root.ended(&id);
        assert_eq!(end["cause"], "timeout", "{end}");
        assert!(!has_threads(program));
    });
}

#[test]
fn what_a_good_job_leaves_behind_is_ended_whatever_it_does() {
    every_way(|_, root| {
        let pid = notes(root).join("pid");
        let script = format!(
            "env -i PATH=$PATH setsid {} & until [ -e {} ]; do sleep 0.01; done",
            without_first_thread(&pid),
            pid.display()
        );
        let id = give(root, &script, json!({"max_termination_time": 0.3}));
        let left = pid_in(&pid);
        assert_eq!(root.ended(&id)["status"], "good");
        assert!(!has_threads(left));
    });
}

/// Each process of it lives for an instant, and is another's child.
fn chain(mark: &str) -> String {
    format!("trap '' TERM; f() {{ f {mark} & }}; f {mark}")
}

fn runs(mark: &str) -> bool {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(Process::look).any(|process| process.words().iter().any(|w| w.contains(mark)))
}

#[test]
fn a_chain_of_processes_that_each_start_the_next_is_caught() {
    every_way(|way, root| {
        let mark = format!("chain-{way:?}-{}", std::process::id());
        let id = give(root, &chain(&mark), json!({"max_termination_time": 0.1}));
        assert_eq!(root.ended(&id)["status"], "good");
        for _ in 0..5 {
            assert!(!runs(&mark));
        }
    });
}

/// One that is just about to leave for good when its job's program ends, and is none of those that
/// are asked then.
#[test]
fn a_daemon_that_comes_late_is_asked_as_well() {
    every_way(|way, root| {
        let mark = format!("1000.{}{}", way as u8, std::process::id());
        let heeds = format!("env --default-signal=TERM sh -c 'setsid sleep {mark} &'");
        let script = format!("(trap '' TERM; sleep 0.4; {heeds}) &");
        let id = give(root, &script, json!({"max_termination_time": 1000}));
        assert_eq!(root.ended(&id)["status"], "good");
        assert!(!runs(&mark));
    });
}

/// Programs that one starts which was asked to end are left to it: it cleans up.
#[test]
fn a_program_that_was_asked_to_end_may_clean_up_by_others() {
    every_way(|_, root| {
        let dir = notes(root);
        let clean = format!("sleep 1; echo done > {}/cleaned; exit 3", dir.display());
        let script = format!(
            "trap '{clean}' TERM; echo > {}/begun; while :; do sleep 0.01; done",
            dir.display()
        );
        let id = give(root, &script, json!({"max_termination_time": 1000}));
        until("it has begun", || dir.join("begun").exists());
        root.cmd("processor", &["jobs", &id, "kill"]).expect(0);
        assert_eq!(root.ended(&id)["cause"], "killed");
        assert_eq!(root.read("notes/cleaned"), "done\n");
    });
}

#[test]
fn a_loss_is_proven_where_there_is_a_group() {
    every_way(|way, root| {
        let pid = notes(root).join("pid");
        let hides = format!("env -i setsid sh -c 'echo $$ > {}; exec sleep 1000'", pid.display());
        let id = give(root, &format!("{hides} & sleep 1000"), json!({}));
        let left = pid_in(&pid);
        kill_supervisor(root);
        root.cmd("processor", &["sweep"]).expect(0);
        let end = root.ended(&id);
        assert_eq!(end["cause"], "lost");
        if way == Way::Scan {
            assert_eq!(end["unproven"], true, "{end}");
            assert!(end["reason"].as_str().unwrap().contains("without a cgroup"), "{end}");
            signal(left, "KILL");
        } else {
            assert_eq!(end["unproven"], Value::Null, "{end}");
            assert_eq!(end["reason"], "its supervisor died");
            assert!(!lives(left));
        }
    });
}

/// Root's jobs may put themselves elsewhere, as those do that are started by way of another service.
#[test]
fn what_a_job_has_moved_out_of_its_group_is_found_after_a_crash() {
    every_way(|way, root| {
        if way == Way::Scan {
            return;
        }
        let (to, pid) = (notes(root).join("to"), root.path("notes/pid"));
        let script = format!(
            "until [ -e {to} ]; do sleep 0.01; done; echo $$ > $(cat {to})/cgroup.procs || exit; \
             setsid sh -c 'echo $$ > {pid}; exec sleep 1000' & sleep 1000",
            to = to.display(),
            pid = pid.display()
        );
        let id = give(root, &script, json!({}));
        until("it runs", || root.node_status(&id)["state"] == "running");
        let outside = group(root).unwrap().ancestors().nth(2).unwrap().display().to_string();
        root.write("notes/new", &outside);
        fs::rename(root.path("notes/new"), &to).unwrap();
        let left = pid_in(&pid);
        kill_supervisor(root);
        root.cmd("processor", &["sweep"]).expect(0);
        assert_eq!(root.ended(&id)["cause"], "lost");
        assert!(!lives(left), "it would run beside the next attempt");
    });
}

#[test]
fn the_head_tries_again_what_is_proven_to_be_lost_and_nothing_else() {
    every_way(|way, root| {
        if way == Way::Scan {
            for (name, own) in [("scheduler", "cgi-bin/scheduler"), ("poller", "bin/poller")] {
                fs::remove_file(root.path(own)).unwrap();
                root.install(own, &common::program(name), "755");
            }
        }
        let runs = notes(root).join("runs");
        let script = format!("echo $$ >> {}; sleep 1000", runs.display());
        let job = root.submit(&json!({"command": script, "dir": "/", "max_retry_count": 1}));
        let round = || root.cmd("poller", &["--once", "-q"]).expect(0);
        let count = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
        round();
        until("it runs", || count() == 1);
        kill_supervisor(root);
        root.cmd("processor", &["sweep"]).expect(0);
        until("its end is known", || {
            round();
            root.story(job).iter().any(|event| event == "retry" || event == "stopped")
        });
        if way == Way::Scan {
            let status = root.status(job);
            assert_eq!((&status["state"], &status["cause"]), (&json!("stopped"), &json!("lost")));
            let last = root.card(job).pop().unwrap();
            assert_eq!(last["unproven"], true, "{last}");
            assert_eq!(count(), 1);
        } else {
            until("it runs again", || {
                round();
                count() == 2
            });
            root.update(job, "kill=1").expect(0);
            until("it has ended", || {
                round();
                root.status(job)["state"] == "stopped"
            });
        }
    });
}

#[test]
fn info_says_what_holds_jobs() {
    every_way(|way, root| {
        let info = root.cmd("processor", &["info"]).expect(0).json();
        let expected = match way {
            Way::Cgroup2 => "cgroup2",
            Way::Cgroup1 => "cgroup1",
            Way::Scan => "scan",
        };
        assert_eq!(info["containment"], expected);
    });
}

/// The group of the one slot.
fn group(root: &TestRoot) -> Option<PathBuf> {
    let slot: Value = serde_json::from_str(&root.read("state/processor/slot/1")).ok()?;
    slot["cgroup"].as_str().map(PathBuf::from)
}

/// The kernel goes on killing what is born into a group that was killed once as a whole.
#[test]
fn what_was_ended_by_force_ends_no_later_job() {
    every_way(|_, root| {
        let more = json!({"timeout": 0.2, "max_termination_time": 0.1});
        for _ in 0..2 {
            let id = give(root, "trap '' TERM; while :; do sleep 0.02; done", more.clone());
            assert_eq!(root.ended(&id)["cause"], "timeout");
            let next = give(root, "true", json!({}));
            assert_eq!(root.ended(&next)["code"], 0, "{}", root.node_status(&next));
        }
        // Those of a supervisor that was killed as well.
        let pid = notes(root).join("left");
        let id = give(root, &format!("echo $$ > {}; sleep 1000", pid.display()), json!({}));
        pid_in(&pid);
        kill_supervisor(root);
        root.cmd("processor", &["sweep"]);
        assert_eq!(root.ended(&id)["cause"], "lost");
        let next = give(root, "true", json!({}));
        assert_eq!(root.ended(&next)["code"], 0, "{}", root.node_status(&next));
    });
}

#[test]
fn a_group_that_is_removed_is_made_anew() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    let where_is = |id: &str| {
        assert_eq!(root.ended(id)["status"], "good");
        root.cmd("processor", &["jobs", id, "log"]).expect(0).body
    };
    let first = give(&root, "cat /proc/self/cgroup", json!({}));
    let log = where_is(&first);
    until("its supervisor waits for the next job", || root.supervisors().is_empty());
    let dir = group(&root).unwrap();
    fs::remove_dir(&dir).unwrap();
    let second = give(&root, "cat /proc/self/cgroup", json!({}));
    assert_eq!(where_is(&second), log);
    let own = format!("{}/1", dir.parent().unwrap().file_name().unwrap().to_str().unwrap());
    assert!(log.contains(&own), "{log}");
    until("its supervisor has ended", || root.processes().is_empty());
    assert!(!dir.parent().unwrap().exists());
    assert_clean(&root);
}

/// Whose hierarchies are all read-only, as in a container.
#[test]
fn without_a_group_jobs_run_all_the_same() {
    hide_version_two();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup ")) {
        let point = std::ffi::CString::new(mount.split(' ').nth(4).unwrap()).unwrap();
        let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        let none = std::ptr::null();
        // SAFETY: a string that ends in NUL, and flags.
        unsafe { assert_eq!(libc::mount(none, point.as_ptr(), none, flags, none.cast()), 0) };
    }
    let root = root();
    let info = root.cmd("processor", &["info"]).expect(0).json();
    assert_eq!(info["containment"], "scan");
    let id = give(&root, "cat /proc/self/cgroup", json!({}));
    assert_eq!(root.ended(&id)["status"], "good");
    assert_eq!(group(&root), None);
    let log = root.cmd("processor", &["jobs", &id, "log"]).expect(0).body;
    assert!(!log.contains("corkboard-"), "{log}");
    assert_clean(&root);
}

/// A job that makes groups of its own, and moves there.
#[test]
fn groups_that_a_job_has_made_end_with_it() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\n");
    let pid = notes(&root).join("pid");
    let go = root.path("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let id = give(&root, &script, json!({}));
    let dir = wait_for(common::SOON, || {
        group(&root).filter(|dir| dir.exists()).ok_or_else(|| "it has no group".to_string())
    });
    fs::create_dir_all(dir.join("own/more")).unwrap();
    fs::write(&go, "").unwrap();
    assert_eq!(root.ended(&id)["status"], "good");
    until("its supervisor waits for the next job", || root.supervisors().is_empty());
    let inside = dir.join("own/more/cgroup.procs");
    let script = format!(
        "mkdir -p {0}; echo 0 > {0}/cgroup.procs; setsid sh -c 'echo $$ > {1}; exec sleep 1000' & \
         until [ -s {1} ]; do sleep 0.01; done; sleep 1000",
        inside.parent().unwrap().display(),
        pid.display()
    );
    let id = give(&root, &script, json!({}));
    let left = pid_in(&pid);
    kill_supervisor(&root);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&id)["reason"], "its supervisor died");
    assert!(!lives(left));
    assert!(!dir.exists());
    assert_clean(&root);
}

/// There the number of a process of ours is that of somebody else's.
#[test]
fn nothing_is_run_nor_ended_by_numbers_of_another_pid_namespace() {
    let root = root();
    let run = |flags: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(flags).arg("sh").env("CORKBOARD_ROOT", root.path(""));
        let script = "\"$1\" sweep; \"$1\" jobs new -q -r \"$2\" -- true; sleep 0.1";
        let name = flags.len().to_string();
        command.args(["-c", script, "sh"]).arg(program("processor")).arg(&name);
        let output = command.output().unwrap();
        (name, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (id, said) = run(&["--pid", "--fork"]);
    assert!(said.contains("/proc is of another pid namespace"), "{said}");
    assert!(root.exists(&format!("state/processor/queue/{id}")), "{said}");
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&id)["status"], "good");
    let (_, said) = run(&["--pid", "--fork", "--mount-proc"]);
    assert_eq!(said, "");
}

/// A supervisor that a job has started by submitting jobs goes on; what is merely called so does not.
#[test]
fn what_is_called_like_a_supervisor_ends_with_its_job() {
    every_way(|_, root| {
        let dir = notes(root);
        fs::write(
            dir.join("supervise"),
            r#"open(my $f, ">", "pid.new"); print $f $$; close $f; rename "pid.new", "pid"; sleep 1000"#,
        )
        .unwrap();
        let script = format!(
            "cd {} && cp $(command -v perl) processor && {{ $WAY ./processor supervise & }}; \
             until [ -e pid ]; do sleep 0.01; done",
            dir.display()
        );
        for way in ["", "env -i CORKBOARD_ROOT=/"] {
            let id = give(root, &script.replace("$WAY", way), json!({}));
            let left = pid_in(&dir.join("pid"));
            assert_eq!(root.ended(&id)["status"], "good");
            assert!(!lives(left), "{way}: {}", root.node_status(&id));
            fs::remove_file(dir.join("pid")).unwrap();
        }
    });
}
