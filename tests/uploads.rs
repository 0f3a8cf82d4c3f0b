//! Files that come with a job: on the disk as they arrive, at the head and at the node, and what it
//! leaves the same way back. No program holds them in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/forms.rs"]
mod forms;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::head::{drain_localhost, node_reaches, open_root, register};
use common::{SOON, TestRoot, signal, until, wait_for};
use forms::{END, FORM, NEW, age, begin, file, left_behind, number, part, send, start};
use net::Server;
use proxy::{Act, Proxy};
use serde_json::{Value, json};

/// What a large file has...
const LARGE: u64 = 96 << 20;

/// ...and the address space that a program may have beside its own text while it passes.
const MOST: u64 = 16 << 20;

/// How long a large file may take on its way on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A large file that no compression makes small.
fn large_file(root: &TestRoot) -> PathBuf {
    let path = root.path("large");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..LARGE / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
    path
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_string()
}

/// What a static program's file maps: the lengths of its segments in memory.
fn mapped(program: &str) -> u64 {
    const LOAD: u32 = 1;
    let file = fs::read(common::program(program)).unwrap();
    let short = |at: usize| u64::from(u16::from_le_bytes(file[at..at + 2].try_into().unwrap()));
    let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let (table, size, count) = (long(32), short(54), short(56));
    let headers = (0..count).map(|index| (table + index * size) as usize);
    let loads = headers
        .filter(|at| u32::from_le_bytes(file[*at..at + 4].try_into().unwrap()) == LOAD)
        .map(|at| long(at + 40));
    loads.sum()
}

/// Words before one of these programs that let it have so much more.
fn limit(programs: &[&str]) -> Vec<String> {
    let most = programs.iter().map(|program| mapped(program)).max().unwrap() + MOST;
    vec!["prlimit".into(), format!("--as={most}")]
}

/// What a job with the large file does: tells what it has read, and leaves a copy.
fn reading() -> Value {
    json!({"command": "sha256sum < large && cp large copy"})
}

fn read_by(root: &TestRoot, job: u64) -> String {
    let status = wait_for(LONG, || {
        let status = root.status(job);
        if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(status["status"], "good", "{status} {}", root.log(job));
    root.log(job).split(' ').next().unwrap().to_string()
}

/// The most memory that a process has had.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_large_file_passes_in_pieces_without_a_server() {
    let mut root = open_root("");
    let large = large_file(&root);
    let sum = sha256(&large);
    root.wrap = limit(&["poller"]);
    let poller = root.poller();
    root.wrap = limit(&["scheduler"]);
    let job = number(send(&root, &reading(), &large));
    assert_eq!(read_by(&root, job), sum);
    // Back as a command and by CGI.
    let words = ["jobs", &job.to_string(), "files", "copy"];
    root.start_into("back", "scheduler", &words).wait().unwrap();
    assert_eq!(sha256(&root.path("back")), sum);
    let path = format!("/scheduler/jobs/{job}/files/copy");
    let mut child = start(root.cgi_command("GET", &path, &[]));
    let mut answer = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    assert!(child.wait().unwrap().success());
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    fs::write(root.path("back"), &answer[head + 4..]).unwrap();
    assert_eq!(sha256(&root.path("back")), sum);
    // Given by a word.
    let large = large.display().to_string();
    let words = ["jobs", "new", "--file", &large, "-q", "--", "sha256sum", "large"];
    let job = root.cmd("scheduler", &words).expect(0).body.trim().parse().unwrap();
    assert_eq!(read_by(&root, job), sum);
    assert!(peak(poller.pid()) < MOST, "{}", peak(poller.pid()));
    assert!(left_behind(&root).is_empty(), "{:?}", left_behind(&root));
    root.check();
}

/// A head and a node, each with a server whose programs have little room.
struct Two {
    head: TestRoot,
    node: TestRoot,
    servers: [Server; 2],
}

impl Two {
    fn new(wrap: &[String]) -> Two {
        let (head, node) = (open_root("request_timeout = 10s\n"), open_root("max_log = 1 GiB\n"));
        let servers = [&head, &node].map(|root| Server::start_as(&root.dir, wrap, None));
        drain_localhost(&head);
        let uri = format!("http://127.0.0.1:{}", servers[1].port);
        register(&head, &json!({"name": "far", "uri": uri}));
        Two { head, node, servers }
    }

    fn curl(&self, args: &[&str], path: &str) -> String {
        let url = format!("http://127.0.0.1:{}/cgi-bin{path}", self.servers[0].port);
        let output = Command::new("curl").args(["-sSf", "-m", "120"]).args(args).arg(url).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn submit(&self, job: &Value, file: &Path) -> u64 {
        let (job, file) = (format!("job={job}"), format!("file=@{}", file.display()));
        // The file comes first.
        let answer = self.curl(&["-F", &file, "-F", &job], NEW);
        serde_json::from_str::<Value>(&answer).unwrap()["job"].as_u64().unwrap()
    }

    fn check(&self) {
        for root in [&self.head, &self.node] {
            assert!(left_behind(root).is_empty(), "{:?}", left_behind(root));
            root.check();
        }
    }
}

#[test]
fn a_large_file_passes_in_pieces_through_two_servers() {
    let mut two = Two::new(&limit(&["scheduler", "processor"]));
    let large = large_file(&two.head);
    let sum = sha256(&large);
    two.head.wrap = limit(&["poller"]);
    let poller = two.head.poller();
    two.head.wrap = Vec::new();
    node_reaches(&two.head, "far", "connected");
    let job = two.submit(&reading(), &large);
    assert_eq!(read_by(&two.head, job), sum);
    let back = two.head.path("back");
    let path = format!("/scheduler/jobs/{job}/files/copy");
    two.curl(&["-o", back.to_str().unwrap()], &path);
    assert_eq!(sha256(&back), sum);
    assert!(peak(poller.pid()) < MOST, "{}", peak(poller.pid()));
    // What a job prints, too.
    let job = two.submit(&json!({"command": "cat large"}), &large);
    two.head.wrap = limit(&["scheduler"]);
    let words = ["jobs", &job.to_string(), "log", "follow=1"];
    two.head.start_into("back", "scheduler", &words).wait().unwrap();
    two.head.wrap = Vec::new();
    assert_eq!(sha256(&back), sum);
    // By hand on a node that has a name.
    let file = format!("file=@{}", large.display());
    let job = format!("job={}", json!({"command": "sha256sum large", "request_id": "mine"}));
    two.curl(&["-F", &job, "-F", &file], "/nodemgr/far/jobs/new");
    let log = wait_for(LONG, || {
        let log = two.curl(&[], "/nodemgr/far/jobs/mine/log");
        if log.is_empty() { Err("no log yet".to_string()) } else { Ok(log) }
    });
    assert_eq!(log.split(' ').next().unwrap(), sum);
    two.node.ended("mine");
    two.check();
}

#[test]
fn a_node_that_dies_while_a_file_arrives_is_sent_it_again() {
    let two = Two::new(&[]);
    let large = large_file(&two.head);
    let sum = sha256(&large);
    let _poller = two.head.poller();
    node_reaches(&two.head, "far", "connected");
    let job = two.submit(&reading(), &large);
    until("it arrives", || !left_behind(&two.node).is_empty());
    // Not its server.
    let is_ours = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "processor")
    };
    let arriving: Vec<i32> = two.node.processes().into_iter().filter(is_ours).collect();
    arriving.iter().for_each(|pid| signal(*pid, "KILL"));
    assert!(!left_behind(&two.node).is_empty());
    let status = wait_for(LONG, || {
        let status = two.head.status(job);
        if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(
        (&status["status"], status["attempts"].as_u64()),
        (&json!("good"), None),
        "{status}"
    );
    assert_eq!(read_by(&two.head, job), sum);
    two.head.check();
    two.node.check();
    // What it had written is found by the clean-up.
    let left = left_behind(&two.node);
    left.iter().for_each(|path| age(path));
    two.node.cmd("poller", &["--once", "-q"]).expect(0);
    two.check();
}

#[test]
fn files_that_take_long_keep_nothing_else_waiting() {
    // Longer than anything here is waited for.
    let (head, node) = (open_root("request_timeout = 100s\n"), open_root(""));
    let server = Server::start(&node.dir);
    let proxy = Proxy::start(server.port);
    drain_localhost(&head);
    register(&head, &json!({"name": "far", "uri": format!("http://127.0.0.1:{}", proxy.port)}));
    head.write("in", "from the file\n");
    let poller = head.poller();
    node_reaches(&head, "far", "connected");
    let arrives = "POST /cgi-bin/processor/jobs/new";
    proxy.rule(arrives, Act::SwallowReply, 1);
    let first = number(send(&head, &json!({"command": "cat in; sleep 1000"}), &head.path("in")));
    until("it is on its way", || proxy.count(arrives) == 1);
    let plain = head.submit(&json!({"command": "echo plain"}));
    head.reaches(plain, "stopped");
    assert_eq!(head.log(plain), "plain\n");
    head.reaches(first, "running");
    head.update(first, "kill=1").expect(0);
    assert_eq!(head.reaches(first, "stopped")["cause"], "killed");
    // Those behind them wait, and are sent by the next poller; the end of this one does not wait.
    let last = number(send(&head, &json!({"command": "cat in"}), &head.path("in")));
    head.reaches(last, "placed");
    assert!(poller.end("TERM").success());
    let _poller = head.poller();
    head.reaches(last, "stopped");
    assert_eq!(head.log(last), "from the file\n");
    head.check();
    node.check();
}

#[test]
fn a_file_is_told_from_others_by_what_it_holds_and_kept_as_it_was_sent() {
    let root = open_root("");
    let send = |content: &str| {
        let job = part(
            "name=\"job\"",
            r#"{"command": "cat in; echo more >> in; exit 1", "request_id": "r", "max_retry_count": 1}"#,
        );
        let form = format!("{}{}{job}{END}", file("in", content), file("in2", "2"));
        root.cgi("POST", NEW, &[FORM], form.as_bytes())
    };
    let job = number(send("one\n"));
    send("one\n").expect(200);
    assert!(send("two\n").expect(422).body.contains("with other files"));
    assert!(left_behind(&root).is_empty());
    let _poller = root.poller();
    root.reaches(job, "stopped");
    // The second attempt has what was sent, not what the first one made of it.
    assert_eq!(root.log(job), "one\n");
    send("one\n").expect(200);
    send("two\n").expect(422);
    root.check();
}

/// A repeat comes while the job has put there what nobody can sync: a FIFO that nobody writes to, a
/// link that leads nowhere.
#[test]
fn what_a_job_puts_beside_its_files_holds_up_no_repeat() {
    let root = open_root("");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", root.path("go").display());
    let command = format!("mkfifo pipe; ln -s /nowhere link; chmod 0 in; touch put; {wait}");
    let job = json!({"command": command, "request_id": "r"}).to_string();
    let body = [part("name=\"job\"", &job), file("in", "data"), END.into()].concat();
    let path = "/processor/jobs/new";
    root.cgi("POST", path, &[FORM], body.as_bytes()).expect(201);
    until("it has put them there", || root.exists("state/processor/job/r/work/put"));
    let mut repeat = begin(&root, path, body.len(), body.as_bytes());
    let ended = wait_for(SOON, || repeat.try_wait().unwrap().ok_or("it hangs".to_string()));
    assert!(ended.success());
    root.cgi("POST", path, &[FORM], body.as_bytes()).expect(200);
    root.write("go", "");
    assert_eq!(root.ended("r")["status"], "good");
    root.check();
}

#[test]
fn files_are_given_by_words() {
    let root = open_root("max_upload = 1 KiB\n");
    fs::create_dir(root.path("in")).unwrap();
    root.write("in/a b", "from a\n");
    root.write("in/b", "from b\n");
    root.write("large", &"x".repeat(2000));
    let path = |name: &str| root.path(name).display().to_string();
    let (a, b, large) = (path("in/a b"), path("in/b"), path("large"));
    let submit = |words: &[&str]| {
        let words = [&["jobs", "new", "-q"], words].concat();
        root.cmd("scheduler", &words)
    };
    // In a directory of its own, unless another one is named.
    let job = submit(&["--file", &a, "--file", &b, "--", "cat", "a b", "b"]).expect(0).body;
    let (_poller, job) = (root.poller(), job.trim().parse().unwrap());
    root.reaches(job, "stopped");
    assert_eq!(root.log(job), "from a\nfrom b\n");
    let dir = root.dir.display().to_string();
    let job = submit(&["--file", &a, "--dir", &dir, "--", "pwd"]).expect(0).body;
    let job = job.trim().parse().unwrap();
    root.reaches(job, "stopped");
    assert_eq!(root.log(job).trim(), dir);
    for (words, part) in [
        (["--file", &large], "the files have more than 1024 bytes (setting max_upload)"),
        (["--file", "/none"], "/none: no such file"),
        (["--file", "/"], "names no file"),
        (["--file", &dir], "is a directory"),
    ] {
        let answer = submit(&[&words[..], &["--", "true"]].concat()).expect(1);
        assert!(answer.stderr.contains(part), "{answer:?}");
    }
    submit(&["--file", &a, "--file", &a, "--", "true"]).expect(1);
    assert!(left_behind(&root).is_empty());
    root.check();
}
