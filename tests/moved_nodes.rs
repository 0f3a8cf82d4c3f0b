//! A node that is registered at another address, with another token: no token is ever presented to an address that
//! it is not for.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod faults;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use common::head::CONF;
use common::{SOON, TestRoot, wait_for};
use faults::Act;
use serde_json::{Value, json};

/// What is registered of the node, and the token that is presented to it.
fn found(root: &TestRoot, name: &str) -> (String, String) {
    let record = root.read(&format!("state/scheduler/nodes/{name}.json"));
    let record: Value = serde_json::from_str(&record).unwrap();
    let token = root.read(&format!("state/secrets/nodes/{name}"));
    (record["uri"].as_str().unwrap().to_string(), token.trim().to_string())
}

#[test]
fn who_is_killed_while_moving_a_node_leaves_no_token_at_an_address_that_is_not_its_own() {
    let root = TestRoot::new(CONF);
    let [here, there] = [("http://127.0.0.1:9", "of-here"), ("http://127.0.0.1:10", "of-there")];
    let register = |name: &str| {
        let node = json!({"name": name, "uri": here.0, "token": here.1});
        root.cmd("scheduler", &["nodes", "new", "-d", &node.to_string()]).expect(0);
    };
    let moves = |name: &str| {
        let fields = json!({"uri": there.0, "token": there.1}).to_string();
        Act::cmd(&root, "scheduler", &["nodes", name, "update", "-d", &fields], "")
    };
    register("first");
    let (ran, points) = moves("first").trace();
    assert!(ran.acknowledged(), "{ran:?}");
    let (mut killed, mut between) = (0, 0);
    for (index, point) in points.iter().enumerate() {
        let name = format!("n{index}");
        register(&name);
        killed += usize::from(moves(&name).kill_at(point).killed);
        let (uri, token) = found(&root, &name);
        let own = if uri == here.0 { here.1 } else { there.1 };
        assert!(token.is_empty() || token == own, "{point:?}: {token} is presented to {uri}");
        between += usize::from(token.is_empty());
        assert!(moves(&name).run().acknowledged(), "{point:?}");
        assert_eq!(found(&root, &name), (there.0.to_string(), there.1.to_string()), "{point:?}");
    }
    assert!(killed > 0 && between > 0, "{killed} killed, {between} in between");
    root.cmd("scheduler", &["check", "--repair"]);
    root.check();
}

/// How often somebody was asked, and by what tokens.
type Asked = Arc<Mutex<(usize, BTreeSet<String>)>>;

/// Somebody who lets nobody in.
fn door() -> (u16, Asked) {
    let (listener, asked) = (TcpListener::bind("127.0.0.1:0").unwrap(), Asked::default());
    let (port, seen) = (listener.local_addr().unwrap().port(), asked.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            thread::spawn(move || {
                let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let bearer = |line: &str| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_string())
                };
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                seen.1.extend(head.lines().find_map(bearer));
                drop(seen);
                let body = "{\"error\": \"not you\"}";
                let _ = write!(
                    stream,
                    "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            });
        }
    });
    (port, asked)
}

#[test]
fn a_poller_presents_to_each_address_its_own_token() {
    let root = TestRoot::new(CONF);
    let doors = [door(), door()];
    let fields = |at: usize| {
        let uri = format!("http://127.0.0.1:{}", doors[at].0);
        json!({"name": "two", "uri": uri, "token": format!("of-{at}")}).to_string()
    };
    root.cmd("scheduler", &["nodes", "new", "-d", &fields(0)]).expect(0);
    let _poller = root.poller();
    for round in 0..20 {
        let at = round % 2;
        let before = doors[at].1.lock().unwrap().0;
        root.cmd("scheduler", &["nodes", "two", "update", "-d", &fields(at)]).expect(0);
        wait_for(SOON, || {
            let asked = doors[at].1.lock().unwrap().0;
            if asked > before {
                Ok(())
            } else {
                Err(format!("{round}: {}", root.read("poller.log")))
            }
        });
    }
    for (at, (_, asked)) in doors.iter().enumerate() {
        let own = BTreeSet::from([format!("Bearer of-{at}")]);
        assert_eq!(asked.lock().unwrap().1, own);
    }
    root.check();
}
