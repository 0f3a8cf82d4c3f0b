//! The head from a shell: no server, and perhaps no poller.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::head::{CONF, open_root};
use common::{TestRoot, program, wait_for};
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
    let status = root.cmd("scheduler", &["jobs", job.trim(), "status", "wait=1"]).expect(0);
    assert_eq!(status.json()["state"], "running", "{status:?}");
    root.cmd("scheduler", &["jobs", job.trim(), "update", "kill=1"]).expect(0);
    let status = root.cmd("scheduler", &["jobs", job.trim(), "status", "wait=60"]).expect(0);
    assert_eq!(status.json()["cause"], "killed", "{status:?}");
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
fn every_program_has_help() {
    let root = TestRoot::new(CONF);
    for (name, words) in [
        (
            "scheduler",
            &["jobs N status", "DELETE queue N", "check [repair=]", "tokens new", "Exit codes"]
                as &[&str],
        ),
        ("processor", &["jobs ID log", "Exit codes"]),
        ("nodemgr", &["jobs run", "NAME jobs ID kill"]),
        ("node", &["jobs run"]),
        ("poller", &["--once", "--step", "--pace", "SIGTERM"]),
    ] {
        if !program(if name == "node" { "nodemgr" } else { name }).exists() {
            panic!("{name} is not built");
        }
        let help = root.cmd(name, &["--help"]).expect(0);
        for word in words {
            assert!(help.body.contains(word), "{name}: {word} in {}", help.body);
        }
        assert_eq!(help.stderr, "");
    }
    let help = root.cmd("scheduler", &new(&["--help"])).expect(0).body;
    for option in ["--wait", "--quiet", "--retry-lost", "--held", "--expires"] {
        assert!(help.contains(option), "{option} in {help}");
    }
    assert!(!root.exists("state"), "help makes nothing");
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
