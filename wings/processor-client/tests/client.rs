//! The client against a real node behind a real server: the root is made as a person would make it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A built program. Those of the core are beside the client: `cargo build` makes them.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_processor-client")).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

/// A node with a server and a token.
struct Node {
    dir: PathBuf,
    httpd: Option<Child>,
    port: u16,
    token: String,
}

impl Node {
    fn new(name: &str) -> Node {
        let dir =
            std::env::temp_dir().join(format!("processor-client-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("cgi-bin")).unwrap();
        fs::create_dir_all(dir.join("www")).unwrap();
        symlink(program("processor"), dir.join("cgi-bin/processor")).unwrap();
        symlink("../cgi-bin", dir.join("www/cgi-bin")).unwrap();
        fs::write(dir.join("corkboard.conf"), "cores = 4\nmemory = 1 GiB\nlinger = 0\n").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut node = Node { dir, httpd: None, port, token: String::new() };
        let made = node.processor(&["tokens", "new", "role=user", "user=ada", "-q"]);
        node.token = String::from_utf8(made.stdout).unwrap().trim().to_string();
        node.serve();
        node
    }

    fn serve(&mut self) {
        let address = format!("127.0.0.1:{}", self.port);
        let httpd = Command::new("busybox")
            .args(["httpd", "-f", "-p", &address, "-h"])
            .arg(self.dir.join("www"))
            .env_clear()
            .env("CORKBOARD_ROOT", &self.dir)
            .process_group(0)
            .spawn()
            .expect("busybox is needed");
        self.httpd = Some(httpd);
        until("the server answers", || TcpStream::connect(&address).is_ok());
    }

    /// Ends the server and every request that it is answering.
    fn cut(&mut self) {
        let Some(mut httpd) = self.httpd.take() else { return };
        let group = format!("-{}", httpd.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = httpd.wait();
    }

    fn processor(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.dir.join("cgi-bin/processor"));
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CORKBOARD_ROOT", &self.dir);
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn client(&self) -> Command {
        let mut command = Command::new(program("processor-client"));
        command.env_clear().env("CORKBOARD_TOKEN", &self.token);
        command.args(["--url", &format!("http://127.0.0.1:{}", self.port), "--store"]);
        command.arg(self.dir.join("store")).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        command
    }

    /// Has these commands carried out: the exit code, the answers, what was said.
    fn run(&self, commands: &str) -> (i32, Vec<Value>, String) {
        let mut child = self.client().spawn().unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        println!("{commands}{out}{err}");
        let answers = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), answers, err)
    }

    fn store(&self) -> String {
        fs::read_to_string(self.dir.join("store")).unwrap_or_default()
    }

    fn check(&self) {
        until("nothing runs", || {
            self.processor(&["query_running"]).stdout == b"{\"dataTable\":[]}\n"
        });
        let checked = self.processor(&["check"]);
        assert!(checked.status.success() && checked.stdout.is_empty(), "{checked:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cut();
        let ended = |out: Output| String::from_utf8_lossy(&out.stdout).into_owned();
        for id in ended(self.processor(&["jobs", "state=running"])).lines() {
            self.processor(&["jobs", id, "kill", "grace=0"]);
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn commands_are_carried_out_in_order_and_what_has_ended_is_forgotten() {
    let node = Node::new("order");
    let (code, answers, said) = node.run(
        "# one that ends by itself, and one that is stopped\n\
         start --name short --env WHOM=ada --dir /tmp sh -c 'echo to $WHOM; pwd >&2; exit 3'\n\
         start --name long sh -c 'echo ready; exec sleep 100.5'\n\
         wait short\n\
         query short lines=1-1 none\n\
         running\n\
         query long tail=0 none\n\
         stop long\n\
         query long\n\
         stop long\n\
         start /no/such/program\n\
         stop nobody\n\
         query short bytes=0-1 none\n",
    );
    assert_eq!(code, 1);
    let [short, long, waited, asked, running, _, stopped, over, first] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!((&short["finished"], &short["output"]), (&json!(false), &json!("")));
    let ended = json!({"output": "to ada\n", "errorOutput": "/tmp\n", "running": false, "exitCode": 3, "reason": "exit 3"});
    assert_eq!(*waited, ended);
    assert_eq!((&asked["output"], &asked["errorOutput"]), (&json!("to ada\n"), &json!("")));
    let runs =
        json!([{"pid": long["pid"], "startingTimeStamp": long["timeStamp"], "processName": "sh"}]);
    assert_eq!(running["dataTable"], runs);
    assert_eq!(stopped["errorOutput"], "");
    assert_eq!((&over["running"], &over["reason"]), (&json!(false), &json!("killed by ada")));
    assert_eq!(first["output"], "to");
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("processor-client: line 10: ")
            && said[0].contains("does not run any more")
    );
    assert!(said[1].contains("line 11: cannot start \"/no/such/program\""), "{said:?}");
    assert!(said[2].contains("line 12: \"nobody\" is nothing that is remembered"), "{said:?}");
    assert_eq!(node.store(), "");
    node.check();
}

#[test]
fn what_was_started_is_known_to_the_next_client() {
    let mut node = Node::new("next");
    let (code, answers, _) = node.run("start --name job sh -c 'until [ -e go ]; do sleep 0.02; done; echo done'\nstart --name other sleep 0.01\n");
    assert_eq!((code, answers.len()), (0, 2));
    let job = &answers[0];
    until("the other has ended", || node.run("").0 == 0 && node.store().lines().count() == 1);
    assert!(
        node.store().contains("\"name\":\"job\"")
            && node.store().contains(&format!("\"pid\":{}", job["pid"]))
    );
    let (code, _, said) = node.run("start --name job true\n");
    assert!(code == 1 && said.contains("was started before"), "{said}");
    // The server is started anew while it is waited for.
    let mut child = node.client().spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"running\nwait job\n").unwrap();
    sleep(Duration::from_millis(300));
    node.cut();
    node.serve();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
    fs::write(home.join("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    fs::remove_file(home.join("go")).unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let waited: Value = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&waited["output"], &waited["exitCode"]), (&json!("done\n"), &json!(0)));
    assert_eq!(node.store(), "");
    // A start of which nothing was heard is sent again, and is no second process.
    let started = node.run("start --name lost sleep 100.5\n").1;
    let store = node.store();
    let mut line: Value = serde_json::from_str(store.trim()).unwrap();
    let entry = line.as_object_mut().unwrap();
    entry.remove("pid");
    entry.remove("startingTimeStamp");
    fs::write(node.dir.join("store"), format!("{line}\n")).unwrap();
    let (code, answers, _) = node.run("running\nstop lost\n");
    assert_eq!(code, 0);
    let table = answers[0]["dataTable"].as_array().unwrap();
    assert_eq!((table.len(), &table[0]["pid"]), (1, &started[0]["pid"]));
    node.check();
}

#[test]
fn nothing_is_forgotten_that_runs_and_a_name_is_free_once_it_has_ended() {
    let mut node = Node::new("names");
    let is_idle = |node: &Node| {
        let ids = node.processor(&["jobs", "state=running"]);
        ids.stdout.is_empty()
    };
    for _ in 0..3 {
        let (code, _, said) = node.run("start --name night sleep 0.2\n");
        assert_eq!(code, 0, "{said}");
        until("it has ended", || is_idle(&node));
    }
    // Another user, who does not see what runs, makes nobody forget it.
    node.run("");
    assert_eq!(node.run("start --name long sleep 100.7\n").0, 0);
    let ada = node.token.clone();
    let made = node.processor(&["tokens", "new", "role=user", "user=ben", "-q"]);
    node.token = String::from_utf8(made.stdout).unwrap().trim().to_string();
    node.run("running\n");
    // Nor does who is not let in, of what was sent and not answered.
    let line: Value = serde_json::from_str(node.store().trim()).unwrap();
    let mut lost = line.clone();
    lost.as_object_mut().unwrap().remove("pid");
    lost.as_object_mut().unwrap().remove("startingTimeStamp");
    fs::write(node.dir.join("store"), format!("{lost}\n")).unwrap();
    node.token = "cb_none_such".into();
    assert_eq!(node.run("wait long\n").0, 1);
    node.token = ada;
    // One that is refused keeps no other, and one that waits keeps nothing from being stopped.
    let mut refused = lost.clone();
    refused["name"] = json!("refused");
    refused["request"]["dir"] = json!("relative");
    refused["request"]["request_id"] = json!("refused");
    fs::write(node.dir.join("store"), format!("{lost}\n{refused}\n")).unwrap();
    let (code, answers, said) = node.run("start echo hi\nwait\nstop long\n");
    assert_eq!((code, answers.len()), (0, 3), "{said}");
    assert!(said.contains("absolute"), "{said}");
    assert_eq!(node.store(), "");
    node.check();
}

#[test]
fn who_is_not_let_in_or_finds_nobody_is_told() {
    let mut node = Node::new("refused");
    let token = std::mem::replace(&mut node.token, "wrong".into());
    let (code, _, said) = node.run("running\n");
    assert!(code == 1 && said.contains("CORKBOARD_TOKEN"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    // By a file.
    let file = node.dir.join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let mut command = node.client();
    let words = ["--token-file", file.to_str().unwrap(), "-"];
    let mut child = command.args(words).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"running\n").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    node.cut();
    let (code, _, said) = node.run("start true\n");
    assert!(code == 75 && said.contains("does not answer"), "{said}");
    assert_eq!(node.store().lines().count(), 1, "it may have been started: {}", node.store());
    let help = Command::new(program("processor-client")).arg("--help").output().unwrap();
    assert!(String::from_utf8_lossy(&help.stdout).contains("start --name build"));
}
