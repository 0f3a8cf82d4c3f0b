//! What a node tells of itself, and what its head shows of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use common::head::{both_ways, host, node_reaches, open_root, register};
use common::{SOON, until, wait_for};
use serde_json::{Value, json};

const OWN: &str =
    "labels = disk=ssd, zone = b, hostname=n1\ncountables = licenses=4, scratch=2 KiB\ngpus = 2\n";

#[test]
fn it_tells_what_it_has_and_is_like() {
    both_ways(OWN, |root, door| {
        let info = door.get("/processor/info").expect(200).json();
        let all =
            json!({"cores": 2, "memory": 4u64 << 30, "gpus": 2, "licenses": 4, "scratch": 2048});
        assert_eq!((&info["resources"], &info["free"]), (&all, &all), "{info}");
        let labels = &info["labels"];
        assert_eq!((&labels["disk"], &labels["zone"]), (&json!("ssd"), &json!("b")), "{info}");
        assert_eq!((&labels["os"], &labels["hostname"]), (&json!("linux"), &json!("n1")), "{info}");
        assert_eq!(labels["arch"], std::env::consts::ARCH);
        assert_eq!(info["gpus"], json!([{"index": 0}, {"index": 1}]));
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(info["boot"], boot.trim());
        let live = &info["live"];
        assert!(
            live["free_memory"].as_u64() > Some(0) && live["free_disk"].as_u64() > Some(0),
            "{info}"
        );
        assert_eq!(live["load"].as_str().unwrap().split(' ').count(), 3, "{info}");
        let shown = root.cmd("processor", &["info"]).expect(0).json();
        assert_eq!((&shown["labels"], &shown["resources"]), (&info["labels"], &info["resources"]));

        root.write("corkboard.conf", "cores = 2\nlicences = 4\n");
        door.get("/processor/info").expect(500);
        let said = root.cmd("processor", &["info"]).stderr;
        assert!(said.contains("line 2: there is no setting \"licences\""), "{said}");
        root.write("corkboard.conf", "countables = licenses=half\n");
        let said = root.cmd("processor", &["info"]).stderr;
        assert!(said.contains("line 1: countables: licenses: "), "{said}");
    });
}

#[test]
fn the_head_shows_it() {
    let root = open_root("");
    let (other, httpd, token) = host(OWN);
    register(&root, &json!({"name": "other", "uri": httpd.url(), "token": token}));
    let _poller = root.poller();
    let node = node_reaches(&root, "other", "connected");
    let all = json!({"cores": 2, "memory": 4u64 << 30, "gpus": 2, "licenses": 4, "scratch": 2048});
    assert_eq!((&node["resources"], &node["free"]), (&all, &all), "{node}");
    assert_eq!(node["allocated"], json!({"cores": 0, "memory": 0}));
    assert_eq!(
        (&node["labels"]["disk"], &node["about"]["gpus"][1]["index"]),
        (&json!("ssd"), &json!(1))
    );
    assert_eq!(node["about"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        node["live"]["free_memory"].as_u64() > Some(0) && node["live"]["at"].is_string(),
        "{node}"
    );

    let job = root.submit(&json!({"command": "sleep 1000", "dir": "/",
        "requested_resources": {"cores": 2, "memory": "1 GiB"}}));
    let on = root.reaches(job, "running")["node"].as_str().unwrap().to_string();
    let list = root.cmd("scheduler", &["nodes", "list"]).expect(0).json();
    let of =
        |name: &str| list["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).cloned();
    let busy = of(&on).unwrap();
    assert_eq!(busy["allocated"], json!({"cores": 2, "memory": 1 << 30}), "{busy}");
    assert_eq!((&busy["free"]["cores"], &busy["free"]["memory"]), (&json!(0), &json!(3u64 << 30)));
    root.update(job, "kill=1").expect(0);
    root.reaches(job, "stopped");

    // What changes there is known here soon; how busy it is is written down once a minute alone.
    let live = || root.cmd("scheduler", &["nodes", "other"]).expect(0).json()["live"].clone();
    let before = live();
    let conf = other
        .read("corkboard.conf")
        .replace("disk=ssd", "disk=nvme")
        .replace("licenses=4", "licenses=5");
    other.write("corkboard.conf", &conf);
    wait_for(2 * SOON, || {
        let node = root.cmd("scheduler", &["nodes", "other"]).expect(0).json();
        let is_new = node["labels"]["disk"] == "nvme" && node["resources"]["licenses"] == 5;
        if is_new { Ok(()) } else { Err(node.to_string()) }
    });
    assert_eq!(live(), before);
    root.check();
    other.check();
}

/// A server that says this whatever it is asked but for its feed.
fn of_an_older_version() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = [0; 65536];
            let length = stream.read(&mut bytes).unwrap_or(0);
            let asked = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let body = match asked.contains("/events") {
                true => r#"{"cursor":"a.1","events":[]}"#,
                false => {
                    r#"{"resources":{"cores":3,"memory":1},"free":{"cores":3,"memory":1},"running":0,"queued":0}"#
                }
            };
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    uri
}

#[test]
fn a_node_of_an_older_version_tells_less() {
    let root = open_root("");
    register(&root, &json!({"name": "old", "uri": of_an_older_version()}));
    let _poller = root.poller();
    let node = node_reaches(&root, "old", "connected");
    assert_eq!(node["resources"], json!({"cores": 3, "memory": 1}), "{node}");
    for field in ["labels", "about", "live"] {
        assert_eq!(node[field], Value::Null, "{node}");
    }
    until("it is written down", || {
        root.read("state/scheduler/nodes/old.json").contains("connected")
    });
    root.check();
}
