//! Tokens that are bound to a node, and machines that register themselves by one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::thread;

use common::head::{CONF, Door};
use common::rights::{ask as ask_bare, token};
use common::{Answer, TestRoot};
use faults::Act;
use serde_json::{Value, json};

/// What this holder is answered, bare or through a web server.
fn ask(door: &Door, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let text = if body.is_null() { String::new() } else { body.to_string() };
    door.send(method, path, &[("Authorization", &bearer)], &text)
}

/// Runs a test twice, each time in a closed root of its own: bare CGI, and through a web server.
fn both_ways(test: impl Fn(&TestRoot, &Door)) {
    let root = TestRoot::new(CONF);
    test(&root, &Door::Bare(&root));
    let root = TestRoot::new(CONF);
    let httpd = root.httpd();
    test(&root, &Door::Web(&httpd));
}

/// The public part of a token.
fn id(token: &str) -> &str {
    token.split('_').nth(1).unwrap()
}

fn node(name: &str) -> Value {
    json!({"name": name, "uri": "http://127.0.0.1:9", "token": "presented-there"})
}

const JOIN: &str = "/scheduler/nodes/join";

#[test]
fn a_workers_token_is_bound_to_a_node() {
    let root = TestRoot::new(CONF);
    let bound = token(&root, &["role=worker", "node=two"]);
    token(&root, &["role=worker"]);
    let listed = root.cmd("scheduler", &["tokens"]).expect(0).json();
    let nodes: Vec<&Value> =
        listed["tokens"].as_array().unwrap().iter().map(|t| &t["node"]).collect();
    assert_eq!(nodes, ["two".into(), Value::Null].iter().collect::<Vec<&Value>>());
    let list = || ask_bare(&root, &bound, "GET", "/scheduler/nodes/list", &Value::Null);
    list().expect(200);
    for wrong in [&["role=user", "node=two"][..], &["role=worker", "node=../x"]] {
        root.cmd("scheduler", &[&["tokens", "new"], wrong].concat()).expect(1);
    }
    // A program that does not know what binds it admits nobody with it.
    let record = format!("state/tokens/{}", id(&bound));
    let now = root.read(&record);
    assert!(now.contains(r#","node":"two""#), "{now}");
    root.write(&record, &now.replace(r#","node":"#, r#","region":"#));
    assert!(list().code >= 401, "{:?}", list());
}

#[test]
fn a_machine_joins_once_and_is_given_a_token_of_its_own() {
    both_ways(|root, door| {
        let admin = token(root, &["role=admin"]);
        let user = token(root, &["role=user", "user=ada"]);
        // An admin makes one over HTTP, and no other token.
        let new = |token: &str, query: &str| {
            ask(door, token, "POST", &format!("/scheduler/tokens/new?{query}"), &Value::Null)
        };
        let made = new(&admin, "role=join").expect(201).json();
        for (who, query) in [(&user, "role=join"), (&admin, "role=worker"), (&admin, "role=admin")]
        {
            new(who, query).expect(403);
        }
        new(&admin, "role=join&scope=read").expect(400);
        let join = made["token"].as_str().unwrap().to_string();
        assert!(made["expires_at"].is_string(), "a day, where nobody says: {made}");
        // It is for nothing else.
        for (method, path) in [
            ("GET", "/scheduler/nodes/list"),
            ("GET", "/scheduler/roles"),
            ("POST", "/scheduler/nodes/new"),
            ("POST", "/scheduler/nodes/localhost/update"),
            ("POST", "/scheduler/jobs/new"),
            ("GET", "/processor/info"),
            ("GET", "/nodemgr/list"),
        ] {
            ask(door, &join, method, path, &Value::Null).expect(403);
        }
        // What is refused leaves it as it was.
        let fails =
            |body: &Value, code: i32| drop(ask(door, &join, "POST", JOIN, body).expect(code));
        fails(&json!({"name": "two"}), 400);
        fails(&json!({"name": "join", "uri": "http://a:1"}), 400);
        fails(&json!({"name": "localhost", "uri": "http://a:1"}), 409);
        fails(&json!({"name": "two", "driver": "local"}), 403);
        fails(&json!({"name": "two", "uri": "http://a:1", "owner": "ada"}), 403);
        let all = root.read(&format!("state/tokens/{}", id(&join)));
        assert!(!all.contains("used_at"), "{all}");
        let joined = ask(door, &join, "POST", JOIN, &node("two")).expect(201).json();
        assert_eq!(joined["node"]["name"], "two");
        assert_eq!(joined["node"].get("owner"), None);
        let worker = joined["token"].as_str().unwrap().to_string();
        assert_eq!(root.read("state/secrets/nodes/two"), "presented-there\n");
        ask(door, &worker, "GET", "/scheduler/nodes/two", &Value::Null).expect(200);
        // It says where its node is now, and nothing of another.
        let mut moves = node("two");
        moves["uri"] = "http://127.0.0.1:11".into();
        let moved = ask(door, &worker, "POST", JOIN, &moves).expect(200).json();
        assert_eq!((&moved["node"]["uri"], moved.get("token")), (&moves["uri"], None));
        assert_eq!(root.read("state/secrets/nodes/two"), "presented-there\n");
        ask(door, &worker, "POST", JOIN, &node("two")).expect(200);
        ask(door, &worker, "POST", JOIN, &node("localhost")).expect(403);
        let unbound = token(root, &["role=worker"]);
        ask(door, &unbound, "POST", JOIN, &node("two")).expect(403);
        // No other node, nor this one otherwise.
        fails(&node("three"), 403);
        fails(&json!({"name": "two", "uri": "http://127.0.0.1:9"}), 409);
        let mut other = node("two");
        other["uri"] = "http://127.0.0.1:10".into();
        fails(&other, 409);
        ask(door, &worker, "GET", "/scheduler/nodes/two", &Value::Null).expect(200);
        // Whoever got no answer asks again: of two tokens the last counts.
        let again = ask(door, &join, "POST", JOIN, &node("two")).expect(200).json();
        let last = again["token"].as_str().unwrap();
        assert_eq!((&again["id"], &again["node"]["name"]), (&joined["id"], &json!("two")));
        ask(door, &worker, "GET", "/scheduler/nodes/two", &Value::Null).expect(401);
        ask(door, last, "GET", "/scheduler/nodes/two", &Value::Null).expect(200);
        let listed = root.cmd("scheduler", &["tokens"]).expect(0).json();
        let of = |token: &str| {
            let all = listed["tokens"].as_array().unwrap();
            all.iter().find(|record| record["id"] == id(token)).unwrap().clone()
        };
        assert_eq!((&of(&join)["node"], &of(last)["role"]), (&json!("two"), &json!("worker")));
        assert_eq!(of(last)["node"], "two");
        assert!(of(&join)["used_at"].is_string());
        assert!(of(&join)["expires_at"].as_str() < made["expires_at"].as_str(), "not for so long");
        // With the node its tokens go, and the name is another's.
        let spare = token(root, &["role=join", "node=two"]);
        ask(door, &admin, "POST", "/scheduler/nodes/two/remove", &Value::Null).expect(200);
        for gone in [&join, last] {
            ask(door, gone, "POST", JOIN, &node("two")).expect(401);
        }
        ask(door, &spare, "POST", JOIN, &node("three")).expect(403);
        ask(door, &spare, "POST", JOIN, &node("two")).expect(201);
        root.check();
    });
}

/// Who joined by a token that is good for some minutes yet would be given another one.
#[test]
fn with_a_workers_token_that_is_revoked_goes_the_one_by_which_it_joined() {
    let root = TestRoot::new(CONF);
    let (join, other) = (token(&root, &["role=join"]), token(&root, &["role=join"]));
    let joined = |token: &str, name: &str| ask_bare(&root, token, "POST", JOIN, &node(name));
    let worker = joined(&join, "two").expect(201).json()["id"].as_str().unwrap().to_string();
    joined(&other, "three").expect(201);
    root.cmd("scheduler", &["tokens", "rm", &worker]).expect(0);
    joined(&join, "two").expect(401);
    joined(&other, "three").expect(200);
    root.cmd("scheduler", &["tokens", "rm", &worker]).expect(1);
    root.check();
}

#[test]
fn whose_a_node_is_that_joins() {
    both_ways(|root, door| {
        let ann = token(root, &["role=provider", "user=ann"]);
        let join = token(root, &["role=join", "user=ann", "expires=1h"]);
        let joined = ask(door, &join, "POST", JOIN, &node("two")).expect(201).json();
        assert_eq!(joined["node"]["owner"], "ann");
        ask(door, &ann, "POST", "/scheduler/nodes/two/update?drain=1", &Value::Null).expect(200);
        // Not once it is changed, nor in another's place.
        ask(door, &join, "POST", JOIN, &node("two")).expect(409);
        let other = token(root, &["role=join"]);
        ask(door, &other, "POST", JOIN, &node("two")).expect(409);
        ask(door, &other, "POST", JOIN, &node("three")).expect(201);
        let expired = token(root, &["role=join", "expires=0s"]);
        ask(door, &expired, "POST", JOIN, &node("four")).expect(401);
        let at_a_shell = root.cmd("scheduler", &["nodes", "join", "-d", &node("four").to_string()]);
        assert!(at_a_shell.expect(1).stderr.contains("role=worker node=NAME"));
        root.check();
    });
}

#[test]
fn of_many_who_join_at_once_with_one_token_one_does() {
    let root = TestRoot::new(CONF);
    for round in 0..5 {
        let join = token(&root, &["role=join"]);
        let names: Vec<String> = (0..6).map(|place| format!("n{round}-{}", place / 2)).collect();
        let answers: Vec<Answer> = thread::scope(|scope| {
            let asked: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| ask_bare(&root, &join, "POST", JOIN, &node(name))))
                .collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let mut codes: Vec<i32> = answers.iter().map(|answer| answer.code).collect();
        codes.sort_unstable();
        assert_eq!(codes, [200, 201, 403, 403, 403, 403], "{answers:?}");
        let list = root.cmd("scheduler", &["nodes", "list"]).expect(0).body;
        assert_eq!(list.matches(&format!("\"n{round}-")).count(), 1, "{list}");
        // Two that asked the same have one token that counts.
        let shown = answers.iter().filter(|answer| answer.code < 300);
        let tokens = shown.map(|answer| answer.json()["token"].as_str().unwrap().to_string());
        let good = tokens.filter(|token| {
            ask_bare(&root, token, "GET", "/scheduler/nodes/list", &Value::Null).code == 200
        });
        assert_eq!(good.count(), 1);
    }
    root.check();
}

#[test]
fn of_two_who_join_at_once_under_one_name_one_does() {
    let root = TestRoot::new(CONF);
    for round in 0..8 {
        let name = format!("n{round}");
        let machines: Vec<(String, Value)> = (0..2)
            .map(|place| {
                let mut node = node(&name);
                node["uri"] = format!("http://127.0.0.1:{}", 20 + place).into();
                (token(&root, &["role=join"]), node)
            })
            .collect();
        let join = |(token, node): &(String, Value)| ask_bare(&root, token, "POST", JOIN, node);
        let answers: Vec<Answer> = thread::scope(|scope| {
            let asked: Vec<_> = machines.iter().map(|one| scope.spawn(|| join(one))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let first = answers.iter().position(|answer| answer.code == 201);
        let first = first.unwrap_or_else(|| panic!("{answers:?}"));
        let other = &answers[1 - first];
        assert_eq!(other.code, 409, "{other:?}");
        let other = other.json();
        let said = other["error"].as_str().unwrap();
        assert!(said.contains(&format!("node {name} is registered already")), "{said}");
        let shown = root.cmd("scheduler", &["nodes", &name]).expect(0).json();
        assert_eq!(shown["uri"], machines[first].1["uri"], "{shown}");
        assert!(answers[first].json()["token"].is_string());
        // The other's token is as good as new: it joins under another name.
        let (token, mut node) = machines[1 - first].clone();
        assert!(!root.read(&format!("state/tokens/{}", id(&token))).contains("used_at"));
        node["name"] = format!("m{round}").into();
        ask_bare(&root, &token, "POST", JOIN, &node).expect(201);
    }
    root.check();
}

#[test]
fn who_is_killed_while_joining_joins_by_the_same_request() {
    let root = TestRoot::new(CONF);
    let act = |join: &str, name: &str| {
        let body = node(name).to_string();
        Act::post(&root, "scheduler", "/nodes/join", "application/json", body.as_bytes())
            .with("HTTP_AUTHORIZATION", &format!("Bearer {join}"))
    };
    let join = token(&root, &["role=join"]);
    let (ran, points) = act(&join, "first").trace();
    assert_eq!(ran.code, 201, "{ran:?}");
    let (mut killed, mut unused, mut bound, mut registered) = (0, 0, 0, 0);
    for (index, point) in points.iter().enumerate() {
        let join = token(&root, &["role=join"]);
        let name = format!("n{index}");
        let ran = act(&join, &name).kill_at(point);
        assert!(ran.killed || ran.code == 201, "{point:?}: {ran:?}");
        killed += usize::from(ran.killed);
        let record = root.read(&format!("state/tokens/{}", id(&join)));
        let is_there = root.exists(&format!("state/scheduler/nodes/{name}.json"));
        let is_used = record.contains("used_at");
        assert!(is_used || !is_there, "{point:?}: a node, and its token is as new");
        match (is_used, is_there) {
            (false, _) => unused += 1,
            (true, false) => bound += 1,
            (true, true) => registered += 1,
        }
        if is_used {
            // Killed or not, nothing but this node.
            let other = ask_bare(&root, &join, "POST", JOIN, &node("other"));
            assert_eq!(other.code, 403, "{point:?}: {other:?}");
        }
        let again = act(&join, &name).run();
        assert_eq!(again.code, if is_there { 200 } else { 201 }, "{point:?}: {again:?}");
        let worker = again.json()["token"].as_str().unwrap().to_string();
        ask_bare(&root, &worker, "GET", "/scheduler/nodes/list", &Value::Null).expect(200);
    }
    let seen = format!("{killed} killed: {unused} unused, {bound} bound, {registered} registered");
    assert!(unused > 0 && bound > 0 && registered > 0, "{seen}");
    eprintln!("{seen}");
    root.cmd("scheduler", &["check", "--repair"]);
    root.check();
}
