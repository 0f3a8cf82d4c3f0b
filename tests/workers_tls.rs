//! Workers of a head that speaks TLS: they go by the authority that they are told, and by no other.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/tls.rs"]
mod tls;

use std::fs;

use common::head::{CONF, drain_localhost};
use common::node::assert_clean;
use common::worker::{Worker, command, connected, invited};
use common::{SOON, TestRoot, wait_for};
use serde_json::json;
use tls::{Authority, HERE, Lighttpd};

#[test]
fn jobs_run_over_tls_for_a_head_that_is_believed() {
    let head = TestRoot::new(CONF);
    head.open();
    drain_localhost(&head);
    let authority = Authority::new(&head);
    authority.signs("server", HERE, "-days 30");
    authority.self_signed("stranger", "both", HERE);
    let lighttpd = Lighttpd::start(&head, &authority, &["server", "stranger"]);
    let _poller = head.poller();
    let url = |certificate| format!("{}/cgi-bin", lighttpd.uri(certificate));
    let root = invited(&head, "");
    let ca = authority.path("ca.pem");

    // Nothing that it is given goes to a server that the authority does not know.
    for (url, more) in [(url(1), vec!["--ca", &ca]), (url(0), vec![])] {
        let mut child = command(&root, &url, &more).spawn().unwrap();
        wait_for(SOON, || {
            let said = root.read("worker.log");
            if said.contains("certificate") { Ok(()) } else { Err(said) }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        root.write("worker.log", "");
        let nodes = head.cmd("scheduler", &["nodes", "list", "-q"]).expect(0).body;
        assert!(!nodes.contains("lap"), "{nodes}");
    }

    let worker = Worker::start(&root, &url(0), &["--ca", &ca]);
    connected(&head);
    let sent = head.path("input.dat");
    fs::write(&sent, "x".repeat(3 << 20)).unwrap();
    let words = ["jobs", "new", "-q", "--file", sent.to_str().unwrap(), "--"];
    let script = "wc -c < input.dat; tr x y < input.dat > out.dat";
    let words: Vec<&str> = words.into_iter().chain(["sh", "-c", script]).collect();
    let job: u64 = head.cmd("scheduler", &words).expect(0).body.trim().parse().unwrap();
    assert_eq!(head.reaches(job, "stopped")["status"], "good");
    assert_eq!(head.log(job), format!("{}\n", 3 << 20));
    let words = ["jobs", &job.to_string(), "files", "out.dat"];
    assert_eq!(head.cmd("scheduler", &words).expect(0).body.len(), 3 << 20);
    let job = head.submit(&json!({"command": "echo begun; exec sleep 600"}));
    head.reaches(job, "running");
    head.update(job, "kill=1").expect(0);
    assert_eq!(head.reaches(job, "stopped")["cause"], "killed");
    assert!(worker.end("TERM").success());
    head.check();
    assert_clean(&root);
}
