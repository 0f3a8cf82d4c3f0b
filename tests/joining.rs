//! Tokens that are bound to a node.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::TestRoot;
use common::head::CONF;
use common::rights::{ask, token};
use serde_json::Value;

#[test]
fn a_workers_token_is_bound_to_a_node() {
    let root = TestRoot::new(CONF);
    let bound = token(&root, &["role=worker", "node=two"]);
    token(&root, &["role=worker"]);
    let listed = root.cmd("scheduler", &["tokens"]).expect(0).json();
    let nodes: Vec<&Value> =
        listed["tokens"].as_array().unwrap().iter().map(|t| &t["node"]).collect();
    assert_eq!(nodes, ["two".into(), Value::Null].iter().collect::<Vec<&Value>>());
    ask(&root, &bound, "GET", "/scheduler/nodes/list", &Value::Null).expect(200);
    for wrong in [&["role=user", "node=two"][..], &["role=worker", "node=../x"]] {
        root.cmd("scheduler", &[&["tokens", "new"], wrong].concat()).expect(1);
    }
    // A program that does not know what binds it admits nobody with it.
    let record = format!("state/tokens/{}", bound.split('_').nth(1).unwrap());
    let now = root.read(&record);
    assert!(now.contains(r#","node":"two""#), "{now}");
    root.write(&record, &now.replace(r#","node":"#, r#","region":"#));
    let refused = ask(&root, &bound, "GET", "/scheduler/nodes/list", &Value::Null);
    assert!(refused.code >= 401, "{refused:?}");
}
