//! `scripts/ca`: what it makes, what it refuses, and what is left of it if it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use secure::{ca, ca_ok, mode, serial, text};
use stand_ins::SOURCE;

/// A place for an authority, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("authority-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    fn dir(&self) -> PathBuf {
        self.0.join("ca")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn openssl(words: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(words).stdin(Stdio::null()).output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Whether a certificate is good now, by the authority and its list.
fn is_good(dir: &Path, cert: &Path, purpose: &str) -> bool {
    let file = |name: &str| dir.join(name).display().to_string();
    let (good, said) = openssl(&[
        "verify",
        "-x509_strict",
        "-crl_check",
        "-purpose",
        purpose,
        "-CAfile",
        &file("ca.pem"),
        "-CRLfile",
        &file("crl.pem"),
        cert.to_str().unwrap(),
    ]);
    eprintln!("{}: {said}", cert.display());
    good
}

fn is_pair(dir: &Path) -> bool {
    let file = |name: &str| dir.join(name).display().to_string();
    let (one, public) = openssl(&["x509", "-in", &file("cert.pem"), "-noout", "-pubkey"]);
    let (other, own) = openssl(&["pkey", "-in", &file("key.pem"), "-pubout"]);
    one && other && public == own
}

fn refused(dir: &Path, words: &[&str], code: i32, part: &str) {
    let output = ca(dir, words);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(part), "{part:?} is not in {said}");
}

#[test]
fn what_an_authority_makes_renews_and_revokes() {
    let place = Place::new("life");
    let dir = place.dir();
    refused(&dir, &["server", "x"], 1, "there is no authority in");
    ca_ok(&dir, &["init", "--name", "Site 1"]);
    refused(&dir, &["init"], 1, "already");
    ca_ok(
        &dir,
        &["server", "node01.example", "--for", "10.0.0.2", "--for", "fd00::2", "--days", "30"],
    );
    ca_ok(&dir, &["client", "ann"]);
    ca_ok(&dir, &["client", "ben"]);
    for (path, expected) in [
        ("", 0o700),
        ("ca.key", 0o600),
        ("client/ann/key.pem", 0o600),
        ("server/node01.example/key.pem", 0o600),
    ] {
        assert_eq!(mode(&dir.join(path)), expected, "{path}");
    }
    let server = dir.join("server/node01.example");
    let (_, shown) =
        openssl(&["x509", "-noout", "-text", "-in", server.join("cert.pem").to_str().unwrap()]);
    for part in [
        "DNS:node01.example, IP Address:10.0.0.2, IP Address:FD00:0:0:0:0:0:0:2",
        "CA:FALSE",
        "TLS Web Server Authentication",
        "ASN1 OID: prime256v1",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
    assert!(is_good(&dir, &server.join("cert.pem"), "sslserver") && is_pair(&server));
    assert!(!is_good(&dir, &server.join("cert.pem"), "sslclient"));
    let ann = dir.join("client/ann");
    assert!(is_good(&dir, &ann.join("cert.pem"), "sslclient") && is_pair(&ann));
    assert!(!is_good(&dir, &ann.join("cert.pem"), "sslserver"));

    // Renewed: another certificate, the same key and names; the earlier one stays good.
    let (first, key) = (fs::canonicalize(&ann).unwrap(), fs::read(ann.join("key.pem")).unwrap());
    ca_ok(&dir, &["renew", "client", "ann"]);
    assert_ne!(serial(&first.join("cert.pem")), serial(&ann.join("cert.pem")));
    assert_eq!(fs::read(ann.join("key.pem")).unwrap(), key);
    assert!(is_good(&dir, &first.join("cert.pem"), "sslclient"));
    ca_ok(&dir, &["renew", "client", "ann", "--new-key"]);
    assert!(fs::read(ann.join("key.pem")).unwrap() != key && is_pair(&ann));
    ca_ok(&dir, &["renew", "server", "node01.example", "--for", "other.example"]);
    let (_, names) = openssl(&[
        "x509",
        "-noout",
        "-ext",
        "subjectAltName",
        "-in",
        server.join("cert.pem").to_str().unwrap(),
    ]);
    assert!(
        names.contains("DNS:node01.example, IP Address:10.0.0.2")
            && names.contains("other.example"),
        "{names}"
    );

    // One, and all of a name.
    ca_ok(&dir, &["revoke", first.join("cert.pem").to_str().unwrap()]);
    assert!(!is_good(&dir, &first.join("cert.pem"), "sslclient"));
    assert!(is_good(&dir, &ann.join("cert.pem"), "sslclient"));
    let last = fs::canonicalize(&ann).unwrap();
    ca_ok(&dir, &["revoke", "client", "ann"]);
    ca_ok(&dir, &["revoke", "client", "ann"]); // once more is the same
    assert!(!ann.exists() && !is_good(&dir, &last.join("cert.pem"), "sslclient"));
    assert!(is_good(&dir, &dir.join("client/ben/cert.pem"), "sslclient"));
    ca_ok(&dir, &["client", "ann"]);
    assert!(is_good(&dir, &ann.join("cert.pem"), "sslclient"));
    let listed = text(&ca(&dir, &["list"]).stdout);
    assert_eq!(listed.matches("revoked client/ann ").count(), 3, "{listed}");
    assert!(
        listed.contains("server/node01.example ") && listed.contains("client/ann "),
        "{listed}"
    );

    // Another authority's, and what is none.
    let other = place.0.join("other");
    ca_ok(&other, &["init"]);
    ca_ok(&other, &["client", "ann"]);
    let foreign = other.join("client/ann/cert.pem");
    refused(&dir, &["revoke", foreign.to_str().unwrap()], 1, "is not of this authority");
    refused(&dir, &["revoke", "/etc/hostname"], 1, "not a certificate");
    refused(&dir, &["client", "ann"], 1, "renew client ann --dir ");
    refused(&dir, &["renew", "client", "nobody"], 1, "make it by");
    refused(&dir, &["revoke", "client", "nobody"], 1, "nothing was ever made");
    refused(&dir, &["client", "late", "--days", "9999"], 1, "give fewer --days");
    for words in [
        &["client", "../x"][..],
        &["client", "a/CN=b"],
        &["server", "x", "--for", "http://x"],
        &["client", "x", "--for", "y"],
        &["client", "x", "--days", "0"],
        &["client"],
        &["client", "x", "y"],
        &["renew", "ann"],
        &["revoke"],
        &["nonsense"],
        &["--nonsense"],
        &[],
    ] {
        refused(&dir, words, 2, "try ");
    }
    let left: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("work"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let help = Command::new(format!("{SOURCE}/scripts/ca")).arg("--help").output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("usage: scripts/ca init"));
}

#[test]
fn an_authority_that_is_killed_at_work_leaves_nothing_half() {
    let place = Place::new("killed");
    let dir = place.dir();
    ca_ok(&dir, &["init"]);
    ca_ok(&dir, &["client", "ann"]);
    ca_ok(&dir, &["client", "out"]);
    let ann = dir.join("client/ann");
    for round in 0..24 {
        let words: &[&str] = match round % 3 {
            0 => &["renew", "client", "ann", "--new-key"],
            1 => &["revoke", "client", "out"],
            _ => &["renew", "client", "ann"],
        };
        let mut command = Command::new(format!("{SOURCE}/scripts/ca"));
        let mut child = command
            .args(words)
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // Not a wait for anything: each time it is killed at another moment.
        std::thread::sleep(Duration::from_millis(4 + 7 * round));
        // The group is the child's own, and it is not collected yet: nobody else has its number.
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).output();
        let _ = child.wait();
        assert!(is_pair(&ann) && is_good(&dir, &ann.join("cert.pem"), "sslclient"), "{round}");
        let (reads, said) =
            openssl(&["crl", "-noout", "-in", dir.join("crl.pem").to_str().unwrap()]);
        assert!(reads, "{said}");
    }
    ca_ok(&dir, &["revoke", "client", "out"]);
    ca_ok(&dir, &["renew", "client", "ann"]);
    assert!(is_good(&dir, &ann.join("cert.pem"), "sslclient"));
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with("work")));
    let out = fs::read_dir(dir.join("issued")).unwrap().map(|entry| entry.unwrap().path());
    for pair in out.filter(|path| path.display().to_string().contains("client-out-")) {
        assert!(!is_good(&dir, &pair.join("cert.pem"), "sslclient"));
    }
}
