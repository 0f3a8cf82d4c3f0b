//! Certificates of clients, by real handshakes with the lighttpd that `scripts/up` starts: whom it lets in,
//! as whom they ask, and that no other server's word counts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;
#[path = "common/tls.rs"]
mod tls;

use std::fs;
use std::path::{Path, PathBuf};

use common::head::CONF;
use common::{TestRoot, feed};
use corkboard::clock;
use secure::{Said, ca_ok, pair, served, soon, text};
use serde_json::{Value, json};
use stand_ins::Root;
use tls::{Authority, HERE};

fn submitted(said: Said) -> u64 {
    said.expect(201).json()["job"].as_u64().unwrap()
}

#[test]
fn who_has_a_certificate_that_is_known_asks_as_its_user() {
    let root = served("users", "ask");
    let (ann, ben) = (root.client("ann"), root.client("ben"));
    let ask = |client: &Path, args: &[&str], path: &str| root.curl_as(client, args, path);
    let jobs = "/scheduler/jobs";

    let said = ask(&ann, &[], jobs).expect(401).body;
    assert!(
        said.contains("certificate is not known here: make it known by `scheduler tokens new"),
        "{said}"
    );
    let id = root.knows(&ann, &["role=user", "user=ann"]);
    root.knows(&ben, &["role=user", "user=ben", "name=ben at home"]);
    let again = root.program(
        "scheduler",
        &[
            "tokens",
            "new",
            "role=admin",
            &format!("certificate={}", ann.join("cert.pem").display()),
        ],
        &[],
    );
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(text(&again.stderr).contains("exists already: it is user ann's"), "{again:?}");

    // Its jobs are its user's.
    let held = r#"{"command": ["true"], "state": "held", "environment": {"X": "hidden"}}"#;
    let job = submitted(ask(&ann, &["-d", held], "/scheduler/jobs/new"));
    assert_eq!(
        ask(&ann, &[], &format!("{jobs}/{job}")).expect(200).json()["request"]["environment"]["X"],
        "hidden"
    );
    ask(&ben, &[], &format!("{jobs}/{job}")).expect(403);
    ask(&ben, &["-d", ""], &format!("{jobs}/{job}/update?kill=1")).expect(403);
    root.curl(&[], jobs).expect(401);

    // A token decides, whatever certificate comes with it; a wrong one is no certificate.
    let bens = root.scheduler(&["tokens", "new", "-q", "role=user", "user=ben"]);
    let bearer = |token: &str| format!("Authorization: Bearer {}", token.trim());
    ask(&ann, &["-H", &bearer(&bens)], &format!("{jobs}/{job}")).expect(403);
    ask(&ann, &["-H", &bearer("cb_1_2")], jobs).expect(401);
    // Nor does the certificate's own record take a token.
    let der = format!("cb_{id}_{}", "0".repeat(64));
    root.curl(&["-H", &bearer(&der)], jobs).expect(401);
    root.curl(&["-H", &bearer(&format!("cb_{id}_"))], jobs).expect(401);

    // A browser shows it for whatever page asks.
    ask(&ann, &["-H", "Origin: https://evil.example"], jobs).expect(403);
    ask(&ann, &["-H", "Sec-Fetch-Site: cross-site"], jobs).expect(403);
    ask(&ann, &["-H", &format!("Origin: https://127.0.0.1:{}", root.port())], jobs).expect(200);

    // What a client says of itself is no word of the server.
    let pem = fs::read_to_string(ann.join("cert.pem")).unwrap().replace('\n', " ");
    for name in ["SSL_CLIENT_VERIFY", "SSL-CLIENT-VERIFY", "X-SSL-Client-Verify", "X-Client-Verify"]
    {
        let (verify, cert) = (format!("{name}: SUCCESS"), format!("SSL-CLIENT-CERT: {pem}"));
        root.curl(&["-H", &verify, "-H", &cert], jobs).expect(401);
    }

    // The list tells of it, and only there is its digest.
    let listed: Value = serde_json::from_str(&root.scheduler(&["tokens"])).unwrap();
    let its = listed["tokens"].as_array().unwrap().iter().find(|one| one["id"] == *id).unwrap();
    assert_eq!((&its["kind"], &its["user"]), (&json!("certificate"), &json!("ann")));
    assert!(its["certificate"].as_str().unwrap().starts_with(&*id), "{its}");

    // Renewed it is another, which is made known beside the first.
    let before = fs::canonicalize(&ann).unwrap();
    ca_ok(&root.ca_dir(), &["renew", "client", "ann"]);
    ask(&ann, &[], jobs).expect(401);
    root.knows(&ann, &["role=user", "user=ann"]);
    for client in [&before, &ann] {
        assert_eq!(
            ask(client, &[], &format!("{jobs}/{job}")).expect(200).json()["request"]["environment"]
                ["X"],
            "hidden"
        );
    }

    // Removed, it is refused at once, and who waits is told so.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask(&before, &[], &format!("{jobs}/{job}/status?wait=60")));
        soon(|| {
            let waiting = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                fs::read(entry.path().join("environ")).is_ok_and(|all| {
                    let all = text(&all);
                    all.contains("QUERY_STRING=wait=60") && all.contains(root.dir.to_str().unwrap())
                })
            });
            if waiting { Ok(()) } else { Err("nobody waits".into()) }
        });
        root.scheduler(&["tokens", "rm", &id]);
        waits.join().unwrap().expect(401);
    });
    ask(&before, &[], jobs).expect(401);
    ask(&ann, &[], jobs).expect(200);
    ask(&ann, &["-d", ""], &format!("{jobs}/{job}/update?kill=1")).expect(200);

    // So it is when its time is over.
    let short = root.client("short");
    let soon_over =
        clock::rfc3339(std::time::SystemTime::now() + std::time::Duration::from_secs(3));
    root.knows(&short, &["role=viewer", "user=ann", &format!("expires={soon_over}")]);
    ask(&short, &["-d", held], "/scheduler/jobs/new").expect(403);
    soon(|| {
        let said = ask(&short, &[], jobs);
        if said.code == 401 && said.body.contains("is over (expires)") {
            Ok(())
        } else {
            Err(said.body)
        }
    });
    root.check();
}

/// A client's certificate that is signed for another time than now.
fn dated(authority: &Authority, name: &str, time: &str) -> PathBuf {
    authority.signs(name, HERE, time);
    let dir = PathBuf::from(authority.path(&format!("client/{name}")));
    fs::create_dir_all(&dir).unwrap();
    for (from, to) in [("pem", "cert.pem"), ("key", "key.pem")] {
        fs::copy(authority.path(&format!("{name}.{from}")), dir.join(to)).unwrap();
    }
    dir
}

#[test]
fn handshakes_with_whom_is_let_in_and_with_whom_is_not() {
    let root = served("handshakes", "demand");
    let good = root.client("good");
    root.knows(&good, &["role=admin", "user=good"]);
    let revoked = fs::canonicalize(root.client("revoked")).unwrap();
    root.knows(&revoked, &["role=admin", "user=revoked"]);
    ca_ok(&root.ca_dir(), &["revoke", "client", "revoked"]);
    root.up_ok(&[]);
    let authority = Authority::at(&root.ca_dir());
    let old = dated(&authority, "old", "-startdate 200101000000Z -enddate 210101000000Z");
    let early = dated(&authority, "early", "-startdate 380101000000Z -enddate 390101000000Z");
    let other = root.dir.join("other");
    ca_ok(&other, &["init"]);
    ca_ok(&other, &["client", "good"]);
    for client in [&old, &early, &other.join("client/good")] {
        root.knows(client, &["role=admin", "user=x"]);
    }
    let url = format!("https://127.0.0.1:{}", root.port());
    let trusted = root.ca_dir().join("ca.pem").display().to_string();
    // The same by curl and by our own client.
    let command = |client: Option<&Path>| {
        let files = client.map(|dir| {
            (dir.join("cert.pem").display().to_string(), dir.join("key.pem").display().to_string())
        });
        let mut env = vec![("CORKBOARD_CA", trusted.as_str())];
        if let Some((cert, key)) = &files {
            env.extend([("CORKBOARD_CERT", cert.as_str()), ("CORKBOARD_KEY", key.as_str())]);
        }
        root.program("scheduler", &["--url", &url, "nodes", "list"], &env)
    };
    for version in ["1.2", "1.3"] {
        let only = ["--tlsv1.2", "--tls-max", version];
        root.curl_as(&good, &only, "/scheduler/jobs").expect(200);
        for client in [&revoked, &old, &early, &other.join("client/good")] {
            root.curl_as(client, &only, "/scheduler/jobs").expect(0);
        }
        root.curl(&only, "/scheduler/jobs").expect(0);
    }
    assert_eq!(command(Some(&good)).status.code(), Some(0));
    for (client, part) in [
        (None, "it demands a certificate: name one"),
        (Some(&*revoked), "was revoked"),
        (Some(&*old), "has expired"),
        (Some(&*early), "which may not be valid yet by its clock"),
        (Some(&*other.join("client/good")), "it does not know the issuer of"),
    ] {
        let output = command(client);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{part}: {said}");
        assert!(said.contains(part), "{part:?} is not in {said}");
    }

    // Where certificates are asked for, those that are no good count for nothing.
    root.up_ok(&["--client-certs", "ask"]);
    root.curl_as(&good, &[], "/scheduler/jobs").expect(200);
    root.curl(&[], "/scheduler/jobs").expect(401);
    for (client, part) in [
        (&revoked, "it was revoked"),
        (&old, "it has expired"),
        (&early, "it is not valid yet"),
        (&other.join("client/good"), "its issuer is not one"),
    ] {
        let said = root.curl_as(client, &[], "/scheduler/jobs").expect(401).body;
        assert!(said.contains("the server does not accept the certificate (FAILED"), "{said}");
        assert!(said.contains(part), "{part:?} is not in {said}");
        root.curl_as(client, &["-H", &admin(&root)], "/scheduler/jobs").expect(200);
    }
    // Another host than the certificate is for.
    let resolve = format!("elsewhere.example:{}:127.0.0.1", root.port());
    let mut elsewhere = std::process::Command::new("curl");
    elsewhere.args(["-sS", "--cacert", &trusted, "--resolve", &resolve]);
    let output =
        elsewhere.arg(format!("https://elsewhere.example:{}/", root.port())).output().unwrap();
    assert_eq!(output.status.code(), Some(60), "{output:?}");
    root.check();
}

fn admin(root: &Root) -> String {
    root.read("run/admin.header").trim().to_string()
}

/// What the server of `up --client-certs` puts into a program's environment.
fn word<'a>(verify: &'a str, pem: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("SERVER_SOFTWARE", "corkboard-certificates"),
        ("HTTPS", "on"),
        ("SSL_CLIENT_VERIFY", verify),
        ("SSL_CLIENT_CERT", pem),
    ]
}

#[test]
fn no_other_servers_word_on_certificates_counts() {
    let root = TestRoot::new(CONF);
    let authority = root.path("ca");
    ca_ok(&authority, &["init"]);
    ca_ok(&authority, &["client", "ann"]);
    let cert = authority.join("client/ann/cert.pem");
    let file = format!("certificate={}", cert.display());
    root.cmd("scheduler", &["tokens", "new", "role=admin", "user=ann", &file]).expect(0);
    let pem = fs::read_to_string(&cert).unwrap();
    let ask = |env: &[(&str, &str)]| {
        let mut command = root.cgi_command("GET", "/scheduler/jobs", &[]);
        command.envs(env.iter().copied());
        common::answered(&feed(&mut command, b"")).code
    };
    // By the very words of that server, and by them alone.
    assert_eq!(ask(&word("SUCCESS", &pem)), 200);
    for verify in [
        "",
        "NONE",
        "success",
        "SUCCESS ",
        " SUCCESS",
        "SUCCESSFUL",
        "FAILED:SUCCESS",
        "GENEROUS",
        "1",
    ] {
        assert_eq!(ask(&word(verify, &pem)), 401, "{verify:?}");
    }
    for pem in ["", "SUCCESS", "-----BEGIN CERTIFICATE-----\n", &pem.replace("CERTIFICATE", "KEY")]
    {
        assert_eq!(ask(&word("SUCCESS", pem)), 401, "{pem:?}");
    }
    for left_out in 0..4 {
        let mut env = word("SUCCESS", &pem);
        env.remove(left_out);
        assert_eq!(ask(&env), 401, "{env:?}");
    }
    let mut env = word("SUCCESS", &pem);
    env[0].1 = "lighttpd/1.4.69";
    assert_eq!(ask(&env), 401);
    env[0] = ("HTTP_SERVER_SOFTWARE", "corkboard-certificates");
    assert_eq!(ask(&env), 401);

    // busybox hands on what it was started with, but not its own name.
    let port = stand_ins::free_port();
    let httpd = root.try_httpd(port, &word("SUCCESS", &pem)).expect("the port is free");
    httpd.curl(&[], "/scheduler/jobs").expect(401);
    drop(httpd);
    root.open();
    let httpd = root.try_httpd(port, &word("FAILED:x", &pem)).expect("the port is free");
    httpd.curl(&[], "/scheduler/jobs").expect(200);
    assert!(pair(&authority.join("client/ann")).len() == 4);
    root.check();
}
