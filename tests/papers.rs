//! The papers of a server: by what its own head believes a certificate that was given to `scripts/up`, one
//! that nobody would believe, and lists of what is revoked that hold. And what its programs are given.
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
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secure::{ca_ok, serial, soon, text};
use stand_ins::{Httpd, Root, SOURCE, free_port, is_alive};
use tls::{Authority, HERE};

/// Somebody's authority, and a certificate of it for this machine, with its key, in a directory each.
fn handed_out(root: &Root) -> (PathBuf, PathBuf) {
    let (site, papers) = (root.dir.join("site"), root.dir.join("papers"));
    ca_ok(&site, &["init", "--name", "the site"]);
    ca_ok(&site, &["server", "here", "--for", "localhost", "--for", "127.0.0.1"]);
    let copied = Command::new("cp").arg("-rL").arg(site.join("server/here")).arg(&papers).status();
    assert!(copied.unwrap().success());
    (site, papers)
}

/// What the record of this machine has as its `ca`.
fn ca_of(root: &Root) -> String {
    let record: serde_json::Value =
        serde_json::from_str(&root.read("state/scheduler/nodes/localhost.json")).unwrap();
    record["ca"].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_certificate_of_the_sites_authority_is_believed_by_its_own_head() {
    let root = Root::real("papers-site");
    let (site, papers) = handed_out(&root);
    let file = |name: &str| papers.join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let given = ["--server", "lighttpd", "--tls", "--cert", &cert, "--key", &key];
    // As the page says: the copy of ca.pem lies beside it.
    root.up_ok(&given);
    assert_eq!(ca_of(&root), file("ca.pem"));
    root.scheduler(&["jobs", "new", "--wait", "--", "true"]);
    // Another place, which is remembered.
    let other = root.dir.join("other.pem").display().to_string();
    fs::rename(file("ca.pem"), &other).unwrap();
    root.up_ok(&["--ca", &other]);
    root.up_ok(&[]);
    assert_eq!(ca_of(&root), other);
    // One that it does not lead to.
    let strange = root.dir.join("strange");
    ca_ok(&strange, &["init"]);
    let strange = strange.join("ca.pem").display().to_string();
    let refused = root.up(&["--ca", &strange]);
    assert!(text(&refused.stderr).contains("does not lead to"), "{refused:?}");
    // By hand.
    assert!(root.down(&[]).status.success());
    let by_hand = site.join("ca.pem").display().to_string();
    let update = format!(r#"{{"ca": "{by_hand}"}}"#);
    root.scheduler(&["nodes", "localhost", "update", "-d", &update]);
    root.up_ok(&given);
    assert_eq!(ca_of(&root), by_hand);
    root.up_ok(&[]);
    assert_eq!(ca_of(&root), by_hand);
    root.scheduler(&["jobs", "new", "--wait", "--", "true"]);
    // A root's own authority again.
    assert!(root.down(&[]).status.success());
    root.up_ok(&["--server", "lighttpd", "--tls"]);
    assert_eq!(ca_of(&root), root.ca_dir().join("ca.pem").display().to_string());
    root.check();
}

#[test]
fn a_certificate_that_is_not_valid_now_is_refused_before_it_is_served() {
    let root = Root::real("papers-dates");
    let place = root.dir.join("authority");
    fs::create_dir_all(&place).unwrap();
    let authority = Authority::at(&place);
    authority.self_signed("ca", "authority", HERE);
    for (name, time, word) in [
        ("ended", "-startdate 200101000000Z -enddate 210101000000Z", "expired at 2021-01-01T"),
        ("coming", "-startdate 380101000000Z -enddate 390101000000Z", "not valid before 2038-01"),
    ] {
        authority.signs(name, HERE, time);
        let (cert, key) =
            (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")));
        let refused = root.up(&["--server", "lighttpd", "--tls", "--cert", &cert, "--key", &key]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(word), "{refused:?}");
        assert!(text(&refused.stderr).contains(&cert), "{refused:?}");
        assert!(!root.dir.join("run/httpd.pid").exists());
    }
}

/// Serials that a list of an authority names.
fn listed(ca: &Path) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(["crl", "-noout", "-text", "-in"]).arg(ca.join("crl.pem")).output();
    text(&output.unwrap().stdout)
}

#[test]
fn what_is_said_to_be_revoked_is_durable_and_gets_on_the_list() {
    let root = Root::real("papers-revoked");
    let ca = root.ca_dir();
    ca_ok(&ca, &["init"]);
    ca_ok(&ca, &["client", "ann"]);
    let ann = serial(&ca.join("client/ann/cert.pem"));
    let ann = ann.trim().trim_start_matches("serial=");
    fs::copy(ca.join("crl.pem"), root.dir.join("before.pem")).unwrap();
    let traced = Command::new("strace")
        .args(["-f", "-y", "-qq", "-o"])
        .arg(root.dir.join("trace"))
        .args(["-e", "trace=rename,renameat,renameat2,fsync,fdatasync"])
        .arg(format!("{SOURCE}/scripts/ca"))
        .args(["revoke", "client", "ann", "--dir"])
        .arg(&ca)
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    // The directory is synced behind each name that it got.
    let directory = format!("<{}>", ca.display());
    for name in ["revoked", "crl.pem"] {
        let trace = root.read("trace");
        let done: Vec<&str> = trace.lines().filter(|line| line.ends_with(" = 0")).collect();
        let renamed = format!("{}/{name}\"", ca.display());
        let mut after =
            done.iter().skip_while(|line| !(line.contains("rename") && line.contains(&renamed)));
        assert!(after.next().is_some(), "{name} got no name: {trace}");
        let next = after.find(|line| line.contains("rename") || line.contains(&directory));
        assert!(next.is_some_and(|line| line.contains("sync(")), "{name}: {trace}");
    }
    assert!(listed(&ca).contains(ann));
    // As the power can leave it.
    fs::copy(root.dir.join("before.pem"), ca.join("crl.pem")).unwrap();
    let touched = Command::new("touch").args(["-d", "1 hour ago"]).arg(ca.join("crl.pem")).status();
    assert!(touched.unwrap().success() && !listed(&ca).contains(ann));
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "ask"]);
    assert!(listed(&ca).contains(ann));
}

#[test]
fn down_leaves_a_server_alone_that_has_another_root_of_the_same_name() {
    let root = Root::real("papers-foreign");
    root.up_ok(&["--server", "lighttpd"]);
    assert!(root.down(&[]).status.success());
    // As in a container: another directory lies in that place, for that server alone.
    let (place, other) = (root.dir.display().to_string(), root.dir.with_file_name("other"));
    fs::create_dir_all(other.join("run")).unwrap();
    let port = free_port();
    let conf = format!(
        "server.document-root = \"/usr\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n"
    );
    fs::write(other.join("run/lighttpd.conf"), conf).unwrap();
    let script = format!(
        "PATH=$PATH:/usr/sbin && mount --bind {} {place} && exec \"$(command -v lighttpd)\" -D -f {place}/run/lighttpd.conf",
        other.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]).stdin(Stdio::null());
    let server = Httpd(command.spawn().expect("unshare is needed"));
    let pid = server.0.id().to_string();
    soon(|| match std::net::TcpStream::connect(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(e) if is_alive(&pid) => Err(e.to_string()),
        Err(e) => panic!("it has ended: {e}"),
    });
    assert!(root.down(&[]).status.success());
    assert!(is_alive(&pid));
}

/// Runs a script as root that may not raise a limit: as in a container.
fn without_right(root: &Root, name: &str, words: &[&str]) -> String {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]);
    let output = command
        .arg(format!("{SOURCE}/scripts/{name}"))
        .args(["--root", root.dir.to_str().unwrap(), "--programs", root.programs.to_str().unwrap()])
        .args(words)
        .output()
        .unwrap();
    eprintln!("{name} {words:?}: {output:?}");
    assert!(output.status.success());
    text(&output.stderr)
}

/// Submits a job by HTTP, and how long it took until it ran.
fn until_it_runs(root: &Root) -> Duration {
    let begun = Instant::now();
    let made = root.curl(&["-d", r#"{"command": "true"}"#], "/scheduler/jobs/new").expect(201);
    let job = made.json()["job"].to_string();
    let path = format!("/scheduler/jobs/{job}/status?wait=45");
    let ended = root.curl(&[], &path).expect(200).json();
    assert_eq!(ended["status"], "good", "{ended}");
    begun.elapsed()
}

#[test]
fn a_server_that_may_not_raise_limits_leaves_no_job_to_the_poller() {
    let root = Root::real("papers-limits");
    fs::write(root.dir.join("corkboard.conf"), "scan_every = 60s\n").unwrap();
    without_right(&root, "up", &["--server", "lighttpd", "--open"]);
    let took = until_it_runs(&root);
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    // A poller that was started later, by somebody with more.
    assert!(root.down(&[]).status.success());
    let less = Command::new("bash")
        .args(["-c", "ulimit -n 5000 && exec setpriv --bounding-set -sys_resource --inh-caps -sys_resource \"$@\"", "up"])
        .arg(format!("{SOURCE}/scripts/up"))
        .args(["--root", root.dir.to_str().unwrap(), "--programs", root.programs.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(less.status.success() && !text(&less.stderr).contains("less"), "{less:?}");
    let poller = root.pid("poller");
    let ended = Command::new("kill").arg(&poller).status().unwrap();
    assert!(ended.success());
    soon(|| if is_alive(&poller) { Err("it lives".to_string()) } else { Ok(()) });
    let said = without_right(&root, "up", &[]);
    assert!(said.contains("started with less (max open files) than the poller"), "{said}");
}
