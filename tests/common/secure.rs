//! A root that `scripts/up` serves by lighttpd, its authority, and curl to ask it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stand_ins::{Root, SOURCE};

/// What curl was answered. Code 0: no answer, and `body` says why.
#[derive(Debug)]
pub struct Said {
    pub code: u16,
    pub body: String,
}

impl Said {
    pub fn expect(self, code: u16) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `scripts/ca` for an authority in this directory.
pub fn ca(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(format!("{SOURCE}/scripts/ca"));
    let output = command.args(words).arg("--dir").arg(dir).stdin(Stdio::null()).output().unwrap();
    eprintln!("ca {words:?}: {output:?}");
    output
}

/// The same, which must go well.
pub fn ca_ok(dir: &Path, words: &[&str]) {
    assert!(ca(dir, words).status.success(), "ca {words:?}");
}

/// A client certificate and its key, as curl's options.
pub fn pair(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec!["--cert".into(), file("cert.pem"), "--key".into(), file("key.pem")]
}

/// What has to come soon; the last state is shown if it does not.
pub fn soon<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match look() {
            Ok(found) => return found,
            Err(state) if Instant::now() > end => panic!("not in 30 s; last seen: {state}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Root {
    pub fn ca_dir(&self) -> PathBuf {
        self.dir.join("ca")
    }

    pub fn up_ok(&self, args: &[&str]) {
        let output = self.up(args);
        assert!(output.status.success(), "up {args:?}: {}", text(&output.stderr));
    }

    /// The directory of a new client's certificate.
    pub fn client(&self, name: &str) -> PathBuf {
        ca_ok(&self.ca_dir(), &["client", name]);
        self.ca_dir().join("client").join(name)
    }

    /// One request by curl, below `/cgi-bin`.
    pub fn curl(&self, args: &[&str], path: &str) -> Said {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "70", "-w", "\n%{http_code}"]);
        if self.ca_dir().join("ca.pem").exists() {
            command.arg("--cacert").arg(self.ca_dir().join("ca.pem"));
        }
        let url = format!("{}{path}", self.read("run/url").trim());
        let output = command.args(args).arg(url).stdin(Stdio::null()).output().unwrap();
        let all = text(&output.stdout);
        let (body, code) = all.rsplit_once('\n').unwrap();
        match code.parse().unwrap() {
            0 => Said { code: 0, body: text(&output.stderr) },
            code => Said { code, body: body.to_string() },
        }
    }

    /// The same as whoever has this certificate.
    pub fn curl_as(&self, client: &Path, args: &[&str], path: &str) -> Said {
        let all = pair(client);
        let all: Vec<&str> = all.iter().map(String::as_str).chain(args.iter().copied()).collect();
        self.curl(&all, path)
    }

    /// The same as the admin whose token `up` has made.
    pub fn curl_admin(&self, args: &[&str], path: &str) -> Said {
        let header = format!("@{}", self.dir.join("run/admin.header").display());
        self.curl(&[&["-H", header.as_str()], args].concat(), path)
    }

    /// An installed program of the root, as a command.
    pub fn program(&self, name: &str, words: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(self.dir.join("cgi-bin").join(name));
        command.args(words).current_dir("/").stdin(Stdio::null());
        let output = command.envs(env.iter().copied()).output().unwrap();
        eprintln!("{name} {words:?}: {output:?}");
        output
    }

    /// What `scheduler` prints, which must go well.
    pub fn scheduler(&self, words: &[&str]) -> String {
        let output = self.program("scheduler", words, &[]);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Makes a client's certificate known; the id of its record.
    pub fn knows(&self, client: &Path, words: &[&str]) -> String {
        let file = format!("certificate={}", client.join("cert.pem").display());
        self.scheduler(&[&["tokens", "new", "-q", &file], words].concat()).trim().to_string()
    }

    /// Both boards are whole.
    pub fn check(&self) {
        for name in ["scheduler", "processor"] {
            let output = self.program(name, &["check"], &[]);
            assert!(output.status.success(), "{}", text(&output.stdout));
        }
    }

    /// Serials of the certificate that is shown at the root's port, by one more handshake.
    pub fn shown_serial(&self) -> String {
        let script = format!(
            "openssl s_client -connect 127.0.0.1:{} < /dev/null 2>/dev/null | openssl x509 -noout -serial",
            self.port()
        );
        text(&Command::new("bash").args(["-c", &script]).output().unwrap().stdout)
    }
}

/// The serial of a certificate in a file.
pub fn serial(file: &Path) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(["x509", "-noout", "-serial", "-in"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

/// The mode of a file, as in `chmod`.
pub fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// A root over TLS that asks clients for certificates, or demands them.
pub fn served(name: &str, how: &str) -> Root {
    let root = Root::real(name);
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", how]);
    root
}
