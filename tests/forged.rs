//! Reports that somebody else made: of another node, of a job that was put under an attempt's id,
//! with another attempt's proof. They change nothing, and what is genuine goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/net.rs"]
mod net;
#[path = "common/proxy.rs"]
mod proxy;

use cluster::Cluster;
use common::head::{node_reaches, open_root, register};
use common::until;
use corkboard::model::card::State;
use net::Server;
use serde_json::json;

#[test]
fn what_another_node_says_of_an_attempt_changes_nothing() {
    let cluster = Cluster::new("60s");
    let other = open_root("");
    let server = Server::start(&other.dir);
    let uri = format!("http://127.0.0.1:{}", server.port);
    register(&cluster.head, &json!({"name": "other", "uri": uri, "drain": true}));
    node_reaches(&cluster.head, "other", "connected");
    for more in [json!({}), json!({"array": "0-3%1"})] {
        let job = cluster.submit_waiting(more);
        let attempt = cluster.card(job).attempts[0].clone();
        let id = attempt.nodejob;
        let mut forged = json!({"command": "true", "request_id": id});
        if let Some(tasks) = &attempt.tasks {
            forged["tasks"] = json!(tasks.to_string());
        }
        let said = net::http(server.port, "POST", "/processor/jobs/new", &forged.to_string());
        assert_eq!(said.unwrap().0, 201);
        assert_eq!(other.ended(&id)["status"], "good");
        // Whatever the head does after that it does knowing of the forged end.
        let later = cluster.submit("true", json!({}));
        cluster.ended(later);
        cluster.head.cmd("scheduler", &["jobs", &job.to_string(), "update"]).expect(0);
        assert_eq!(cluster.card(job).state, State::Running);
        assert!(!cluster.card(job).array.is_some_and(|array| array.is_finished()));
        cluster.go();
        cluster.ended(job);
        let closed = |root: &common::TestRoot| {
            let path = root.path(&format!("state/processor/job/{id}/status"));
            path.metadata().unwrap().permissions().readonly()
        };
        until("the genuine result is acknowledged", || closed(&cluster.node));
        assert!(!closed(&other), "the head has no result of it");
        std::fs::remove_file(cluster.path("go")).unwrap();
    }
    cluster.assert_clean();
    other.check();
}
