//! What a job does to the story of its own run keeps nobody from hearing how it ended: neither whoever asks
//! later, nor a head that has missed what the feed said.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::array::{noted, ranges, runs};
use common::head::CONF;
use common::node::{assert_clean, is_told, submit, told};
use common::users::plain_root;
use common::{TestRoot, lives, signal, until};
use serde_json::{Value, json};

/// What a job may do with a file of its own.
const SPOILS: [(&str, &str); 7] = [
    ("removed", "rm FILE"),
    ("directory", "rm FILE; mkdir -p FILE/in/it; chmod 0 FILE/in"),
    ("closed", "chmod 0 FILE"),
    ("pipe", "rm FILE; mkfifo FILE"),
    ("link", "ln -sf /dev/zero FILE"),
    ("endless", "truncate -s 1100M FILE"),
    ("in-a-closed-directory", "chmod 700 $PWD; rm FILE; chmod 0 $PWD"),
];

/// A root of a user who is bound by the rights on files, with so many cores.
fn root_with(cores: u32) -> TestRoot {
    let root = plain_root(&CONF.replace("cores = 2", &format!("cores = {cores}")));
    root.open();
    root.give_to_user();
    root
}

fn root() -> TestRoot {
    root_with(2)
}

/// In its own directory: does this with these files, says so, then does more in another place.
fn spoiling(root: &TestRoot, spoil: &str, names: &[&str], more: &str) -> String {
    let dir = root.path("state/processor/job").display().to_string();
    let each: String = names.iter().map(|name| spoil.replace("FILE", name) + "; ").collect();
    let said = root.path("said").display().to_string();
    format!("cd {dir}/$CORKBOARD_NODEJOB && {{ {each} }}; cd /; echo >> {said}; {more}")
}

fn has_spoilt(root: &TestRoot) {
    until("it has spoilt its story", || root.exists("said"));
}

/// What the job waits for that is given these words.
const UNTIL_LET_GO: &str = "until [ -e GO ]; do sleep 0.02; done";

fn until_let_go(root: &TestRoot) -> String {
    UNTIL_LET_GO.replace("GO", &root.path("go").display().to_string())
}

fn kill_supervisors(root: &TestRoot) {
    for supervisor in root.supervisors() {
        signal(supervisor, "KILL");
        until("it is dead", || !lives(supervisor));
    }
}

/// The states that a job's story tells.
fn states(root: &TestRoot, id: &str) -> Vec<String> {
    let story = root.read(&format!("state/processor/job/{id}/status"));
    let lines = story.lines().filter(|line| !line.is_empty());
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| line["state"].as_str().unwrap().to_string()).collect()
}

#[test]
fn the_end_of_a_job_that_spoils_its_story_is_in_its_story() {
    let root = root();
    for (id, spoil) in SPOILS {
        let command = spoiling(&root, spoil, &["status"], "exit 3");
        let command = command.replace("$CORKBOARD_NODEJOB", id);
        submit(&root, json!({"command": command, "request_id": id, "dir": "/"}));
        is_told(&root, id);
        let end = root.cmd("processor", &["jobs", id, "status"]).expect(0).json();
        assert_eq!((&end["state"], &end["code"]), (&json!("stopped"), &json!(3)), "{id}: {end}");
        assert_eq!(states(&root, id), ["running", "stopped"], "{id}");
        let length = fs::metadata(root.path(&format!("state/processor/job/{id}/status")));
        assert!(length.unwrap().size() < 100 << 20, "{id}");
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn a_head_that_was_not_listening_has_the_end_of_a_job_that_spoilt_its_story() {
    for (name, spoil) in SPOILS {
        println!("{name}");
        let root = root();
        let poller = root.poller();
        let command = spoiling(&root, spoil, &["status"], &until_let_go(&root));
        let job = root.submit(&json!({"command": command, "dir": "/"}));
        has_spoilt(&root);
        root.reaches(job, "running");
        poller.end("KILL");
        root.write("go", "");
        let id = ranges(&root).remove(0);
        is_told(&root, &id);
        let _poller = root.poller();
        assert_eq!(root.reaches(job, "stopped")["status"], "good", "{name}");
        assert_eq!(root.read("said"), "\n", "{name}: it ran once");
        until("all is reported", || root.supervisors().is_empty());
        root.check();
    }
}

#[test]
fn a_job_that_spoilt_its_story_is_lost_when_its_supervisor_dies() {
    for (name, spoil) in SPOILS {
        println!("{name}");
        let root = root();
        let poller = root.poller();
        let command = spoiling(&root, spoil, &["status", "tasks"], "sleep 1000");
        let job = root.submit(&json!({"command": command.replace("rm ", "rm -f "), "dir": "/"}));
        has_spoilt(&root);
        root.reaches(job, "running");
        poller.end("KILL");
        let id = ranges(&root).remove(0);
        let link = |name: &str| name.matches('_').count() == 1;
        until("it is known to have started", || {
            let links = fs::read_dir(root.path("state/processor/pid")).unwrap();
            links.flatten().any(|entry| link(entry.file_name().to_str().unwrap()))
        });
        kill_supervisors(&root);
        root.cmd("processor", &["sweep"]).expect(0);
        assert_eq!(told(&root, &id)["cause"], "lost", "{name}");
        let _poller = root.poller();
        assert_eq!(root.reaches(job, "stopped")["cause"], "lost", "{name}");
        assert_eq!(root.read("said"), "\n", "{name}: it ran once");
        root.check();
    }
}

#[test]
fn a_job_that_spoilt_its_story_is_lost_when_the_machine_is_restarted() {
    let mut root = root();
    root.cmd("processor", &["info"]).expect(0);
    for (id, spoil) in SPOILS {
        let command = spoiling(&root, spoil, &["status"], "sleep 1000");
        let command = command.replace("$CORKBOARD_NODEJOB", id);
        submit(&root, json!({"command": command, "request_id": id, "dir": "/"}));
        has_spoilt(&root);
        kill_supervisors(&root);
        root.env.push(("CORKBOARD_BOOT_ID".into(), format!("after-{id}")));
        let swept = root.cmd("processor", &["sweep"]).expect(0);
        assert_eq!(
            (told(&root, id)["reason"].as_str(), &*swept.stderr),
            (Some("the machine was restarted"), "")
        );
        fs::remove_file(root.path("said")).unwrap();
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn a_job_that_spoilt_its_stories_and_where_kills_are_noted_can_be_killed() {
    let (root, names) = (root(), ["status", "tasks", "kill", "kill-tasks"]);
    for (id, spoil) in SPOILS {
        let command = spoiling(&root, spoil, &names, "sleep 1000");
        let command = command.replace("$CORKBOARD_NODEJOB", id).replace("rm ", "rm -f ");
        submit(&root, json!({"command": command, "request_id": id, "dir": "/"}));
        has_spoilt(&root);
        root.cmd("processor", &["jobs", id, "kill", "grace=0.1"]).expect(0);
        is_told(&root, id);
        assert_eq!(told(&root, id)["cause"], "killed", "{id}");
        fs::remove_file(root.path("said")).unwrap();
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

/// Also what its other tasks have done is known: each runs once, and has its output.
#[test]
fn a_task_that_spoils_the_stories_of_its_range_takes_nothing_from_the_others() {
    for (name, spoil) in SPOILS {
        println!("{name}");
        let root = root_with(1);
        let poller = root.poller();
        let spoils = spoiling(&root, spoil, &["status", "tasks"], &until_let_go(&root));
        let command = noted(
            &root,
            "ran",
            &format!("echo task $CORKBOARD_TASK; if [ $CORKBOARD_TASK = 1 ]; then {spoils}; fi"),
        );
        let job = root.submit(&json!({"command": command, "array": "0-3", "dir": "/"}));
        has_spoilt(&root);
        poller.end("KILL");
        root.write("go", "");
        let id = ranges(&root).remove(0);
        is_told(&root, &id);
        let _poller = root.poller();
        let end = root.reaches(job, "stopped");
        assert_eq!((&end["status"], &end["tasks"]["good"]), (&json!("good"), &json!(4)), "{end}");
        assert!(runs(&root, "ran").values().all(|runs| *runs == 1), "{:?}", runs(&root, "ran"));
        for task in 0..4 {
            let log =
                root.cmd("scheduler", &["jobs", &job.to_string(), "log", &format!("task={task}")]);
            assert_eq!(log.expect(0).body, format!("task {task}\n"), "{name}");
        }
        until("all is reported", || root.supervisors().is_empty());
        root.check();
    }
}

#[test]
fn a_range_whose_task_spoilt_where_kills_are_noted_can_be_killed() {
    for tasks in [None, Some("task=1")] {
        let (root, names) = (root_with(1), ["kill", "kill-tasks"]);
        let _poller = root.poller();
        let spoils = spoiling(&root, "mkdir FILE", &names, "sleep 1000");
        let command = format!("if [ $CORKBOARD_TASK = 0 ]; then true; else {spoils}; fi");
        let job = root.submit(&json!({"command": command, "array": "0-1", "dir": "/"}));
        has_spoilt(&root);
        let (job_word, mut words) = (job.to_string(), vec!["jobs"]);
        words.extend([job_word.as_str(), "update", "kill=1"].into_iter().chain(tasks));
        root.cmd("scheduler", &words).expect(0);
        let end = root.reaches(job, "stopped");
        assert_eq!(
            (&end["tasks"]["good"], &end["tasks"]["failed"]),
            (&json!(1), &json!(1)),
            "{end}"
        );
        until("all is reported", || root.supervisors().is_empty());
        root.check();
    }
}

/// What ended before is known though the one that spoilt the stories has ended long ago.
#[test]
fn a_range_whose_stories_a_task_spoilt_is_lost_with_its_supervisor_and_no_task_runs_twice() {
    let root = root_with(1);
    let poller = root.poller();
    let spoils = spoiling(&root, SPOILS[1].1, &["status", "tasks"], "true");
    let more = format!("if [ $CORKBOARD_TASK = 0 ]; then {spoils}; else sleep 1000; fi");
    let command = noted(&root, "ran", &more);
    let job = root.submit(&json!({"command": command, "array": "0-1", "dir": "/"}));
    until("the second one runs", || runs(&root, "ran").contains_key(&1));
    poller.end("KILL");
    kill_supervisors(&root);
    root.cmd("processor", &["sweep"]).expect(0);
    let _poller = root.poller();
    let end = root.reaches(job, "stopped");
    assert_eq!((&end["tasks"]["good"], &end["tasks"]["failed"]), (&json!(1), &json!(1)), "{end}");
    assert!(runs(&root, "ran").values().all(|runs| *runs == 1), "{:?}", runs(&root, "ran"));
    root.check();
}

/// Neither where kills of it are noted nor what was asked for says then who it was.
#[test]
fn a_job_that_spoilt_what_is_known_of_it_is_lost_when_its_supervisor_dies() {
    let mut root = root();
    for (id, spoil) in [("directory", SPOILS[1].1), ("pipe", SPOILS[3].1)] {
        for restarted in [false, true] {
            let names = ["kill", "kill-tasks", "request.json"];
            let id = format!("{id}-{restarted}");
            let command = spoiling(&root, spoil, &names, "sleep 1000");
            let command = command.replace("$CORKBOARD_NODEJOB", &id).replace("rm ", "rm -f ");
            submit(&root, json!({"command": command, "request_id": id, "dir": "/"}));
            has_spoilt(&root);
            kill_supervisors(&root);
            if restarted {
                root.env.push(("CORKBOARD_BOOT_ID".into(), format!("after-{id}")));
            }
            let swept = root.cmd("processor", &["sweep"]).expect(0);
            assert_eq!((&told(&root, &id)["cause"], &*swept.stderr), (&json!("lost"), ""), "{id}");
            fs::remove_file(root.path("said")).unwrap();
        }
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
}

#[test]
fn what_a_plain_job_leaves_in_the_place_of_the_story_of_tasks_is_no_trouble() {
    let root = root();
    for (id, spoil) in [SPOILS[1], SPOILS[3], SPOILS[4]] {
        let command = spoiling(&root, spoil, &["tasks"], "true").replace("rm ", "rm -f ");
        let command = command.replace("$CORKBOARD_NODEJOB", id);
        submit(&root, json!({"command": command, "request_id": id, "dir": "/"}));
        assert_eq!(root.ended(id)["status"], "good");
    }
    until("all is reported", || root.supervisors().is_empty());
    assert_clean(&root);
    for (id, _) in [SPOILS[1], SPOILS[3], SPOILS[4]] {
        let job = root.path(&format!("state/processor/job/{id}"));
        let status = fs::File::open(job.join("status")).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(400 * 86_400);
        status.set_modified(long_ago).unwrap();
        let cleaned = root.cmd("poller", &["--once", "-q"]).expect(0);
        assert!(!job.exists(), "{id}: {cleaned:?}");
    }
}
