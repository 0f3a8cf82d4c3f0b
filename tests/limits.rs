//! What jobs are held to on their node: cores and GPUs of their own, memory, the number of processes; and what
//! is told of what they used.
//!
//! What needs a controller of control groups says so where the machine has none, and is no test there.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::head::{both_ways, open_root};
use common::node::{assert_clean, log, submit};
use common::ways::{kill_supervisor, notes};
use common::{SOON, TestRoot, lives, program, signal, until, wait_for};
use serde_json::{Value, json};

fn info(root: &TestRoot) -> Value {
    root.cmd("processor", &["info"]).expect(0).json()
}

fn give(root: &TestRoot, script: &str, resources: Value) -> String {
    submit(root, json!({"command": script, "dir": "/", "requested_resources": resources}))
}

/// The machine's cores that this process may use.
fn usable() -> BTreeSet<u32> {
    set(&own_cores("/proc/self/status"))
}

fn own_cores(status: &str) -> String {
    let text = fs::read_to_string(status).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_string()
}

fn set(list: &str) -> BTreeSet<u32> {
    let number = |text: &str| text.parse::<u32>().unwrap();
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => (number(first)..=number(last)).collect(),
        None => vec![number(part)],
    };
    list.split(',').filter(|part| !part.is_empty()).flat_map(range).collect()
}

/// Those that a job has, by its own word once it has ended.
fn cores_of(root: &TestRoot, id: &str) -> BTreeSet<u32> {
    set(log(root, id).lines().next().unwrap())
}

const TELL: &str = "sed -n 's/Cpus_allowed_list:[^0-9]*//p' /proc/self/status";

#[test]
fn two_jobs_of_a_root_never_share_a_core() {
    let all = usable();
    let count = all.len();
    let root = TestRoot::new(&format!("cores = {count}\nmemory = 1 GiB\n"));
    assert_eq!(info(&root)["enforcement"]["cores"], "affinity");
    let go = root.path("go");
    let wait = format!("{TELL}; until [ -e {} ]; do sleep 0.01; done", go.display());
    let ids: Vec<String> = (0..count).map(|_| give(&root, &wait, json!({}))).collect();
    until("all run", || ids.iter().all(|id| root.node_status(id)["state"] == "running"));
    let told: Vec<Value> =
        ids.iter().map(|id| root.node_status(id)["enforced"]["cpus"].clone()).collect();
    fs::write(&go, "").unwrap();
    let mut seen = BTreeSet::new();
    for (id, told) in ids.iter().zip(&told) {
        let end = root.ended(id);
        assert_eq!(end["status"], "good", "{end}");
        assert_eq!(end["enforced"]["cpus"], *told);
        let own = cores_of(&root, id);
        assert_eq!((own.len(), &own), (1, &set(told.as_str().unwrap())), "{own:?}");
        assert!(own.is_subset(&all) && own.is_disjoint(&seen), "{own:?} {seen:?}");
        seen.extend(own);
    }
    // One that has them all; tasks of a range each have the same ones.
    let id = give(&root, TELL, json!({"cores": count}));
    root.ended(&id);
    assert_eq!(cores_of(&root, &id), all);
    until("its supervisor knows", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn cores_are_free_again_when_a_supervisor_dies() {
    let root = TestRoot::new("cores = 1\nmemory = 1 GiB\n");
    let id = give(&root, "sleep 1000", json!({}));
    until("it runs", || root.node_status(&id)["state"] == "running");
    let first = root.node_status(&id)["enforced"]["cpus"].clone();
    kill_supervisor(&root);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&id)["cause"], "lost");
    let next = give(&root, "true", json!({}));
    assert_eq!(root.ended(&next)["enforced"]["cpus"], first);
    until("its supervisor knows", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// The supervisor that has this job.
fn supervisor_of(root: &TestRoot, id: &str) -> i32 {
    let slots = fs::read_dir(root.path("state/processor/slot")).unwrap();
    let records = slots.map(|slot| fs::read_to_string(slot.unwrap().path()).unwrap());
    let mut records = records.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    let has =
        |record: &Value| record["jobs"].as_array().is_some_and(|all| all.contains(&json!(id)));
    records.find(has).unwrap()["pid"].as_i64().unwrap() as i32
}

/// A supervisor that lives may be the first who sees that another one has died.
#[test]
fn what_a_dead_supervisor_had_is_given_to_nobody_before_what_is_left_of_its_job_has_ended() {
    let root = TestRoot::new("cores = 2\nmemory = 1 GiB\ngpus = 1\n");
    let (go, left) = (root.path("go"), root.path("left"));
    let leaves = format!("sleep 1000 & echo $! > {}; wait", left.display());
    let dies = give(&root, &leaves, json!({"gpus": 1}));
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let lives_on = give(&root, &wait, json!({}));
    until("both run", || {
        [&dies, &lives_on].iter().all(|id| root.node_status(id)["state"] == "running")
    });
    until("it has a child", || root.read("left").ends_with('\n'));
    // One of which only its exit code is left is gone: it is the test's to wait for it.
    let look = format!(
        "grep -qs '^State:.[^Z]' /proc/$(cat {})/status && echo there || echo gone",
        left.display()
    );
    let next = give(&root, &look, json!({"gpus": 1}));
    let survivor: i32 = root.read("left").trim().parse().unwrap();
    root.starts_no_supervisor();
    let supervisor = supervisor_of(&root, &dies);
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
    assert!(lives(survivor), "nobody has ended it yet");
    fs::write(&go, "").unwrap();
    let end = root.ended(&next);
    assert_eq!((&end["status"], &end["enforced"]["gpus"]), (&json!("good"), &json!("0")), "{end}");
    assert_eq!(root.read(&format!("state/processor/job/{next}/log")), "gone\n");
    assert_eq!(root.ended(&dies)["cause"], "lost");
    until("all are told", || root.supervisors().is_empty());
    fs::remove_file(root.path("cgi-bin/processor")).unwrap();
    root.install("cgi-bin/processor", &program("processor"), "755");
    assert_clean(&root);
}

#[test]
fn cores_that_a_machine_has_not_are_shared() {
    let more = usable().len() + 1;
    for (conf, why) in [
        (format!("cores = {more}\n"), format!("shared: it gives {more} cores, and may use")),
        ("cores = 1\npin_cores = false\n".to_string(), "shared: pin_cores is off".to_string()),
    ] {
        let root = TestRoot::new(&format!("{conf}memory = 1 GiB\n"));
        let said = info(&root)["enforcement"]["cores"].as_str().unwrap().to_string();
        assert!(said.starts_with(&why), "{said}");
        let id = give(&root, TELL, json!({}));
        assert_eq!(root.ended(&id)["enforced"], Value::Null);
        assert_eq!(cores_of(&root, &id), usable());
        until("its supervisor knows", || root.supervisors().is_empty());
        assert_clean(&root);
    }
}

#[test]
fn gpus_and_other_countables_are_given_once() {
    let root = TestRoot::new("cores = 4\nmemory = 1 GiB\ngpus = 3\ncountables = licenses=2\n");
    let go = root.path("go");
    let wait = format!(
        "echo gpus=${{CUDA_VISIBLE_DEVICES-unset}}; until [ -e {} ]; do sleep 0.01; done",
        go.display()
    );
    let two = give(&root, &wait, json!({"gpus": 2, "licenses": 1}));
    until("it runs", || root.node_status(&two)["state"] == "running");
    let one = give(&root, &wait, json!({"gpu_count": 1}));
    let none = submit(
        &root,
        json!({"command": wait, "dir": "/", "environment": {"CUDA_VISIBLE_DEVICES": "0,1,2"}}),
    );
    until("they run", || [&one, &none].iter().all(|id| root.node_status(id)["state"] == "running"));
    let free = info(&root)["free"].clone();
    assert_eq!(free, json!({"cores": 1, "memory": 1 << 30, "licenses": 1}));
    let waits = give(&root, "echo gpus=$CUDA_VISIBLE_DEVICES", json!({"gpus": 1}));
    let never = root.cmd_in(
        "processor",
        &["jobs", "new"],
        r#"{"command": "x", "requested_resources": {"licenses": 3}}"#,
    );
    assert!(never.stderr.contains("the job needs 1 core, 3 licenses"), "{never:?}");
    assert_eq!(root.node_status(&waits), Value::Null);
    fs::write(&go, "").unwrap();
    for (id, gpus, told) in
        [(&two, "0,1", json!("0-1")), (&one, "2", json!("2")), (&none, "", Value::Null)]
    {
        let end = root.ended(id);
        assert_eq!(end["enforced"]["gpus"], told, "{end}");
        assert_eq!(log(&root, id), format!("gpus={gpus}\n"));
    }
    assert_eq!(root.ended(&waits)["status"], "good");
    until("all are told", || root.supervisors().is_empty());
    assert_clean(&root);
    let root = TestRoot::new("cores = 1\nmemory = 1 GiB\n");
    let plain = submit(
        &root,
        json!({"command": "echo $CUDA_VISIBLE_DEVICES", "environment": {"CUDA_VISIBLE_DEVICES": "7"}}),
    );
    root.ended(&plain);
    assert_eq!(log(&root, &plain), "7\n", "a machine without GPUs leaves it alone");
}

/// Whether jobs are limited here by a control group; says so if not.
fn is_limited(root: &TestRoot, what: &str) -> bool {
    let by = info(root)["enforcement"][what].as_str().unwrap().to_string();
    let limited = by.starts_with("cgroup");
    if !limited {
        println!("NOT TESTED: this machine permits no limit of {what}: {by}");
    }
    limited
}

/// Takes so many bytes, and says so.
fn hog(bytes: u64) -> String {
    format!("exec perl -e '$x = \"x\" x {bytes}; print \"has it\\n\"; sleep 1000'")
}

#[test]
fn a_job_that_takes_more_memory_than_it_asked_for_ends_alone() {
    both_ways("", |root, door| {
        if !is_limited(root, "memory") {
            return;
        }
        let _poller = root.poller();
        let good = door.submit(&json!({"command": "sleep 2; echo done", "dir": "/"}));
        let request = |script: &str| json!({"command": script, "dir": "/", "requested_resources": {"memory": "64 MiB"}});
        let within = door.submit(&request("perl -e '$x = \"x\" x (8 << 20); print length $x'"));
        let end = door.ended(within);
        assert_eq!(end["status"], "good", "{end}");
        let most = end["max_memory"].as_u64().unwrap();
        assert!((8 << 20..=64 << 20).contains(&most), "{end}");
        for script in [hog(256 << 20), format!("({}) || true", hog(256 << 20))] {
            let bad = door.submit(&request(&script));
            let end = door.ended(bad);
            assert_eq!(end["reason"], "out of memory: reached 64 MiB", "{end}");
            assert_eq!(
                (&end["status"], &end["cause"]),
                (&json!("error"), &json!("signal")),
                "{end}"
            );
            let record = door.get(&format!("/scheduler/jobs/{bad}")).expect(200).json();
            let id = record["attempts"][0]["nodejob"].as_str().unwrap();
            assert!(end["enforced"]["memory"].as_str().unwrap().starts_with("cgroup"), "{end}");
            let told = door.get(&format!("/processor/jobs/{id}/status")).expect(200).json();
            assert!(told["enforced"]["memory"].as_str().unwrap().starts_with("cgroup"), "{told}");
        }
        assert_eq!(door.ended(good)["status"], "good");
        // The same slot has no limit for the next one.
        let free = door
            .submit(&json!({"command": "perl -e '$x = \"x\" x (128 << 20); print 1'", "dir": "/"}));
        assert_eq!(door.ended(free)["status"], "good");
        root.check();
    });
}

#[test]
fn a_fork_bomb_goes_off_alone() {
    let root = TestRoot::new("cores = 2\nmemory = 4 GiB\nmax_processes = 40\n");
    if !is_limited(&root, "processes") {
        return;
    }
    let good = give(&root, "sleep 1; echo done", json!({}));
    let pids = notes(&root).join("pids");
    // It is bounded, too, should the limit not hold.
    let script = format!(
        "i=0; while [ $i -lt 300 ]; do sleep 1000 & echo $! >> {}; i=$((i+1)); done; echo $i; wait",
        pids.display()
    );
    let request = json!({"command": script, "dir": "/", "timeout": 3, "max_termination_time": 0.2});
    let bomb = submit(&root, request);
    let end = root.ended(&bomb);
    assert_eq!(end["status"], "error", "{end}");
    assert!(end["enforced"]["processes"].as_str().unwrap().starts_with("cgroup"), "{end}");
    let started: Vec<i32> =
        fs::read_to_string(&pids).unwrap().lines().filter_map(|pid| pid.parse().ok()).collect();
    assert!(started.len() < 40, "{}", started.len());
    assert!(started.iter().all(|pid| !lives(*pid)));
    assert_eq!(root.ended(&good)["status"], "good");
    until("all are told", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn what_was_made_to_limit_jobs_is_removed() {
    let root = TestRoot::new("cores = 1\nmemory = 4 GiB\nmax_processes = 40\nlinger = 0\n");
    let own = |root: &TestRoot| {
        wait_for(SOON, || {
            let text = root.read("state/processor/slot/1");
            let slot: Value = serde_json::from_str(&text).unwrap_or_default();
            let group = slot["cgroup"].as_str().ok_or(text)?;
            Ok(group.rsplit('/').nth(1).unwrap().to_string())
        })
    };
    let left = |name: &str| {
        let find = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-maxdepth", "6", "-type", "d", "-name", name])
            .output()
            .unwrap();
        String::from_utf8_lossy(&find.stdout).into_owned()
    };
    let id = give(&root, "true", json!({"memory": "1 GiB"}));
    let name = own(&root);
    assert_eq!(root.ended(&id)["status"], "good");
    until("its supervisor has ended", || root.processes().is_empty());
    assert_eq!(left(&name), "");
    let id = give(&root, "sleep 1000", json!({"memory": "1 GiB"}));
    until("it runs", || root.node_status(&id)["state"] == "running");
    kill_supervisor(&root);
    root.cmd("processor", &["sweep"]).expect(0);
    assert_eq!(root.ended(&id)["cause"], "lost");
    until("nothing runs", || root.processes().is_empty());
    assert_eq!(left(&name), "");
    assert_clean(&root);
}

#[test]
fn what_a_job_has_used_is_in_its_end() {
    let root = open_root("");
    let _poller = root.poller();
    let burn = "perl -e 'my $t = times; 1 while times - $t < 0.3; $x = \"x\" x (16 << 20)'";
    let job = root.submit(&json!({"commands": [{"exec": ["sh", "-c", burn]}, {"exec": ["sh", "-c", burn]}], "dir": "/"}));
    let end = root.reaches(job, "stopped");
    let cpu = end["cpu_ms"].as_u64().unwrap();
    assert!((600..5000).contains(&cpu), "{end}");
    assert!(end["max_memory"].as_u64().unwrap() > 16 << 20, "{end}");
    let card = root.card(job);
    assert_eq!((card.len(), &card[3]["cpu_ms"]), (4, &end["cpu_ms"]), "{card:?}");
    let record = root.cmd("scheduler", &["jobs", &job.to_string()]).expect(0).json();
    assert_eq!(record["attempts"][0]["max_memory"], end["max_memory"], "{record}");
    let again = root
        .submit(&json!({"command": format!("{burn}; exit 3"), "dir": "/", "max_retry_count": 1}));
    root.reaches(again, "stopped");
    let ends: Vec<Value> = root
        .card(again)
        .into_iter()
        .filter(|line| line["cpu_ms"].is_u64())
        .map(|line| line["event"].clone())
        .collect();
    assert_eq!(ends, ["retry", "stopped"]);
    let array = root.submit(&json!({"command": burn, "dir": "/", "array": "0-2"}));
    root.reaches(array, "stopped");
    let of_ranges: u64 = root.card(array).iter().filter_map(|line| line["cpu_ms"].as_u64()).sum();
    assert!(of_ranges >= 900, "{of_ranges}");
    let held = root.submit(&json!({"command": "true", "state": "held"}));
    root.update(held, "kill=1").expect(0);
    assert_eq!(root.status(held)["cpu_ms"], Value::Null);
    root.check();
}
