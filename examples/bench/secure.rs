//! The same requests to lighttpd, over TLS and without: with a whole handshake for each, and with the
//! session of the one before.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{self, get, post};
use crate::process::Guarded;
use crate::requests::{CLIENTS, JOB};
use crate::site::{PATH, Site};
use crate::table::Table;
use crate::{Bench, Result};

/// Longest wait for an answer, or for the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where lighttpd serves a site, without TLS and with it.
struct Served {
    plain: SocketAddr,
    secure: SocketAddr,
    ca: PathBuf,
    _server: Guarded,
}

/// The settings of `scripts/up` that make a difference here.
fn serve(site: &Site) -> Result<Served> {
    let ca = site.dir.join("ca");
    for words in [&["init"][..], &["server", "localhost", "--for", "127.0.0.1"]] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ca");
        let output = Command::new(script).args(words).arg("--dir").arg(&ca).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
    }
    let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
    let (plain, secure) = (free()?, free()?);
    let (dir, pair) = (site.dir.display(), ca.join("server/localhost"));
    let conf = site.dir.join("run/lighttpd.conf");
    fs::write(
        &conf,
        format!(
            "server.modules = (\"mod_cgi\", \"mod_setenv\", \"mod_openssl\")\n\
             server.document-root = \"{dir}/www\"\nserver.bind = \"127.0.0.1\"\nserver.port = {}\n\
             server.stream-response-body = 1\nserver.stream-request-body = 2\n\
             server.feature-flags = (\"server.h2proto\" => \"disable\")\n\
             setenv.set-environment = (\"CORKBOARD_ROOT\" => \"{dir}\", \"PATH\" => \"{PATH}\")\n\
             $HTTP[\"url\"] =~ \"^/cgi-bin/\" {{ cgi.assign = (\"\" => \"\") }}\n\
             $SERVER[\"socket\"] == \"{secure}\" {{\nssl.engine = \"enable\"\n\
             ssl.pemfile = \"{}\"\nssl.privkey = \"{}\"\n}}\n",
            plain.port(),
            pair.join("cert.pem").display(),
            pair.join("key.pem").display(),
        ),
    )?;
    let mut command = Command::new("lighttpd");
    command.arg("-D").arg("-f").arg(&conf).env_clear().env("PATH", PATH).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Guarded::start(&mut command)?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(plain).is_err() || TcpStream::connect(secure).is_err() {
        if Instant::now() > deadline {
            return Err("lighttpd does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Served { plain, secure, ca: ca.join("ca.pem"), _server: server })
}

/// What a client knows; with or without the sessions that it had.
fn client(ca: &Path, resumes: bool) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// [`http::send`] over TLS.
fn send(address: SocketAddr, config: &Arc<ClientConfig>, request: &[u8]) -> Result<()> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let talk = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(talk, socket);
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer)?;
    match answer.get(9) {
        Some(b'2') => Ok(()),
        _ => Err(format!("answer is not good: {:?}", String::from_utf8_lossy(&answer)).into()),
    }
}

/// [`http::load`] over TLS.
fn load(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    count: usize,
    request: &[u8],
) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = || -> Result<()> {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                send(address, config, request)?;
            }
            Ok(())
        };
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a client died")?)
    })?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Submit, status, and jobs on this machine as a node that is reached so.
pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("tls"))?;
    let served = serve(&site)?;
    let job = site.submit(JOB)?;
    let requests = [
        ("tls-submit", post("scheduler/jobs/new", JOB), bench.size(1000, 40)),
        ("tls-status", get(&format!("scheduler/jobs/{job}/status")), bench.size(2000, 40)),
    ];
    for (case, request, count) in &requests {
        for (resumes, what) in
            [(true, "TLS, sessions resumed, by none"), (false, "TLS, whole handshakes, by none")]
        {
            let config = client(&served.ca, resumes)?;
            load(served.secure, &config, 20, request)?;
            let mut rounds = Vec::new();
            for _ in 0..bench.rounds {
                let rate = load(served.secure, &config, *count, request)?;
                rounds.push((rate, http::load(served.plain, CLIENTS, *count, request)?));
            }
            table.ratio(case, what, "requests/s", &rounds, None, "");
        }
    }
    run(bench, &site, &served, table)
}

/// Jobs from the queue to done, the head asking its node over TLS (by its sessions) and without.
fn run(bench: &Bench, site: &Site, served: &Served, table: &mut Table) -> Result<()> {
    let count = bench.size(1000, 20);
    let poller = site.poller()?;
    let job = site.submit(JOB)?;
    site.wait_done(job, PATIENCE)?;
    let turn = |fields: String| -> Result<f64> {
        site.scheduler(&["nodes", "localhost", "update", "-d", &fields])?;
        let begun = Instant::now();
        let last = site.submit_many(JOB, count)?;
        site.wait_done(last, 2 * PATIENCE)?;
        Ok(count as f64 / begun.elapsed().as_secs_f64())
    };
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let (secure, ca) = (served.secure, served.ca.display());
        let ours = turn(format!(r#"{{"uri":"https://{secure}","ca":"{ca}"}}"#))?;
        rounds.push((ours, turn(format!(r#"{{"uri":"http://{}","ca":null}}"#, served.plain))?));
    }
    drop(poller);
    table.ratio("tls-run", "a node over TLS, by none", "jobs/s", &rounds, None, "");
    Ok(())
}
