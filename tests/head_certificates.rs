//! Certificates between heads and nodes: a head is one by the certificate that it shows, and works with a node that
//! demands one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::fs;
use std::path::Path;

use secure::{served, text};
use serde_json::{Value, json};
use stand_ins::Root;

#[test]
fn a_head_is_one_by_its_certificate() {
    let root = served("heads", "demand");
    let [head, user, reader] = ["other-head", "ann", "reader"].map(|name| root.client(name));
    root.knows(&head, &["role=head", "user=other-head"]);
    root.knows(&user, &["role=user", "user=ann"]);
    root.knows(&reader, &["role=admin", "user=ann", "scope=read"]);
    let new = |id: &str| format!(r#"{{"command": ["true"], "request_id": "{id}"}}"#);
    let run =
        |client: &Path, id: &str| root.curl_as(client, &["-d", &new(id)], "/processor/jobs/new");
    run(&head, "lab-7f3k-2.1").expect(201);
    run(&user, "lab-7f3k-3.1").expect(403);
    run(&user, "mine").expect(201);
    run(&reader, "other").expect(403);
    root.curl_as(&reader, &[], "/processor/jobs").expect(200);
    root.curl_as(&head, &["-d", r#"{"command": ["true"]}"#], "/scheduler/jobs/new").expect(403);
    root.curl_as(&user, &["-d", ""], "/processor/jobs/lab-7f3k-2.1/kill").expect(403);
    root.curl_as(&head, &["-d", ""], "/processor/jobs/lab-7f3k-2.1/kill").expect(200);
    root.check();
}

#[test]
fn a_node_that_demands_certificates_works_for_a_head_that_has_one() {
    let node = served("node", "demand");
    let client = node.client("lab");
    node.knows(&client, &["role=head", "user=lab"]);
    let head = Root::real("head-of-node");
    head.up_ok(&["--server", "lighttpd", "--tls"]);
    let file = |dir: &Path, name: &str| dir.join(name).display().to_string();
    let uri = format!("https://127.0.0.1:{}", node.port());
    let register = |more: Value| {
        let mut fields = json!({"name": "two", "uri": uri, "ca": file(&node.ca_dir(), "ca.pem")});
        for (key, value) in more.as_object().unwrap() {
            fields[key] = value.clone();
        }
        head.program("scheduler", &["nodes", "new", "-d", &fields.to_string()], &[])
    };
    for (more, part) in [
        (json!({"cert": "cert.pem"}), "cert must be the absolute path"),
        (json!({"key": "/k.pem"}), "key is for a certificate"),
        (
            json!({"uri": "http://x", "ca": null, "cert": "/c.pem"}),
            "cert is for nodes whose uri begins with https",
        ),
    ] {
        let output = register(more);
        assert!(text(&output.stderr).contains(part), "{output:?}");
    }
    let (cert, key) = (file(&client, "cert.pem"), file(&client, "key.pem"));
    assert!(register(json!({"cert": cert, "key": key})).status.success());
    head.scheduler(&["nodes", "localhost", "update", "drain=1"]);
    let shown: Value = serde_json::from_str(&head.scheduler(&["nodes", "two"])).unwrap();
    assert_eq!((&shown["cert"], &shown["key"]), (&json!(cert), &json!(key)));
    let said = head.scheduler(&["jobs", "new", "--wait", "--", "echo", "over there"]);
    assert_eq!(said, "over there\n");

    // A job there submits another at this head, by the head's own https and its ca.
    head.scheduler(&["nodes", "localhost", "update", "drain=0"]);
    let script = format!(
        "curl -sS --cacert {} -H \"Authorization: Bearer $CORKBOARD_TOKEN\" -d '{{\"command\": \"echo child\"}}' \"$CORKBOARD_URL/scheduler/jobs/new\"",
        file(&head.ca_dir(), "ca.pem")
    );
    let said = head.scheduler(&["jobs", "new", "--wait", "--", "sh", "-c", &script]);
    let child: Value = serde_json::from_str(&said).unwrap();
    let child = child["job"].to_string();
    head.scheduler(&["jobs", &child, "status", "wait=30"]);
    assert_eq!(head.scheduler(&["jobs", &child, "log"]), "child\n");

    // A key that everybody may use is not shown; what is wrong with files is said, and holds no jobs up.
    let mine = head.dir.join("mine");
    fs::create_dir(&mine).unwrap();
    for name in ["cert.pem", "key.pem"] {
        fs::copy(client.join(name), mine.join(name)).unwrap();
    }
    let mode = |mode| {
        fs::set_permissions(
            mine.join("key.pem"),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .unwrap()
    };
    let update = |cert: &Path, key: &Path| {
        let fields = json!({"cert": cert, "key": key});
        head.scheduler(&["nodes", "two", "update", "-d", &fields.to_string()]);
        text(&head.program("nodemgr", &["two"], &[]).stderr)
    };
    mode(0o644);
    let said = update(&mine.join("cert.pem"), &mine.join("key.pem"));
    assert!(
        said.contains("two is not asked: ")
            && said.contains("everybody may use this key: chmod 600"),
        "{said}"
    );
    mode(0o600);
    let again = head.program("nodemgr", &["two"], &[]);
    assert!(again.status.success(), "{again:?}");
    let said = update(&mine.join("nothing.pem"), &mine.join("key.pem"));
    assert!(said.contains("nothing.pem: no such file"), "{said}");
    let said = update(&mine.join("key.pem"), &mine.join("key.pem"));
    assert!(said.contains("key.pem: no certificate in it"), "{said}");
    let said = update(&mine.join("cert.pem"), &node.ca_dir().join("client/head/key.pem"));
    assert!(said.contains("cert.pem: not the certificate of the key in"), "{said}");
    let without = json!({"cert": null, "key": null}).to_string();
    head.scheduler(&["nodes", "two", "update", "-d", &without]);
    let said = text(&head.program("nodemgr", &["two"], &[]).stderr);
    assert!(said.contains("it demands a certificate"), "{said}");
    head.check();
    node.check();
}
