//! A root whose programs are stand-ins, and the scripts that install, start and stop it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

pub const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

pub const SCHEDULER: &str = r#"#!/bin/bash
set -eu
if [ -n "${GATEWAY_INTERFACE-}" ]; then
    printf 'Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nscheduler '
    env -0 | tr '\0' ' '
    exit
fi
state=$CORKBOARD_ROOT/state
mkdir -p "$state/tokens" "$state/secrets/nodes" "$state/scheduler/nodes"
case "$1 $2" in
    "tokens new")
        echo "$3 $4" > "$state/tokens/$RANDOM"
        echo '{"id":"1","role":"x","token":"cb_1_secret"}'
        ;;
    "nodes new" | "nodes localhost")
        cat > "$state/registered"
        uri=$(sed 's/.*"uri":"\([^"]*\)".*/\1/' "$state/registered")
        printf '{\n  "driver": "http",\n  "uri": "%s"\n}\n' "$uri" > "$state/scheduler/nodes/localhost.json"
        touch "$state/secrets/nodes/localhost"
        ;;
esac
"#;

pub const PROCESSOR: &str = r#"#!/bin/bash
jobs=$CORKBOARD_ROOT/state/jobs
case "$2" in
    state=running) ls "$jobs" 2>/dev/null ;;
    state=*) ;;
    *) rm "$jobs/$2" ;;
esac
exit 0
"#;

pub const POLLER: &str =
    "#!/bin/bash\necho \"args: $*\"\nls /proc/$$/fd\nwhile :; do sleep 0.1; done\n";

pub const STUBBORN_POLLER: &str = "#!/bin/bash\ntrap '' TERM\nwhile :; do sleep 0.1; done\n";

pub struct Root {
    pub dir: PathBuf,
    pub programs: PathBuf,
}

impl Root {
    /// A root below a directory of this name, with these programs; whatever an earlier run left
    /// of it is ended.
    pub fn with(name: &str, programs: Option<PathBuf>) -> Root {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scripts-{name}"));
        let own = base.join("programs");
        let root = Root { dir: base.join("root"), programs: programs.unwrap_or(own) };
        if root.dir.join("scripts/down").exists() {
            let _ = root.script("down", &["--root", root.dir.to_str().unwrap()]);
        }
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(&root.dir).unwrap();
        fs::create_dir_all(base.join("programs")).unwrap();
        root
    }

    /// A root with the real programs.
    pub fn real(name: &str) -> Root {
        let built = Path::new(env!("CARGO_BIN_EXE_scheduler")).parent().unwrap();
        Root::with(name, Some(built.to_path_buf()))
    }

    pub fn new(name: &str, poller: &str) -> Root {
        let root = Root::with(name, None);
        for (name, text) in [
            ("scheduler", SCHEDULER),
            ("processor", PROCESSOR),
            ("nodemgr", "#!/bin/sh\n"),
            ("poller", poller),
        ] {
            let path = root.programs.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        root
    }

    pub fn script(&self, name: &str, args: &[&str]) -> Output {
        let output = Command::new(format!("{SOURCE}/scripts/{name}")).args(args).output().unwrap();
        eprintln!("{name} {args:?}: {output:?}");
        output
    }

    pub fn up(&self, args: &[&str]) -> Output {
        let mut all = vec!["--root", self.dir.to_str().unwrap()];
        all.extend(["--programs", self.programs.to_str().unwrap()]);
        all.extend(args);
        self.script("up", &all)
    }

    pub fn down(&self, args: &[&str]) -> Output {
        let mut all = vec!["--root", self.dir.to_str().unwrap()];
        all.extend(args);
        self.script("down", &all)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn port(&self) -> u16 {
        self.read("run/port").trim().parse().unwrap()
    }

    pub fn pid(&self, name: &str) -> String {
        let record = self.read(&format!("run/{name}.pid"));
        record.split(' ').next().unwrap().to_string()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = self.down(&["--jobs"]);
        // Copies of programs are large; what failed is kept, to be looked at.
        if !std::thread::panicking()
            && let Some(base) = self.dir.parent()
        {
            let _ = fs::remove_dir_all(base);
        }
    }
}

/// A web server, ended when dropped.
pub struct Httpd(pub Child);

impl Drop for Httpd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a request as sent: no client tidies the path.
pub fn get(port: u16, path: &str, header: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(e) if Instant::now() > deadline => panic!("port {port}: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a reset after the answer is as good as its end
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}
