//! Certificates that openssl makes, and a real server that shows them.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::common::{SOON, TestRoot, wait_for};

/// Makes certificates, in a directory of its own.
pub struct Authority {
    dir: PathBuf,
}

const CONFIG: &str = "
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[req]
distinguished_name = none
prompt = no
[none]
commonName = x
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = ${ENV::NAMES}
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[both]
basicConstraints = critical,CA:TRUE
subjectAltName = ${ENV::NAMES}
";

/// Of this machine, as nodes are reached here.
pub const HERE: &str = "IP:127.0.0.1,DNS:localhost";

impl Authority {
    pub fn new(root: &TestRoot) -> Authority {
        let dir = root.path("authority");
        fs::create_dir_all(&dir).unwrap();
        let authority = Authority::at(&dir);
        authority.self_signed("ca", "authority", HERE);
        authority
    }

    /// One whose `ca.pem` and `ca.key` lie in this directory.
    pub fn at(dir: &Path) -> Authority {
        fs::write(dir.join("config"), CONFIG).unwrap();
        fs::write(dir.join("index"), "").unwrap();
        Authority { dir: dir.to_path_buf() }
    }

    fn openssl(&self, words: &str, names: &str) {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).env("NAMES", names).current_dir(&self.dir);
        let output = command.stdin(Stdio::null()).output().expect("openssl is needed");
        assert!(output.status.success(), "openssl {words}: {output:?}");
    }

    /// A key and a certificate that is signed with it.
    pub fn self_signed(&self, name: &str, kind: &str, names: &str) {
        let words = format!(
            "req -x509 -config config -extensions {kind} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -subj /CN={name} -days 30"
        );
        self.openssl(&words, names);
    }

    /// A key and a certificate that this authority signs, for this time.
    pub fn signs(&self, name: &str, names: &str, time: &str) {
        let request = format!(
            "req -new -config config -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        );
        self.openssl(&request, names);
        let sign = format!(
            "ca -batch -config config -cert ca.pem -keyfile ca.key -in {name}.csr -out {name}.pem -notext {time}"
        );
        self.openssl(&sign, names);
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_string()
    }
}

/// lighttpd with TLS before a root's programs, on a port for each certificate; ended when dropped.
pub struct Lighttpd {
    child: Child,
    conf: PathBuf,
    ports: Vec<u16>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Lighttpd {
    pub fn start(root: &TestRoot, authority: &Authority, certificates: &[&str]) -> Lighttpd {
        for _ in 0..20 {
            let ports: Vec<u16> = certificates.iter().map(|_| free_port()).collect();
            let secure = |name: &str| {
                let (cert, key) = (
                    authority.path(&format!("{name}.pem")),
                    authority.path(&format!("{name}.key")),
                );
                format!(
                    "ssl.engine = \"enable\"\nssl.pemfile = \"{cert}\"\nssl.privkey = \"{key}\"\n"
                )
            };
            let mut text = format!(
                "server.modules = (\"mod_cgi\", \"mod_setenv\", \"mod_openssl\")\nserver.document-root = \"{}\"\nserver.errorlog = \"{}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {}\n{}setenv.add-environment = (\"CORKBOARD_ROOT\" => \"{}\")\n$HTTP[\"url\"] =~ \"^/cgi-bin/\" {{ cgi.assign = (\"\" => \"\") }}\n",
                root.path("www").display(),
                root.path("lighttpd.log").display(),
                ports[0],
                secure(certificates[0]),
                root.dir.display(),
            );
            for (name, port) in certificates.iter().zip(&ports).skip(1) {
                let socket = format!("$SERVER[\"socket\"] == \"127.0.0.1:{port}\"");
                text.push_str(&format!("{socket} {{\n{}}}\n", secure(name)));
            }
            let conf = root.path("lighttpd.conf");
            fs::write(&conf, text).unwrap();
            if let Some(child) = run(&conf, &ports) {
                return Lighttpd { child, conf, ports };
            }
        }
        panic!("lighttpd does not start: {}", root.read("lighttpd.log"));
    }

    pub fn uri(&self, certificate: usize) -> String {
        format!("https://127.0.0.1:{}", self.ports[certificate])
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn start_again(&mut self) {
        self.child =
            wait_for(SOON, || run(&self.conf, &self.ports).ok_or_else(|| "in use".to_string()));
    }
}

fn run(conf: &Path, ports: &[u16]) -> Option<Child> {
    let mut command = Command::new("lighttpd");
    command.arg("-D").arg("-f").arg(conf).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/bin");
    let mut child = command.spawn().expect("lighttpd with mod_openssl is needed");
    wait_for(SOON, || {
        if child.try_wait().unwrap().is_some() {
            return Ok(None);
        }
        let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        if ports.iter().all(listens) { Ok(Some(())) } else { Err("does not listen".into()) }
    })?;
    Some(child)
}

impl Drop for Lighttpd {
    fn drop(&mut self) {
        self.stop();
    }
}
