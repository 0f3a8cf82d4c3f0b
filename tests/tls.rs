//! Nodes that are asked over TLS, by a real server and with certificates that openssl makes: whom a
//! head believes, and what it says of those that it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/answering.rs"]
mod answering;
mod common;
#[path = "common/tls.rs"]
mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use answering::WITHOUT_LENGTH;
use common::head::{drain_localhost, host, node_reaches, open_root, register};
use common::{Answer, SOON, TestRoot, wait_for};
use serde_json::{Value, json};
use tls::{Authority, HERE, Lighttpd};

/// What a node says of itself, asked once, by this head.
fn ask(root: &TestRoot, node: &str) -> Answer {
    root.cmd("nodemgr", &[node])
}

fn update(root: &TestRoot, node: &str, change: &Value) {
    root.cmd("scheduler", &["nodes", node, "update", "-d", &change.to_string()]).expect(0);
}

/// Waits until the record of a node says this of it.
fn said_of(root: &TestRoot, node: &str, part: &str) {
    wait_for(SOON, || {
        let seen = root.cmd("scheduler", &["nodes", node]).expect(0).json();
        let reason = seen["reason"].as_str().unwrap_or_default();
        if reason.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in {seen}")) }
    });
}

#[test]
fn jobs_go_to_a_node_over_tls() {
    let mut root = open_root("");
    // What a client of the head might want to slip in, and nobody listens to.
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        root.env.push((name.into(), "http://127.0.0.1:9".into()));
    }
    let (other, httpd, token) = host("");
    drop(httpd);
    let authority = Authority::new(&root);
    authority.signs("good", HERE, "-days 30");
    let mut server = Lighttpd::start(&other, &authority, &["good"]);
    drain_localhost(&root);
    let node = json!({"name": "other", "uri": server.uri(0), "ca": authority.path("ca.pem"), "token": token});
    register(&root, &node);
    let poller = root.poller();
    let seen = node_reaches(&root, "other", "connected");
    assert_eq!(seen["resources"], json!({"cores": 2, "memory": 4u64 << 30}));
    assert_eq!(seen["ca"], json!(authority.path("ca.pem")));

    let job = root.submit(&json!({"command": "echo hello; seq 100000"}));
    assert_eq!(root.reaches(job, "stopped")["node"], "other");
    let log = root.log(job);
    assert!(log.starts_with("hello\n1\n") && log.ends_with("\n100000\n"), "{} bytes", log.len());
    root.write("input.dat", &"x".repeat(3 << 20));
    root.write("job.json", r#"{"command": "wc -c < input.dat"}"#);
    let httpd = root.httpd();
    let input = format!("file=@{}", root.path("input.dat").display());
    let request = format!("job=@{}", root.path("job.json").display());
    let sent = httpd.curl(&["-F", &request, "-F", &input], "/scheduler/jobs/new").expect(201);
    let job = sent.json()["job"].as_u64().unwrap();
    root.reaches(job, "stopped");
    assert_eq!(root.log(job).trim(), (3 << 20).to_string());

    let long = root.submit(&json!({"command": ["sleep", "1000"]}));
    root.reaches(long, "running");
    server.stop();
    node_reaches(&root, "other", "disconnected");
    assert_eq!(root.status(long)["state"], "running");
    server.start_again();
    node_reaches(&root, "other", "connected");
    root.update(long, "kill=1").expect(0);
    assert_eq!(root.reaches(long, "stopped")["cause"], "killed");

    // By cron.
    drop(poller);
    let job = root.submit(&json!({"command": ["true"]}));
    wait_for(SOON, || {
        root.cmd("poller", &["--once"]).expect(0);
        let status = root.status(job);
        if status["state"] == "stopped" { Ok(()) } else { Err(status.to_string()) }
    });
    root.check();
    other.check();
}

/// A name of this machine that is looked up, if it leads to where the servers listen.
fn own_name() -> Option<String> {
    let name = Command::new("hostname").output().ok()?.stdout;
    let name = String::from_utf8(name).ok()?.trim().to_string();
    let found = Command::new("getent").args(["ahosts", &name]).output().ok()?.stdout;
    (found.starts_with(b"127.0.0.1 ") && name != "localhost").then_some(name)
}

#[test]
fn whom_a_head_does_not_believe_it_says_and_why() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    let authority = Authority::new(&root);
    let own_name = own_name();
    let names = own_name.as_ref().map_or(HERE.into(), |name| format!("{HERE},DNS:{name}"));
    authority.signs("good", &names, "-days 30");
    authority.signs("foreign", "DNS:two.example,IP:192.0.2.1", "-days 30");
    authority.signs("old", HERE, "-startdate 200101000000Z -enddate 210101000000Z");
    authority.signs("early", HERE, "-startdate 380101000000Z -enddate 390101000000Z");
    authority.self_signed("both", "both", HERE);
    authority.self_signed("own", "server", HERE);
    let kinds = ["good", "foreign", "old", "early", "both", "own"];
    let server = Lighttpd::start(&other, &authority, &kinds);
    let uri = |name: &str| server.uri(kinds.iter().position(|kind| *kind == name).unwrap());
    let ca = |name: &str| json!(authority.path(name));
    root.write("empty.pem", "not a certificate\n");
    assert!(Command::new("mkfifo").arg(authority.path("fifo")).status().unwrap().success());
    let plain = format!("https://127.0.0.1:{}", httpd.port);
    let cases = [
        ("unknown", uri("good"), Value::Null, "the issuer of its certificate is unknown here"),
        ("stranger", uri("own"), ca("ca.pem"), "the issuer of its certificate is unknown here"),
        ("foreign", uri("foreign"), ca("ca.pem"), "certificate is not for 127.0.0.1 but for "),
        ("old", uri("old"), ca("ca.pem"), "its certificate expired at 2021-01-01T00:00:00.000Z"),
        ("early", uri("early"), ca("ca.pem"), "not valid before 2038-01-01T00:00:00.000Z"),
        ("both", uri("both"), ca("both.pem"), "make one with basicConstraints CA:FALSE"),
        ("none", uri("good"), ca("nowhere.pem"), "nowhere.pem: no such file or directory"),
        ("empty", uri("good"), json!(root.path("empty.pem")), "empty.pem: no certificate in it"),
        ("fifo", uri("good"), ca("fifo"), "fifo: not a plain file of at most 16 MiB"),
        ("endless", uri("good"), json!("/dev/zero"), "/dev/zero: not a plain file of"),
        ("plain", plain, ca("ca.pem"), "it does not speak TLS there"),
    ];
    for (name, uri, ca, _) in &cases {
        let mut node = json!({"name": name, "uri": uri, "token": token});
        if !ca.is_null() {
            node["ca"] = ca.clone();
        }
        register(&root, &node);
    }
    register(
        &root,
        &json!({"name": "own", "uri": uri("own"), "ca": ca("own.pem"), "token": token}),
    );
    let _poller = root.poller();
    for (name, _, _, part) in &cases {
        said_of(&root, name, part);
        let said = ask(&root, name).expect(75).stderr;
        let how = if *name == "plain" { "does not answer: " } else { "is not trusted: " };
        assert!(said.contains(part) && said.contains(how), "{name}: {said}");
    }
    ask(&root, "own").expect(0);
    node_reaches(&root, "own", "connected");
    if let Some(name) = own_name {
        let uri = uri("good").replace("127.0.0.1", &name);
        register(&root, &json!({"name": "named", "uri": uri, "ca": ca("ca.pem"), "token": token}));
        node_reaches(&root, "named", "connected");
    }

    // What is registered later holds from then on, and so does another file of the same name.
    update(&root, "unknown", &json!({"ca": ca("ca.pem")}));
    node_reaches(&root, "unknown", "connected");
    fs::copy(authority.path("ca.pem"), root.path("empty.pem")).unwrap();
    node_reaches(&root, "empty", "connected");
    root.check();
}

#[test]
fn whom_a_machine_trusts_is_said_by_its_environment_and_by_what_it_can_read() {
    let mut root = open_root("");
    let (other, _httpd, token) = host("");
    let authority = Authority::new(&root);
    authority.signs("good", HERE, "-days 30");
    let server = Lighttpd::start(&other, &authority, &["good"]);
    register(&root, &json!({"name": "n", "uri": server.uri(0), "token": token}));
    let unknown = "the issuer of its certificate is unknown here";
    let said = ask(&root, "n").expect(75).stderr;
    assert!(said.contains(unknown) || said.contains("trusts no issuer"), "{said}");
    let dir = root.path("issuers");
    fs::create_dir(&dir).unwrap();
    fs::copy(authority.path("ca.pem"), dir.join("own.pem")).unwrap();
    let dir = dir.display().to_string();
    for (name, value) in [("SSL_CERT_FILE", authority.path("ca.pem")), ("SSL_CERT_DIR", dir)] {
        root.env = vec![(name.into(), value)];
        ask(&root, "n").expect(0);
    }
    // Issuers that could not be read are not taken for none: the directory and a file in it are two.
    root.wrap = ["prlimit", "--nofile=4:4"].map(String::from).to_vec();
    let said = ask(&root, "n").expect(75).stderr;
    assert!(said.contains("n cannot be asked from here: too many open files"), "{said}");
}

#[test]
fn what_is_registered_for_tls() {
    let root = open_root("");
    let refused = |node: Value, part: &str| {
        let answer = root.cmd_in("scheduler", &["nodes", "new"], &node.to_string()).expect(1);
        assert!(answer.stderr.contains(part), "{answer:?}");
    };
    refused(
        json!({"name": "n", "uri": "http://x", "ca": "/ca.pem"}),
        "whose uri begins with https",
    );
    refused(
        json!({"name": "n", "driver": "local", "ca": "/ca.pem"}),
        "whose uri begins with https",
    );
    refused(json!({"name": "n", "uri": "https://x", "ca": "ca.pem"}), "absolute path");
    refused(json!({"name": "n", "uri": "https://"}), "uri must be like");
    refused(json!({"name": "n", "uri": "https://u@x"}), "uri must be like");
    register(&root, &json!({"name": "n", "uri": "https://[::1]:1/base/", "ca": "/ca.pem"}));
    assert!(ask(&root, "n").expect(75).stderr.contains("/ca.pem: no such file"));
    update(&root, "n", &json!({"ca": null}));
    let seen = root.cmd("scheduler", &["nodes", "n"]).expect(0).json();
    assert_eq!((&seen["ca"], &seen["uri"]), (&Value::Null, &json!("https://[::1]:1/base/")));
    let said = ask(&root, "n").expect(75).stderr;
    assert!(said.contains("refused") || said.contains("assign"), "{said}"); // without IPv6
    root.check();
}

/// A server over TLS that answers so, and then ends the connection by its own word or is cut.
fn stand_in_over_tls(authority: &Authority, name: &str, says_so: bool) -> u16 {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let cert = CertificateDer::from_pem_file(authority.path(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{name}.key"))).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let talk = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(talk, stream.unwrap());
            if !stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                continue;
            }
            stream.write_all(WITHOUT_LENGTH).unwrap();
            if says_so {
                stream.conn.send_close_notify();
            }
            let _ = stream.flush();
            let _ = stream.sock.shutdown(Shutdown::Write);
            let _ = stream.sock.read(&mut [0; 1]);
        }
    });
    port
}

#[test]
fn an_answer_over_tls_ends_by_the_servers_own_word() {
    let root = open_root("");
    let authority = Authority::new(&root);
    authority.signs("good", HERE, "-days 30");
    for (name, says_so) in [("whole", true), ("cut", false)] {
        let port = stand_in_over_tls(&authority, "good", says_so);
        let uri = format!("https://localhost:{port}");
        register(&root, &json!({"name": name, "uri": uri, "ca": authority.path("ca.pem")}));
    }
    assert_eq!(ask(&root, "whole").expect(0).json()["resources"]["cores"], 1);
    let said = ask(&root, "cut").expect(75).stderr;
    assert!(said.contains("the connection was cut"), "{said}");
}

/// Keeps others from opening a file, until this process ends or the kernel loses patience after three
/// quarters of a minute: what a file system that does not answer does for longer.
fn keep_from_being_opened(path: &str) -> fs::File {
    use std::os::fd::AsRawFd;

    use nix::libc;
    /// As in the kernel's `asm-generic/fcntl.h`.
    const F_SETSIG: libc::c_int = 10;
    let file = fs::File::options().write(true).open(path).unwrap();
    // SAFETY: both calls are given a descriptor that is open, and change nothing else. The signal by which
    // the kernel asks for the lease does nothing unless somebody wants it to.
    let kept = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
    };
    assert!(kept, "{path}: {}", std::io::Error::last_os_error());
    file
}

#[test]
fn certificates_that_cannot_be_read_hold_up_no_other_node() {
    let root = open_root("");
    let (other, httpd, token) = host("");
    let authority = Authority::new(&root);
    authority.signs("good", HERE, "-days 30");
    fs::copy(authority.path("ca.pem"), root.path("hangs.pem")).unwrap();
    let server = Lighttpd::start(&other, &authority, &["good"]);
    drain_localhost(&root);
    let hangs = root.path("hangs.pem").display().to_string();
    let (plain, ca) = (httpd.url(), authority.path("ca.pem"));
    // Whoever asks the first one asks all whose names have the same letters.
    for (name, uri, ca) in [
        ("abc", server.uri(0), Some(hangs.clone())),
        ("acb", plain.clone(), None),
        ("bac", server.uri(0), Some(ca.to_string())),
        ("bca", server.uri(0), Some(hangs.clone())),
        ("cba", plain, None),
    ] {
        register(&root, &json!({"name": name, "uri": uri, "ca": ca, "token": token}));
    }
    let kept = keep_from_being_opened(&hangs);
    let begun = Instant::now();
    let _poller = root.poller();
    for name in ["acb", "bac", "cba"] {
        node_reaches(&root, name, "connected");
    }
    for name in ["abc", "bca"] {
        said_of(&root, name, "hangs.pem: not read within 1s");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(kept);
    for name in ["abc", "bca"] {
        node_reaches(&root, name, "connected");
    }
    root.check();
    other.check();
}
