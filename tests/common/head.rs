//! Ways to talk to the head: the same request bare and through a web server, pollers that end with
//! the test, and what must hold after every test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use serde_json::Value;

use super::{Answer, Httpd, SOON, TestRoot, signal, wait_for};

/// Small enough that tests can fill it, and quick to notice what no wake-up told.
pub const CONF: &str = "cores = 2\nmemory = 4 GiB\nscan_every = 1s\n";

/// An open root.
pub fn open_root(more: &str) -> TestRoot {
    let root = TestRoot::new(&format!("{CONF}{more}"));
    root.open();
    root
}

/// Runs a test twice, each time in a root of its own: bare CGI, and through a web server.
pub fn both_ways(more: &str, test: impl Fn(&TestRoot, &Door)) {
    let root = open_root(more);
    test(&root, &Door::Bare(&root));
    let root = open_root(more);
    let httpd = root.httpd();
    test(&root, &Door::Web(&httpd));
}

/// Registers a node.
pub fn register(root: &TestRoot, node: &Value) {
    root.cmd_in("scheduler", &["nodes", "new"], &node.to_string()).expect(0);
}

/// Lets no more jobs be placed here.
pub fn drain_localhost(root: &TestRoot) {
    let drain = r#"{"drain": true}"#;
    root.cmd("scheduler", &["nodes", "localhost", "update", "-d", drain]).expect(0);
}

/// A node once it is in this state.
pub fn node_reaches(root: &TestRoot, name: &str, state: &str) -> Value {
    wait_for(SOON, || {
        let node = root.cmd("scheduler", &["nodes", name]).expect(0).json();
        if node["state"] == state { Ok(node) } else { Err(node.to_string()) }
    })
}

/// A second host: closed, with a token for the head.
pub fn host(more: &str) -> (TestRoot, Httpd, String) {
    let host = TestRoot::new(&format!("{CONF}{more}"));
    let token = host.cmd("processor", &["tokens", "new", "role=admin", "-q"]).expect(0).body;
    let httpd = host.httpd();
    (host, httpd, token.trim().to_string())
}

/// A way in.
pub enum Door<'a> {
    Bare(&'a TestRoot),
    Web(&'a Httpd),
}

impl Door<'_> {
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        match self {
            Door::Bare(root) => root.cgi(method, path, headers, body.as_bytes()),
            Door::Web(httpd) => {
                let mut args: Vec<String> = vec!["-X".into(), method.into()];
                if method == "HEAD" {
                    args = vec!["-I".into()];
                }
                for (name, value) in headers {
                    args.extend(["-H".into(), format!("{name}: {value}")]);
                }
                if !body.is_empty() {
                    args.extend(["--data-binary".into(), body.into()]);
                }
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                httpd.curl(&args, path)
            }
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send("POST", path, &[], &text)
    }

    /// Submits a job; its number.
    pub fn submit(&self, request: &Value) -> u64 {
        self.post("/scheduler/jobs/new", request).expect(201).json()["job"].as_u64().unwrap()
    }

    /// The status once the job has stopped.
    pub fn ended(&self, job: u64) -> Value {
        wait_for(SOON, || {
            let status = self.get(&format!("/scheduler/jobs/{job}/status?wait=5")).expect(200);
            let status = status.json();
            if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
        })
    }
}

/// A poller, ended when dropped. What it says is in `poller.log` of its root.
pub struct Poller {
    child: Child,
}

impl Poller {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal and returns how it ended.
    pub fn end(mut self, name: &str) -> ExitStatus {
        signal(self.pid(), name);
        wait_for(SOON, || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("the poller still runs".into()),
        })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl TestRoot {
    /// Starts a poller and waits until it is at work.
    pub fn poller(&self) -> Poller {
        let before = self.read("poller.log").matches("at work for").count();
        let poller = self.poller_with(&[]);
        wait_for(SOON, || {
            let log = self.read("poller.log");
            if log.matches("at work for").count() > before { Ok(()) } else { Err(log) }
        });
        poller
    }

    /// Starts a poller with these options.
    pub fn poller_with(&self, args: &[&str]) -> Poller {
        let mut command = self.base("poller");
        command.args(args);
        self.poller_by(command)
    }

    /// Starts a poller that the kernel gives no inotify instance, nor what it starts.
    pub fn poller_without_inotify(&self) -> Poller {
        let plain = self.base("poller");
        let none = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\"";
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "sh", "-c", none]).arg(plain.get_program());
        inside.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.poller_by(inside)
    }

    /// Starts a poller that may have no more than so many files open.
    pub fn poller_with_few_descriptors(&self, most: u32) -> Poller {
        let plain = self.base("poller");
        let mut inside = Command::new("sh");
        let limited = format!("ulimit -Sn 20 && ulimit -Hn {most} && exec \"$0\"");
        inside.args(["-c", &limited]).arg(plain.get_program());
        inside.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.poller_by(inside)
    }

    fn poller_by(&self, mut command: Command) -> Poller {
        let log = File::options().create(true).append(true).open(self.path("poller.log")).unwrap();
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap());
        Poller { child: command.stderr(log).spawn().unwrap() }
    }

    /// Both programs find nothing wrong.
    pub fn check(&self) {
        for program in ["scheduler", "processor"] {
            let check = self.cmd(program, &["check"]);
            let said = (check.code, check.body.as_str(), check.stderr.as_str());
            assert_eq!(said, (0, "", ""), "{program} check: {}", self.tree());
        }
    }

    /// Submits a job by command; its number.
    pub fn submit(&self, request: &Value) -> u64 {
        let answer = self.cmd_in("scheduler", &["jobs", "new", "-q"], &request.to_string());
        answer.expect(0).body.trim().parse().unwrap()
    }

    /// The status, by command.
    pub fn status(&self, job: u64) -> Value {
        self.cmd("scheduler", &["jobs", &job.to_string(), "status"]).expect(0).json()
    }

    /// The status once the job is in this state.
    pub fn reaches(&self, job: u64, state: &str) -> Value {
        wait_for(SOON, || {
            let status = self.status(job);
            if status["state"] == state { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// The status once its reason has this in it.
    pub fn reason(&self, job: u64, part: &str) -> Value {
        wait_for(SOON, || {
            let status = self.status(job);
            let reason = status["reason"].as_str().unwrap_or_default();
            if reason.contains(part) { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// `update` with this query, by command.
    pub fn update(&self, job: u64, query: &str) -> Answer {
        self.cmd("scheduler", &["jobs", &job.to_string(), "update", query])
    }

    /// The log, by command.
    pub fn log(&self, job: u64) -> String {
        self.cmd("scheduler", &["jobs", &job.to_string(), "log"]).expect(0).body
    }

    /// The lines of a card, wherever it lies.
    pub fn card(&self, job: u64) -> Vec<Value> {
        let done = format!("done/{}", job / 1000);
        let text = wait_for(SOON, || {
            for column in ["queue", "running", &done] {
                let path = self.path(&format!("state/scheduler/{column}/{job}.job"));
                if let Ok(text) = fs::read_to_string(path) {
                    return Ok(text);
                }
            }
            Err(self.tree())
        });
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The names of a card's events.
    pub fn story(&self, job: u64) -> Vec<String> {
        let events = self.card(job).into_iter().skip(1);
        events.map(|event| event["event"].as_str().unwrap().to_string()).collect()
    }

    /// Every file of the head's board: columns, claims, children, uploads, what was put aside.
    pub fn tree(&self) -> String {
        let mut found = BTreeMap::new();
        let board = self.path("state/scheduler");
        let dirs =
            ["queue", "running", "done", "bad", "requests", "children", "files", "nodes", "tmp"];
        for dir in dirs {
            list(&board.join(dir), dir, &mut found);
        }
        found.into_keys().map(|name| name + "\n").collect()
    }
}

fn list(dir: &Path, name: &str, found: &mut BTreeMap<String, ()>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(&entry.path(), &name, found);
        } else {
            found.insert(name, ());
        }
    }
}

impl Httpd {
    /// Sends these bytes and returns all that comes back.
    pub fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset after the answer is fine
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The base URL of the programs.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/cgi-bin", self.port)
    }
}
