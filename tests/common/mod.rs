//! A root of its own for every test, and ways to talk to it: commands, bare CGI, real httpd.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::httpd::Httpd;

pub mod array;
pub mod boards;
pub mod head;
pub mod httpd;
pub mod kills;
pub mod node;
pub mod partitions;
pub mod processes;
pub mod rights;
pub mod users;
pub mod ways;
pub mod worker;

/// Longest wait for anything that should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Roots that are there now.
static LIVING: AtomicU32 = AtomicU32::new(0);

/// A root in a directory of its own. At its end all its processes end, jobs and all, and it is
/// removed, unless the test has failed.
pub struct TestRoot {
    pub dir: PathBuf,
    /// Environment of everything that is run, beside `CORKBOARD_ROOT`.
    pub env: Vec<(String, String)>,
    /// Whom everything that is run belongs to, if not to who runs the test.
    pub user: Option<u32>,
    /// Words before everything that is run, such as `prlimit --nofile=20:20`.
    pub wrap: Vec<String>,
}

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status or exit code.
    pub code: i32,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub stderr: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The answer, which must have this code.
    pub fn expect(self, code: i32) -> Answer {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Where the built program of this name is.
pub fn program(name: &str) -> PathBuf {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_processor"));
    built.with_file_name(name)
}

impl TestRoot {
    /// A root with these lines in its `corkboard.conf`.
    pub fn new(conf: &str) -> TestRoot {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("corkboard-test-{}-{count}", std::process::id());
        processes::adopt_orphans();
        // As programs name it, by which their processes are known.
        let dir = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("cgi-bin")).unwrap();
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::create_dir_all(dir.join("www")).unwrap();
        symlink("../cgi-bin", dir.join("www/cgi-bin")).unwrap();
        for name in ["processor", "scheduler", "nodemgr", "node"] {
            let from = program(if name == "node" { "nodemgr" } else { name });
            if from.exists() {
                symlink(&from, dir.join("cgi-bin").join(name)).unwrap();
            }
        }
        for name in ["poller", "worker", "schedctl"] {
            if program(name).exists() {
                symlink(program(name), dir.join("bin").join(name)).unwrap();
            }
        }
        fs::write(dir.join("corkboard.conf"), conf).unwrap();
        LIVING.fetch_add(1, Ordering::SeqCst);
        TestRoot { dir, env: Vec::new(), user: None, wrap: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Whether the root admits requests from this machine without a token.
    pub fn open(&self) {
        fs::create_dir_all(self.path("state")).unwrap();
        self.write("state/open", "");
    }

    /// All that is there now becomes the user's.
    pub fn give_to_user(&self) {
        let Some(user) = self.user else { return };
        let owner = format!("{user}:{user}");
        let done = Command::new("chown").args(["-hR", &owner]).arg(&self.dir).status().unwrap();
        assert!(done.success(), "chown {owner} {}", self.dir.display());
    }

    /// A command of any program, as this root's are run.
    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.wrap.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    }

    pub fn base(&self, program: &str) -> Command {
        let dir =
            if ["poller", "worker", "schedctl"].contains(&program) { "bin" } else { "cgi-bin" };
        let mut command = self.command(&self.dir.join(dir).join(program));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("CORKBOARD_ROOT", &self.dir)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs a program as a command, with this on standard input.
    pub fn cmd_in(&self, program: &str, args: &[&str], input: &str) -> Answer {
        let mut command = self.base(program);
        command.args(args);
        finish(command, input.as_bytes(), false)
    }

    /// Runs a program as a command.
    pub fn cmd(&self, program: &str, args: &[&str]) -> Answer {
        self.cmd_in(program, args, "")
    }

    /// Starts a program and leaves it running.
    pub fn start(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.base(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Starts a program and leaves it running; what it prints goes to this file of the root.
    pub fn start_into(&self, name: &str, program: &str, args: &[&str]) -> Child {
        let file = fs::File::create(self.path(name)).unwrap();
        let mut command = self.base(program);
        command.args(args).stdin(Stdio::null()).stdout(file).spawn().unwrap()
    }

    /// One request to a program as bare CGI: `path` is `/processor/jobs/new?wait=1`.
    pub fn cgi(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut command = self.cgi_command(method, path, headers);
        if method == "POST" && command.get_envs().all(|(name, _)| name != "CONTENT_LENGTH") {
            command.env("CONTENT_LENGTH", body.len().to_string());
        }
        finish(command, body, true)
    }

    /// The same request, not sent yet, and without a length unless the headers say one.
    pub fn cgi_command(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Command {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let (program, rest) = path.split_once('/').unwrap_or((path, ""));
        let mut command = self.base(program);
        command
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", method)
            .env("PATH_INFO", format!("/{rest}"))
            .env("QUERY_STRING", query)
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("HTTP_HOST", "127.0.0.1:8080");
        for (name, value) in headers {
            let upper = name.to_ascii_uppercase().replace('-', "_");
            let plain = ["CONTENT_TYPE", "CONTENT_LENGTH", "REMOTE_ADDR"].contains(&&*upper);
            let name = if plain { upper } else { format!("HTTP_{upper}") };
            command.env(name, value);
        }
        command
    }

    /// The status of a node's job as its file says, `Null` where there is none.
    pub fn node_status(&self, id: &str) -> Value {
        let story = self.read(&format!("state/processor/job/{id}/status"));
        let last = story.lines().rfind(|line| !line.is_empty());
        last.map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
    }

    /// Waits until a node's job has ended, and returns its status.
    pub fn ended(&self, id: &str) -> Value {
        wait_for(SOON, || {
            let status = self.node_status(id);
            if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// Pids of the supervisors that have claims, by the slots.
    pub fn supervisors(&self) -> Vec<i32> {
        let Ok(slots) = fs::read_dir(self.path("state/processor/slot")) else { return Vec::new() };
        slots
            .filter_map(|entry| {
                let text = fs::read_to_string(entry.unwrap().path()).ok()?;
                let record: Value = serde_json::from_str(&text).ok()?;
                let busy = !record["jobs"].as_array()?.is_empty();
                busy.then(|| record["pid"].as_i64().map(|pid| pid as i32))?
            })
            .filter(|pid| self.processes().contains(pid))
            .collect()
    }

    /// Pids of all programs of this root.
    pub fn processes(&self) -> Vec<i32> {
        processes::of_roots(std::slice::from_ref(&self.dir))
            .into_iter()
            .map(|seen| seen.pid)
            .collect()
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        let is_last = LIVING.fetch_sub(1, Ordering::SeqCst) == 1;
        let ended = processes::end_all(&self.dir, is_last);
        corkboard::processor::cgroup::remove_all(&self.dir);
        if std::thread::panicking() {
            // Its state is kept, to be looked at.
            ended.unwrap_or_else(|left| eprintln!("{left}"));
            return;
        }
        let _ = fs::remove_dir_all(&self.dir);
        ended.unwrap_or_else(|left| panic!("{left}"));
    }
}

/// Runs a program to its end, with this on its standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input); // a program need not read it
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn finish(mut command: Command, input: &[u8], http: bool) -> Answer {
    let output = feed(&mut command, input);
    if http { answered(&output) } else { printed(&output) }
}

fn printed(output: &Output) -> Answer {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let body = String::from_utf8_lossy(&output.stdout).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), headers: Vec::new(), body, stderr }
}

/// What a program answered as CGI.
pub fn answered(output: &Output) -> Answer {
    let Answer { body: text, stderr, .. } = printed(output);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?} {stderr}"));
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap();
    let code = first.split_whitespace().nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    Answer { code, headers, body: body.to_string(), stderr }
}

/// Looks again and again until it is `Ok`; panics with the last state when the time is over.
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => {
                panic!("not within {patience:?}; last seen: {state}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(SOON, || if is_so() { Ok(()) } else { Err(what.to_string()) });
}

/// Lets time go by in which something must not happen: there is nothing to wait for.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Signals a process that the test has started, directly or not.
pub fn signal(pid: i32, name: &str) {
    let _ = Command::new("kill").args([format!("-{name}"), "--".into(), pid.to_string()]).status();
}

/// Whether a process is there (and is no zombie).
pub fn lives(pid: i32) -> bool {
    processes::Process::look(pid).is_some()
}

/// The number that a file of the test holds, once it is there.
pub fn pid_in(path: &Path) -> i32 {
    wait_for(SOON, || {
        let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|e| format!("{text:?}: {e}"))
    })
}
