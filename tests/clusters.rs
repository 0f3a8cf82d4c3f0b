//! A head and nodes on one machine by one command, with the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{SOON, program, wait_for};
use serde_json::Value;

/// Ends it and removes it, whatever the test has come to.
struct Cluster(PathBuf);

impl Cluster {
    fn script(&self, args: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster");
        Command::new(script).args(args).arg("--dir").arg(&self.0).output().unwrap()
    }

    fn begin(&self, count: &str) -> String {
        let programs = program("scheduler");
        let programs = programs.parent().unwrap().to_str().unwrap();
        let begun = self.script(&[count, "--programs", programs]);
        assert!(begun.status.success(), "{begun:?}");
        String::from_utf8(begun.stdout).unwrap()
    }

    fn scheduler(&self, args: &[&str]) -> Value {
        let head = self.0.join("head");
        let mut command = Command::new(head.join("cgi-bin/scheduler"));
        let ran = command.args(args).env("CORKBOARD_ROOT", &head).output().unwrap();
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
    }

    fn daemons(&self) -> usize {
        let roots = fs::read_dir(&self.0).unwrap().flatten();
        let pids = roots.flat_map(|root| {
            ["httpd", "poller"].map(|name| root.path().join(format!("run/{name}.pid")))
        });
        pids.filter(|path| path.exists()).count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let ended = self.script(&["--down", "--jobs"]);
        if !std::thread::panicking() {
            assert!(ended.status.success(), "{ended:?}");
            // A supervisor that lingers may still be at work there.
            wait_for(SOON, || fs::remove_dir_all(&self.0).map_err(|e| e.to_string()));
        }
    }
}

#[test]
fn a_head_and_nodes_by_one_command() {
    let dir = std::env::temp_dir().join(format!("corkboard-cluster-{}", std::process::id()));
    let cluster = Cluster(dir);
    let said = cluster.begin("2");
    for part in ["node-1  http://127.0.0.1:", "node-2  http://", "--down --dir"] {
        assert!(said.contains(part), "{said}");
    }
    let list = cluster.scheduler(&["nodes", "list"]);
    let nodes = list["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3, "{list}");
    assert!(nodes.iter().all(|node| node["state"] == "connected"), "{list}");
    let job = cluster.scheduler(&["jobs", "new", "--", "true"])["job"].to_string();
    let end = wait_for(SOON, || {
        let status = cluster.scheduler(&["jobs", &job, "status"]);
        if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(end["status"], "good", "{end}");
    assert!(end["node"].as_str().unwrap().starts_with("node-"), "{end}");
    // Once more is the same, and one more is one more.
    let again = cluster.begin("2");
    assert_eq!(
        again.lines().find(|l| l.contains("node-1 ")),
        said.lines().find(|l| l.contains("node-1 "))
    );
    cluster.begin("3");
    assert_eq!(cluster.scheduler(&["nodes", "list"])["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(cluster.daemons(), 8);
    let ended = cluster.script(&["--down"]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(cluster.daemons(), 0);
    assert_eq!(cluster.script(&["none"]).status.code(), Some(2));
}

#[test]
fn a_root_joins_a_head_and_says_where_it_is() {
    let dir = std::env::temp_dir().join(format!("corkboard-joins-{}", std::process::id()));
    let cluster = Cluster(dir);
    cluster.begin("1");
    let head = fs::read_to_string(cluster.0.join("head/run/url")).unwrap();
    let head = head.trim().trim_end_matches("/cgi-bin");
    let root = cluster.0.join("node-far"); // so that it ends with the others
    let up = |more: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/up");
        let programs = program("scheduler");
        let mut command = Command::new(script);
        command.arg("--root").arg(&root).arg("--programs").arg(programs.parent().unwrap());
        command.args(more).output().unwrap()
    };
    let file = cluster.0.join("token");
    let file = file.to_str().unwrap();
    let joins = ["--join", head, "--token-file", file, "--name", "far"];
    fs::write(file, "cb_00000000_00\n").unwrap();
    let refused = up(&joins);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not known here"), "{refused:?}");
    let made = cluster.scheduler(&["tokens", "new", "role=join", "node=far"]);
    fs::write(file, made["token"].as_str().unwrap()).unwrap();
    let joined = up(&joins);
    assert!(joined.status.success(), "{joined:?}");
    let connected = || {
        wait_for(SOON, || {
            let node = cluster.scheduler(&["nodes", "far"]);
            if node["state"] == "connected" { Ok(node) } else { Err(node.to_string()) }
        })
    };
    let first = connected();
    // The token has been used; nothing has to be told again.
    assert!(up(&joins).status.success());
    let down = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/down");
    assert!(Command::new(down).arg("--root").arg(&root).status().unwrap().success());
    fs::remove_file(root.join("run/port")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    drop(taken);
    let moved = up(&["--port", &port]);
    assert!(moved.status.success(), "{moved:?}");
    let second = connected();
    assert_ne!(first["uri"], second["uri"]);
    assert!(second["uri"].as_str().unwrap().ends_with(&port), "{second}");
    let job =
        cluster.scheduler(&["jobs", "new", "-d", r#"{"command": "true", "node": "far"}"#])["job"]
            .to_string();
    let end = wait_for(SOON, || {
        let status = cluster.scheduler(&["jobs", &job, "status"]);
        if status["state"] == "stopped" { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!((&end["status"], &end["node"]), (&"good".into(), &"far".into()), "{end}");
}
