//! The head from a shell: no server, and perhaps no poller.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use common::head::{CONF, open_root};
use common::{TestRoot, feed, let_pass, program, signal, until, wait_for};
use serde_json::json;

fn new<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["jobs", "new"], words].concat()
}

#[test]
fn wait_makes_the_rounds_itself() {
    let root = TestRoot::new(CONF); // closed: commands need no token
    let done = root.cmd("scheduler", &new(&["--wait", "--", "sh", "-c", "echo hi; exit 7"]));
    assert_eq!((done.code, done.body.as_str()), (7, "hi\n"), "{done:?}");
    assert_eq!(done.stderr, "scheduler: job 1: exit 7\n");
    let done = root.cmd("scheduler", &new(&["--wait", "-q", "--", "echo", "a b", "$HOME"]));
    assert_eq!((done.code, done.body.as_str()), (0, "2\na b $HOME\n"), "{done:?}");
    assert_eq!(done.stderr, "");
    let words = ["--wait", "--retries", "1", "--", "sh", "-c", "echo $CORKBOARD_NODEJOB; exit 1"];
    let done = root.cmd("scheduler", &new(&words));
    assert_eq!(done.code, 1);
    let said: Vec<&str> = done.body.lines().collect();
    assert_eq!(said.len(), 2, "the output of both attempts: {done:?}");
    assert!(said[0].ends_with("-3.1") && said[1].ends_with("-3.2"), "{done:?}");
    assert_eq!(root.card(3).iter().filter(|e| e["event"] == "placed").count(), 2);
    let words = ["--wait", "--timeout", "300ms", "--grace", "1s", "--", "sleep", "100"];
    let done = root.cmd("scheduler", &new(&words));
    assert_eq!((done.code, done.stderr.as_str()), (1, "scheduler: job 4: timed out after 300ms\n"));
    root.check();
}

#[test]
fn commands_that_wait_make_the_rounds_too() {
    let root = TestRoot::new(CONF);
    let job = root.cmd("scheduler", &new(&["-q", "--", "echo", "one"])).expect(0).body;
    let status = root.cmd("scheduler", &["jobs", job.trim(), "status", "wait=90"]).expect(0);
    assert_eq!(status.json()["status"], "good", "{status:?}");
    let job = root.cmd("scheduler", &new(&["-q", "--", "echo", "two"])).expect(0).body;
    let log = root.cmd("scheduler", &["jobs", job.trim(), "log", "follow=1"]).expect(0);
    assert_eq!(log.body, "two\n");
    // What does not end in time is left as it is.
    let job = root.cmd("scheduler", &new(&["-q", "--", "sleep", "60"])).expect(0).body;
    let status = root.cmd("scheduler", &["jobs", job.trim(), "status", "wait=1"]).expect(75);
    assert_eq!(status.json()["state"], "running", "{status:?}");
    root.cmd("scheduler", &["jobs", job.trim(), "update", "kill=1"]).expect(0);
    let status = root.cmd("scheduler", &["jobs", job.trim(), "status", "wait=60"]).expect(1);
    assert_eq!(status.json()["cause"], "killed", "{status:?}");
    // Who only looks is told how it is, and that is no failure.
    root.cmd("scheduler", &["jobs", job.trim(), "status"]).expect(0);
    root.check();
}

#[test]
fn wait_with_a_poller_at_work() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let words = ["--wait", "--", "sh", "-c", "for i in 1 2 3; do echo $i; done; exit 3"];
    let done = root.cmd("scheduler", &new(&words));
    assert_eq!((done.code, done.body.as_str()), (3, "1\n2\n3\n"), "{done:?}");
    root.check();
}

#[test]
fn a_request_from_words() {
    let root = TestRoot::new(CONF);
    let words = [
        "--name",
        "n",
        "--env",
        "A=b=c",
        "--dir",
        "/usr",
        "--cores",
        "2",
        "--memory",
        "1 GiB",
        "--timeout",
        "5m",
        "--grace",
        "3s",
        "--retries",
        "2",
        "--retry-delay",
        "1s",
        "--retry-lost",
        "--priority",
        "-4",
        "--expires",
        "2h",
        "--request-id",
        "r1",
        "--output",
        "split",
        "--held",
        "--",
        "true",
        "--not-ours",
    ];
    let answer = root.cmd("scheduler", &new(&words)).expect(0).json();
    let expected = json!({
        "command": ["true", "--not-ours"], "dir": "/usr", "name": "n", "timeout": "5m",
        "max_termination_time": "3s", "retry_delay": "1s", "expires": "2h", "output": "split",
        "max_retry_count": 2, "priority": -4, "environment": {"A": "b=c"}, "state": "held",
        "requested_resources": {"cores": 2, "memory": "1 GiB"}, "retry_lost": true,
    });
    let record = root.cmd("scheduler", &["jobs", "1"]).expect(0).json();
    assert_eq!(record["request"], expected);
    assert_eq!((&answer["job"], &answer["request_id"]), (&json!(1), &json!("r1")));
    // The current directory is where the job starts; the same id is the same job.
    assert_eq!(root.cmd("scheduler", &new(&["-q", "--", "pwd"])).expect(0).body, "2\n");
    let here = std::env::current_dir().unwrap();
    let record = root.cmd("scheduler", &["jobs", "2"]).expect(0).json();
    assert_eq!(record["request"]["dir"], json!(here));
    assert_eq!(root.cmd("scheduler", &new(&words)).expect(0).json(), answer);
    root.cmd("scheduler", &new(&["--request-id", "r1", "--", "false"])).expect(1);
    root.check();
}

#[test]
fn a_request_from_standard_input_or_an_option() {
    let root = open_root("");
    let text = r#"{"command": ["true"]}"#;
    assert_eq!(root.cmd_in("scheduler", &["jobs", "new"], text).expect(0).json()["job"], 1);
    assert_eq!(root.cmd("scheduler", &["job", "new", "-q", "-d", text]).expect(0).body, "2\n");
    root.write("request.json", text);
    let file = format!("@{}", root.path("request.json").display());
    assert_eq!(root.cmd("scheduler", &["jobs/new", "-q", "-d", &file]).expect(0).body, "3\n");
    assert_eq!(root.cmd_in("scheduler", &["jobs", "new", "-q", "-d", "@-"], text).body, "4\n");
    let array = format!("[{text},{text}]");
    assert_eq!(root.cmd_in("scheduler", &["jobs", "new", "-q"], &array).body, "5\n6\n");
    // Other commands leave standard input alone: the loop sees every line.
    let script = format!(
        "printf '1\\n2\\n3\\n' | while read n; do {} jobs $n status; done",
        root.path("cgi-bin/scheduler").display()
    );
    let mut shell = std::process::Command::new("sh");
    let looped = shell.args(["-c", &script]).env("CORKBOARD_ROOT", &root.dir).output().unwrap();
    let text = String::from_utf8_lossy(&looped.stdout).into_owned();
    assert_eq!(text.lines().count(), 3, "{text}");
    root.check();
}

#[test]
fn exit_codes() {
    let root = TestRoot::new(CONF);
    for (words, input, code, part) in [
        (&["jobs"] as &[&str], "", 0, ""),
        (&["jobs", "new", "-d", "{}"], "", 1, "the request needs a command"),
        (&["jobs", "7"], "", 1, "scheduler: there is no job 7"),
        (&["jobs", "new"], "not json", 1, "the body is not JSON"),
        (&["jobs", "new", "-d", "@/no/such"], "", 1, "/no/such: no such file or directory"),
        (&["jobs", "limit=x"], "", 1, "limit must be a whole number in range"),
        (&["jobs", "colour=red"], "", 1, "unknown query parameter \"colour\""),
        (&["jobs", "-X", "DELETE"], "", 1, "this path has only GET"),
        (&[], "", 2, ""),
        (&["no", "such", "words"], "", 2, "no such word \"no\": did you mean \"nodes\"?"),
        (&["xyz"], "", 2, "no such words; --help lists them"),
        (&["jobs", "--nonsense"], "", 2, "unknown option --nonsense"),
        (&["jobs", "-d"], "", 2, "-d needs a value"),
        (&["jobs", "-X", "BREW"], "", 2, "no such method \"BREW\""),
        (&["jobs", "new", "--cores"], "", 2, "--cores needs a value"),
        (&["jobs", "new", "--wait"], "", 2, "required"),
        (
            &["jobs", "new", "--cores", "x", "--", "true"],
            "",
            1,
            "--cores: \"x\" is not a whole number",
        ),
        (&["jobs", "new", "--env", "x", "--", "true"], "", 1, "is not NAME=VALUE"),
    ] {
        let answer = root.cmd_in("scheduler", words, input);
        assert_eq!(answer.code, code, "{words:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{words:?}: {answer:?}");
        assert!(code != 1 || answer.body.is_empty(), "{words:?}: {answer:?}");
    }
    // 75: a node that is full or gone now may do it later.
    let run =
        ["jobs", "run", r#"json_data={"command":["true"],"requested_resources":{"cores":99}}"#];
    let later = root.cmd("nodemgr", &run).expect(75);
    assert_eq!(later.stderr, "nodemgr: no node has room for 99 cores now; name one with node=\n");
    let node = r#"{"name":"gone","uri":"http://127.0.0.1:9"}"#;
    root.cmd("scheduler", &["nodes", "new", "-d", node]).expect(0);
    root.cmd("nodemgr", &["gone", "jobs"]).expect(75);
    root.check();
}

#[test]
fn a_copy_of_the_programs_is_a_root() {
    let root = TestRoot::new("");
    for dir in ["cgi-bin", "bin"] {
        std::fs::create_dir_all(root.path("copy").join(dir)).unwrap();
    }
    std::fs::copy(program("scheduler"), root.path("copy/cgi-bin/scheduler")).unwrap();
    std::fs::copy(program("processor"), root.path("copy/cgi-bin/processor")).unwrap();
    std::fs::copy(program("poller"), root.path("copy/poller")).unwrap();
    let scheduler = root.path("copy/cgi-bin/scheduler");
    let wait = || {
        wait_for(common::SOON, || {
            let mut command = std::process::Command::new(&scheduler);
            command.args(["jobs", "new", "--wait", "--", "echo", "here"]);
            command.env_remove("CORKBOARD_ROOT");
            command.output().map_err(|e| e.to_string()) // "text file busy" just after the copy
        })
    };
    let output = wait();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("job 1 waits") && said.contains("bin/poller: no such file"), "{said}");
    std::fs::rename(root.path("copy/poller"), root.path("copy/bin/poller")).unwrap();
    let output = wait();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "here\n", "{output:?}");
    assert!(root.exists("copy/state/scheduler/done/0/2.job"));
}

#[test]
fn what_a_command_that_waits_ends_with_is_what_the_job_ended_with() {
    let root = TestRoot::new(CONF);
    let failing = root.cmd("scheduler", &new(&["-q", "--", "sh", "-c", "exit 41"])).expect(0).body;
    root.cmd("scheduler", &["jobs", failing.trim(), "status", "wait=60"]).expect(41);
    let script = "exit $CORKBOARD_TASK";
    let array = ["--array", "0-3", "-q", "--", "sh", "-c", script];
    let array = root.cmd("scheduler", &new(&array)).expect(0).body;
    let of_task = |task: &str| ["jobs", array.trim(), "status", "wait=60", task].map(String::from);
    for (task, code) in [("task=0", 0), ("task=3", 3)] {
        let words = of_task(task);
        root.cmd("scheduler", &words.each_ref().map(String::as_str)).expect(code);
    }
    root.check();
}

#[test]
fn a_job_is_given_what_its_submitter_has() {
    let mut root = TestRoot::new(CONF);
    root.env.push(("MINE".into(), "of the caller".into()));
    root.env.push(("OTHER".into(), "of the caller".into()));
    root.env.push(("CORKBOARD_TASK".into(), "77".into()));
    let print = "cat; echo \"$MINE; $OTHER; ${CORKBOARD_TASK-none}\"";
    let words = ["--wait", "--stdin", "--export", "--env", "OTHER=given", "--", "sh", "-c", print];
    let done = root.cmd_in("scheduler", &new(&words), "two\nlines\n").expect(0);
    assert_eq!(done.body, "two\nlines\nof the caller; given; none\n");
    // Neither comes without being asked for.
    let done = root.cmd_in("scheduler", &new(&["--wait", "--", "sh", "-c", print]), "x").expect(0);
    assert_eq!(done.body, "; ; none\n");
    let words = new(&["--stdin", "--", "cat"]);
    let mut command = root.base("scheduler");
    command.args(&words);
    let refused = feed(&mut command, b"\xff");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("other data goes with --file"), "{refused:?}");
    root.check();
}

#[test]
fn what_no_node_could_ever_run_is_warned_of() {
    let root = open_root("");
    let huge = ["-q", "--cores", "64", "--", "true"];
    // Nothing is known of the node yet.
    assert_eq!(root.cmd("scheduler", &new(&huge)).expect(0).stderr, "");
    let _poller = root.poller();
    root.reason(1, "no node has 64 cores");
    let said = root.cmd("scheduler", &new(&huge)).expect(0);
    assert_eq!(said.stderr, "scheduler: job 2: no node has 64 cores: it waits until one has\n");
    let request = json!({"command": "true", "requested_resources": {"cores": 64}}).to_string();
    let answer = root.cgi("POST", "/scheduler/jobs/new", &[], request.as_bytes()).expect(201);
    assert_eq!(answer.json()["warning"], "no node has 64 cores");
    let small = json!({"command": "true", "requested_resources": {"cores": 1}}).to_string();
    let answer = root.cgi("POST", "/scheduler/jobs/new", &[], small.as_bytes()).expect(201);
    assert_eq!(answer.json().get("warning"), None);
    for job in 1..=3 {
        root.update(job, "kill=1").expect(0);
    }
    root.reaches(4, "stopped");
    root.check();
}

#[test]
fn who_interrupts_a_wait_is_told_how_to_go_on() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    for words in [
        new(&["--wait", "--", "sleep", "60"]),
        vec!["jobs", "1", "log", "follow=1"],
        vec!["jobs", "1", "status", "wait=60"],
    ] {
        let mut command = root.base("scheduler");
        command.args(&words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id().try_into().unwrap();
        if words.contains(&"--wait") {
            until("the job runs", || root.exists("state/scheduler/running/1.job"));
            root.reaches(1, "running");
        }
        // It may have been told before it listens: then it ends without a word, and is tried again.
        until("it listens", || {
            let status = root_status(pid);
            status.lines().any(|line| line.starts_with("Threads:") && !line.ends_with("\t1"))
        });
        signal(pid, "INT");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(2), "{words:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("scheduler: job 1 goes on: `scheduler jobs 1` shows it"), "{said}");
    }
    root.reaches(1, "running");
    root.update(1, "kill=1");
    root.reaches(1, "stopped");
    root.check();
}

/// As `nohup` and a shell's `&` start it.
#[test]
fn who_ignores_interrupts_goes_on_waiting_without_a_word() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let go = root.path("go").display().to_string();
    let script = format!("until [ -e {go} ]; do sleep 0.05; done; exit 3");
    let plain = root.base("scheduler");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(plain.get_program());
    command.args(new(&["--wait", "--", "sh", "-c", &script])).stdin(Stdio::null());
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the job runs", || root.exists("state/scheduler/running/1.job"));
    root.reaches(1, "running");
    let fds = format!("/proc/{}/fd", child.id());
    until("it waits for the job, and listens if it does at all", || {
        let all = std::fs::read_dir(&fds).unwrap().flatten();
        let mut links = all.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.any(|link| link.to_string_lossy().contains("inotify"))
    });
    signal(child.id().try_into().unwrap(), "INT");
    let_pass(std::time::Duration::from_millis(300)); // it would have ended, or said so
    root.write("go", "");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "scheduler: job 1: exit 3\n");
    root.check();
}

fn root_status(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

#[test]
fn nodes_are_drained_by_a_word() {
    let root = open_root("");
    let update = |word| root.cmd("scheduler", &["nodes", "localhost", "update", word]);
    assert_eq!(update("drain=1").expect(0).json()["drain"], true);
    assert_ne!(update("drain=0").expect(0).json()["drain"], true);
    assert!(update("drain=maybe").expect(1).stderr.contains("drain must be 1 or 0"));
    let both = ["nodes", "localhost", "update", "drain=1", "-d", "{}"];
    assert!(root.cmd("scheduler", &both).expect(1).stderr.contains("not both"));
    let by_http = root.cgi("POST", "/scheduler/nodes/localhost/update?drain=1", &[], b"");
    assert_eq!(by_http.expect(200).json()["drain"], true);
}

#[test]
fn many_jobs_are_asked_about_in_one_request() {
    let root = open_root("");
    for name in ["one", "two", "three"] {
        root.cmd("scheduler", &["new", "job", "--name", name, "--held", "--", "true"]).expect(0);
    }
    let ask = |query: &str| {
        root.cgi("GET", &format!("/scheduler/jobs/status{query}"), &[], b"").expect(200).json()
    };
    let all = ask("?ids=3,1-2,9");
    let jobs: Vec<u64> =
        all.as_array().unwrap().iter().map(|one| one["job"].as_u64().unwrap()).collect();
    assert_eq!(jobs, [3, 1, 2, 9]);
    assert_eq!((&all[0]["state"], &all[3]["code"]), (&json!("held"), &json!(404)));
    assert_eq!(all[1]["reason"], root.status(1)["reason"]);
    assert_eq!(ask("?limit=2")[0]["job"], 3);
    for wrong in ["?ids=1-", "?ids=x", "?ids=5-2", "?ids=1-1000000000"] {
        root.cgi("GET", &format!("/scheduler/jobs/status{wrong}"), &[], b"").expect(400);
    }
}
