//! lighttpd as the server of a root, started by `scripts/up`: the walkthrough over it, what `up` remembers,
//! and how it takes in other certificates.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use secure::{ca_ok, serial, soon, text};
use stand_ins::{Root, get, is_alive};

/// One job's life and what is around it, by curl.
fn walk_through(root: &Root) {
    let ask = |args: &[&str], path: &str| root.curl_admin(args, path);
    let page = root.read("run/url").trim().replace("/cgi-bin", "/");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--cacert"]).arg(root.ca_dir().join("ca.pem"));
    let plain = !page.starts_with("https");
    let output = if plain {
        Command::new("curl").args(["-sS", &page]).output()
    } else {
        curl.arg(&page).output()
    };
    assert!(text(&output.unwrap().stdout).contains("Corkboard"));
    let new = ask(
        &["-d", r#"{"action": "add_job", "command": ["echo", "hello"]}"#],
        "/scheduler/jobs/new",
    );
    let job = new.expect(201).json()["job"].as_u64().unwrap();
    let nodes = ask(&[], "/scheduler/nodes/list").expect(200).json();
    let uri = root.read("run/url").trim().replace("/cgi-bin", "");
    assert_eq!(
        (&nodes["nodes"][0]["name"], &nodes["nodes"][0]["uri"]),
        (&"localhost".into(), &uri.into())
    );
    let status = ask(&[], &format!("/scheduler/jobs/{job}/status?wait=30")).expect(200).json();
    assert_eq!((&status["status"], &status["node"]), (&"good".into(), &"localhost".into()));
    assert_eq!(ask(&[], &format!("/scheduler/jobs/{job}/log")).expect(200).body, "hello\n");
    assert!(
        ask(&[], "/scheduler/jobs").expect(200).body.lines().any(|line| line == job.to_string())
    );

    // A file goes along, one that is not small.
    let input = root.dir.join("run/input.dat");
    fs::write(&input, vec![b'x'; 5 << 20]).unwrap();
    let file = format!("file=@{}", input.display());
    let request = r#"job={"command": "wc -c < input.dat && seq 200000"};type=application/json"#;
    let job = ask(&["-F", request, "-F", &file], "/scheduler/jobs/new").expect(201).json()["job"]
        .to_string();
    ask(&[], &format!("/scheduler/jobs/{job}/status?wait=30")).expect(200);
    let log = ask(&[], &format!("/scheduler/jobs/{job}/log")).expect(200).body;
    assert!(
        log.starts_with("5242880\n1\n2\n") && log.ends_with("\n200000\n"),
        "{} bytes",
        log.len()
    );
    soon(|| match fs::read_dir(root.dir.join("run/arriving")).unwrap().count() {
        0 => Ok(()),
        left => Err(format!("{left} files of requests that have ended")),
    });

    // A log is followed while it is written, and a job is killed meanwhile.
    let request = r#"{"command": "echo begun; sleep 1000"}"#;
    let job = ask(&["-d", request], "/scheduler/jobs/new").expect(201).json()["job"].to_string();
    let mut follow = Command::new("curl");
    follow.args(["-sSN", "--max-time", "60", "-H", root.read("run/admin.header").trim()]);
    if !plain {
        follow.arg("--cacert").arg(root.ca_dir().join("ca.pem"));
    }
    let url = format!("{}/scheduler/jobs/{job}/log?follow=1", root.read("run/url").trim());
    let mut follow = follow.arg(url).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    follow.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"begun\n");
    ask(&["-d", ""], &format!("/scheduler/jobs/{job}/update?kill=1")).expect(202);
    assert!(follow.wait().unwrap().success());
    let status = ask(&[], &format!("/scheduler/jobs/{job}/status?wait=30")).expect(200).json();
    assert_eq!(status["cause"], "killed");
    // Refusals reach whoever asks, and Basic is accepted here.
    root.curl(&[], "/scheduler/jobs").expect(401);
    let token = format!("{}:", root.read("run/admin.token").trim());
    root.curl(&["-u", &token], "/scheduler/jobs").expect(200);
    ask(&[], "/scheduler/jobs/99/status").expect(404);
    for path in
        ["/README.md", "/.hidden", "/", "/scheduler.new.1", "/%2e%2e/run/port", "/../httpd.conf"]
    {
        let said = ask(&["--path-as-is"], path);
        assert!([400, 403, 404].contains(&said.code), "{path}: {said:?}");
    }
    root.check();
}

#[test]
fn the_walkthrough_over_lighttpd() {
    let root = Root::real("lighttpd-plain");
    root.up_ok(&["--server", "lighttpd"]);
    assert!(root.read("run/url").starts_with("http://127.0.0.1:"));
    walk_through(&root);
}

#[test]
fn the_walkthrough_over_tls() {
    let root = Root::real("lighttpd-tls");
    root.up_ok(&["--server", "lighttpd", "--tls"]);
    assert!(root.read("run/url").starts_with("https://127.0.0.1:"));
    walk_through(&root);
}

#[test]
fn up_remembers_its_server_and_is_one_up() {
    let root = Root::real("lighttpd-twice");
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "demand"]);
    let before = (root.pid("httpd"), root.pid("poller"), root.port(), root.read("run/url"));
    let now = || (root.pid("httpd"), root.pid("poller"), root.port(), root.read("run/url"));
    root.up_ok(&[]);
    let own = Command::new(root.dir.join("scripts/up")).output().unwrap(); // from the installed root alone
    assert!(own.status.success(), "{own:?}");
    assert_eq!(before, now());
    root.curl(&[], "/scheduler/jobs").expect(0);
    let help = Command::new(root.dir.join("scripts/ca")).arg("list").output().unwrap();
    assert!(text(&help.stdout).contains("client/head "), "{help:?}");

    // It ends with all its processes, and comes again as it was.
    assert!(root.down(&[]).status.success());
    assert!(!is_alive(&before.0));
    root.up_ok(&[]);
    assert_eq!((root.port(), root.read("run/url")), (before.2, before.3.clone()));
    root.curl(&[], "/scheduler/jobs").expect(0);
    let pair = root.ca_dir().join("client/head");
    root.curl_as(&pair, &["-H", root.read("run/admin.header").trim()], "/scheduler/jobs")
        .expect(200);

    // Another kind of server only after `down`; without TLS where a server is named without.
    let other = root.up(&["--server", "busybox"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stderr).contains("and is lighttpd; "), "{other:?}");
    root.up_ok(&["--server", "lighttpd"]);
    assert_eq!(root.read("run/url"), before.3.replace("https", "http"));
    root.curl_admin(&[], "/scheduler/jobs").expect(200);
    assert!(root.down(&[]).status.success());
    root.up_ok(&["--server", "busybox"]);
    assert!(get(root.port(), "/cgi-bin/scheduler/jobs", "").contains(" 401 "));
    root.scheduler(&["jobs", "new", "--wait", "--", "true"]);
    for (words, part) in [
        (&["--tls"][..], "busybox httpd has no TLS"),
        (&["--server", "nginx"], "must be busybox or lighttpd"),
        (&["--server", "lighttpd", "--client-certs", "ask"], "--client-certs is for --tls"),
        (&["--server", "lighttpd", "--tls", "--client-certs", "yes"], "must be ask or demand"),
        (&["--server", "lighttpd", "--tls", "--key", "/x"], "--key is for --cert"),
        (
            &["--server", "lighttpd", "--tls", "--crl", "/x", "--client-certs", "ask"],
            "--crl is for --client-ca",
        ),
    ] {
        let output = root.up(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(text(&output.stderr).contains(part), "{words:?}: {output:?}");
    }
    root.check();
}

#[test]
fn an_address_of_ipv6_and_an_authority_that_ends_soon() {
    let root = Root::real("lighttpd-six");
    ca_ok(&root.ca_dir(), &["init", "--days", "100"]);
    root.up_ok(&["--server", "lighttpd", "--tls", "--bind", "[::1]"]);
    assert!(root.read("run/url").starts_with("https://[::1]:"), "{}", root.read("run/url"));
    root.curl_admin(&[], "/scheduler/nodes/list").expect(200);
    // What a server that was told to read anew still had to answer ends with it.
    let conf = root.dir.join("run/lighttpd.conf").display().to_string();
    let servers = || {
        let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            words.split('\0').any(|word| word == conf).then_some(pid)
        });
        all.collect::<Vec<i32>>()
    };
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "ask"]);
    assert!(root.down(&[]).status.success());
    assert!(servers().is_empty(), "{:?}", servers());
    root.check();
}

#[test]
fn certificates_of_another_authority_are_taken_as_they_are() {
    let root = Root::real("lighttpd-given");
    let site = root.dir.join("site");
    ca_ok(&site, &["init", "--name", "the site"]);
    ca_ok(&site, &["server", "localhost"]);
    ca_ok(&site, &["client", "head"]);
    let file = |name: &str| site.join(name).display().to_string();
    // As a chain: with what leads to the issuer.
    let chain = [file("server/localhost/cert.pem"), file("ca.pem")]
        .map(|path| fs::read_to_string(path).unwrap());
    fs::write(site.join("chain.pem"), chain.concat()).unwrap();
    let (chain, key, ca) = (file("chain.pem"), file("server/localhost/key.pem"), file("ca.pem"));
    let loose = site.join("loose.key");
    fs::copy(&key, &loose).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&loose, mode).unwrap();
    let base = ["--server", "lighttpd", "--tls", "--cert", &chain];
    let refused = root.up(&[&base[..], &["--key", loose.to_str().unwrap()]].concat());
    assert!(text(&refused.stderr).contains("everybody may use"), "{refused:?}");
    let refused = root.up(&[&base[..], &["--key", "/nowhere/key.pem"]].concat());
    assert!(text(&refused.stderr).contains("cannot be read"), "{refused:?}");
    let clients = ["--key", &key, "--client-certs", "demand", "--client-ca", &ca];
    let refused = root.up(&[&base[..], &clients].concat());
    assert!(text(&refused.stderr).contains("the head needs one, too"), "{refused:?}");
    let (cert, own) = (file("client/head/cert.pem"), file("client/head/key.pem"));
    let (head, crl) = (["--head-cert", &cert, "--head-key", &own], file("crl.pem"));
    root.up_ok(&[&base[..], &clients, &["--crl", &crl], &head].concat());
    assert!(!root.ca_dir().exists());
    // Its name is the certificate's, since the address is not in it.
    assert_eq!(root.read("run/url"), format!("https://localhost:{}/cgi-bin\n", root.port()));
    root.scheduler(&["jobs", "new", "--wait", "--", "true"]);
    root.up_ok(&[]);
    root.scheduler(&["jobs", "new", "--wait", "--", "true"]);
    root.check();
}

#[test]
fn renewal_and_revocation_end_no_request_and_no_job() {
    let root = Root::real("lighttpd-renewal");
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "ask"]);
    let ann = fs::canonicalize(root.client("ann")).unwrap();
    root.knows(&ann, &["role=user", "user=ann"]);
    let long = r#"{"command": "until [ -e go ]; do sleep 0.1; done; echo done", "dir": "DIR"}"#;
    let long = long.replace("DIR", root.dir.join("run").to_str().unwrap());
    let job = root.curl_admin(&["-d", &long], "/scheduler/jobs/new").expect(201).json()["job"]
        .to_string();
    let status = format!("/scheduler/jobs/{job}/status");
    soon(|| {
        let seen = root.curl_admin(&[], &status).expect(200).json();
        if seen["state"] == "running" { Ok(()) } else { Err(seen.to_string()) }
    });
    let name = text(&Command::new("uname").arg("-n").output().unwrap().stdout);
    let cert = root.ca_dir().join("server").join(name.trim()).join("cert.pem");
    assert_eq!(root.shown_serial(), serial(&cert));
    let session = root.dir.join("run/session");
    let resumed = |more: &[&str]| {
        let script = "(printf 'GET /cgi-bin/scheduler/jobs HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n'; sleep 1) | timeout 10 openssl s_client -connect \"$@\" 2>&1";
        let mut command = Command::new("bash");
        command.args(["-c", script, "s", &format!("127.0.0.1:{}", root.port()), "-ign_eof"]);
        command.args(["-cert", ann.join("cert.pem").to_str().unwrap()]);
        command.args(["-key", ann.join("key.pem").to_str().unwrap()]).args(more);
        text(&command.output().unwrap().stdout)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let file = session.with_extension(&version[1..]);
        let said = resumed(&[version, "-sess_out", file.to_str().unwrap()]);
        assert!(said.contains("HTTP/1.0 200"), "{said}");
        let said = resumed(&[version, "-sess_in", file.to_str().unwrap()]);
        assert!(said.contains("Reused, ") && said.contains("HTTP/1.0 200"), "{said}");
    }

    let server = root.pid("httpd");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| root.curl_admin(&[], &format!("{status}?wait=60")));
        soon(|| {
            let waiting = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                fs::read(entry.path().join("environ")).is_ok_and(|all| {
                    let all = text(&all);
                    all.contains("QUERY_STRING=wait=60") && all.contains(root.dir.to_str().unwrap())
                })
            });
            if waiting { Ok(()) } else { Err("nobody waits".into()) }
        });
        ca_ok(&root.ca_dir(), &["renew", "server", name.trim(), "--new-key"]);
        ca_ok(&root.ca_dir(), &["revoke", "client", "ann"]);
        root.up_ok(&[]);
        soon(|| {
            let shown = root.shown_serial();
            if shown == serial(&cert) { Ok(()) } else { Err(shown) }
        });
        assert_eq!(root.pid("httpd"), server);
        assert!(!waits.is_finished());
        // Also where a session goes on that was begun before.
        root.curl_as(&ann, &[], "/scheduler/jobs").expect(401);
        for version in ["-tls1_2", "-tls1_3"] {
            let file = session.with_extension(&version[1..]);
            let said = resumed(&[version, "-sess_in", file.to_str().unwrap()]);
            assert!(said.contains("HTTP/1.0 401"), "{said}");
        }
        fs::write(root.dir.join("run/go"), "").unwrap();
        let status = waits.join().unwrap().expect(200).json();
        assert_eq!((&status["state"], &status["status"]), (&"stopped".into(), &"good".into()));
    });
    assert_eq!(
        root.curl_admin(&[], &format!("/scheduler/jobs/{job}/log")).expect(200).body,
        "done\n"
    );
    // Broken certificates are said, and the server goes on with those that it has.
    let shown = root.shown_serial();
    let pair = fs::canonicalize(cert.parent().unwrap()).unwrap();
    let good = fs::read(pair.join("key.pem")).unwrap();
    fs::write(pair.join("key.pem"), "no key\n").unwrap();
    let refused = root.up(&[]);
    assert!(text(&refused.stderr).contains("lighttpd refuses its configuration"), "{refused:?}");
    assert_eq!((root.shown_serial(), root.pid("httpd")), (shown, server));
    fs::write(pair.join("key.pem"), good).unwrap();
    root.up_ok(&[]);
    root.check();
}
