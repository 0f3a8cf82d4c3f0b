//! Programs are replaced while jobs run: the tree of 0.1 is taken over, a running poller is replaced,
//! and what runs ends as it would have.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::boards::{answers, restore};
use common::{TestRoot, program, until};
use serde_json::json;

/// The programs in a directory of their own: other files than those of any other directory.
fn programs(dir: PathBuf) -> PathBuf {
    fs::create_dir_all(&dir).unwrap();
    for name in ["scheduler", "processor", "nodemgr", "poller"] {
        fs::copy(program(name), dir.join(name)).unwrap();
        // What lies behind an executable's end is not looked at.
        let mut file = File::options().append(true).open(dir.join(name)).unwrap();
        write!(file, "{}", dir.display()).unwrap();
    }
    dir
}

fn script(root: &TestRoot, name: &str, args: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    let ran = Command::new(path).arg("--root").arg(&root.dir).args(args).output().unwrap();
    assert!(ran.status.success(), "{name} {args:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
}

fn up(root: &TestRoot, programs: &Path) -> String {
    script(root, "up", &["--open", "--programs", programs.to_str().unwrap()])
}

/// Which file the process was started from.
fn started_from(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

fn poller_pid(root: &TestRoot) -> i32 {
    root.read("run/poller.pid").split(' ').next().unwrap().parse().unwrap()
}

struct Down<'a>(&'a TestRoot);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        script(self.0, "down", &["--jobs"]);
    }
}

#[test]
fn programs_are_replaced_while_jobs_run() {
    let root = TestRoot::new("cores = 8\nmemory = 4 GiB\nscan_every = 0.5\nlost_after = 1h\n");
    restore("0.1", "head", &root, None);
    for name in ["scheduler", "processor", "nodemgr", "node"] {
        fs::remove_file(root.path("cgi-bin").join(name)).unwrap();
    }
    fs::remove_file(root.path("bin/poller")).unwrap();
    let (old, new) = (programs(root.path("old")), programs(root.path("new")));
    up(&root, &old);
    let down = Down(&root);
    let before = poller_pid(&root);
    let go = root.path("go").display().to_string();
    let until_go = format!("until [ -e {go} ]; do sleep 0.05; done; echo gone");
    let plain = root.submit(&json!({"command": until_go}));
    let array = root.submit(&json!({"command": until_go, "array": "0-2"}));
    for job in [plain, array] {
        root.reaches(job, "running");
    }
    let supervisors = root.supervisors();
    assert!(!supervisors.is_empty());
    // The same programs again replace nothing.
    assert!(!up(&root, &old).contains("replaced"));
    assert_eq!(poller_pid(&root), before);
    let said = up(&root, &new);
    assert!(said.contains("the poller of another version was replaced"), "{said}");
    let installed = fs::metadata(root.path("bin/poller")).unwrap().ino();
    let after = poller_pid(&root);
    assert_ne!(after, before);
    assert_eq!(started_from(after), installed);
    // Those that run jobs are the old ones.
    let processor = fs::metadata(root.path("cgi-bin/processor")).unwrap().ino();
    assert!(supervisors.iter().all(|pid| started_from(*pid) != processor));
    assert_eq!(root.supervisors(), supervisors);
    // New jobs and old ones, under both.
    let during = root.submit(&json!({"command": "true"}));
    root.reaches(during, "stopped");
    root.write("go", "");
    for job in [plain, array] {
        let ended = root.reaches(job, "stopped");
        assert_eq!((&ended["status"], &ended["code"]), (&json!("good"), &json!(0)), "{ended}");
    }
    assert_eq!(root.card(plain).len(), 4, "{:?}", root.card(plain));
    assert_eq!(root.log(plain), "gone\n");
    // What 0.1 had left waiting has run, too.
    let answers = answers("0.1");
    for name in ["queued", "claimed", "prepared", "uploads"] {
        let job = answers["names"][name].as_u64().unwrap();
        assert_eq!(root.reaches(job, "stopped")["code"], 0, "{name}");
    }
    until("no supervisor of the old programs is left", || {
        root.supervisors().iter().all(|pid| !supervisors.contains(pid))
    });
    drop(down);
}
