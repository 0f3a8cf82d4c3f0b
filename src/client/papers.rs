//! The files by which servers are believed and which they are shown, as they are on the disk: read once
//! and again when they have changed, never waited for for long.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

use crate::error::{is_shortage, reason};

/// The certificates that this machine trusts are read again after so long.
const REREAD: Duration = Duration::from_secs(3600);

/// The files by which a server is believed, and with which it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Papers {
    /// Of certificates to one of which the server's own has to lead; without one: those that this
    /// machine trusts.
    ca: Option<PathBuf>,
    /// Of the certificate that the server is shown, and of its key.
    own: Option<(PathBuf, PathBuf)>,
}

impl Papers {
    /// Those of these paths. A key without a file of its own is in the certificate's.
    pub(crate) fn new(ca: Option<String>, cert: Option<String>, key: Option<String>) -> Papers {
        let own = cert.map(|cert| (PathBuf::from(&cert), PathBuf::from(key.unwrap_or(cert))));
        Papers { ca: ca.map(Into::into), own }
    }
}

/// Why a server is not believed to be the one that is meant, in words.
#[derive(Debug)]
pub(crate) struct Distrust(String);

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Distrust {}

/// Why what a server would be shown cannot be shown, in words: it is not asked then.
#[derive(Debug)]
pub(crate) struct Unusable(String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Why a server will not have whoever shows what it is shown, in words: nothing was answered, nor looked at.
#[derive(Debug)]
pub(crate) struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn unusable(path: &Path, why: impl fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Unusable(format!("{}: {why}", path.display())))
}

pub(super) fn distrust(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Distrust(why.into()))
}

/// What is known of a set of certificates.
struct Known {
    config: Arc<ClientConfig>,
    read: Instant,
    files: Vec<Version>,
}

/// One version of a file: device, inode, time and length.
type Version = (u64, u64, i64, i64, u64);

/// By their files; those that this machine trusts have none. For all threads: a set takes milliseconds
/// to read, and with it go the sessions that need no proof again.
static KNOWN: Mutex<BTreeMap<Papers, Known>> = Mutex::new(BTreeMap::new());

/// Longest file of certificates that is read. Those of all the world's issuers are a quarter of a MiB.
const LARGEST: u64 = 16 << 20;

/// Where a machine keeps all of its issuers in one file: of Debian and what is like it, Fedora, SUSE,
/// Alpine. What else there is finds the library, which would read a directory of them beside it, too, each
/// from a file of its own.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Longest that a set of certificates is waited for.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Stack of a thread that reads one.
const READER_STACK: usize = 256 << 10;

/// Which sets are being read, and since when, each by a thread of its own: a file system that does not
/// answer keeps that thread, and nobody else.
static READERS: Mutex<Vec<Reader>> = Mutex::new(Vec::new());

struct Reader {
    papers: Papers,
    begun: Instant,
}

/// How a server is to prove itself by one of these certificates.
///
/// Errors: they cannot be read, or not soon.
pub(super) fn config(papers: &Papers) -> io::Result<Arc<ClientConfig>> {
    if *papers == Papers::default()
        && let Some(config) = known(papers, &[])
    {
        return Ok(config);
    }
    let own = papers.clone();
    let begun = Instant::now();
    {
        let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = |other: &Reader| other.papers == own && other.begun.elapsed() >= READ_WITHIN;
        if readers.iter().any(hangs) {
            return Err(unread(papers));
        }
        readers.push(Reader { papers: own.clone(), begun });
    }
    let (tells, told) = channel();
    let work = move || {
        let _ = tells.send(read_config(&own)); // whoever asked may wait no more
        done(&own, begun);
    };
    let thread = thread::Builder::new().name("certificates".into()).stack_size(READER_STACK);
    if let Err(error) = thread.spawn(work) {
        done(papers, begun);
        return Err(error);
    }
    told.recv_timeout(READ_WITHIN).unwrap_or_else(|_| Err(unread(papers)))
}

/// A reader has come to its end.
fn done(papers: &Papers, begun: Instant) {
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    let own = |other: &Reader| other.papers == *papers && other.begun == begun;
    if let Some(at) = readers.iter().position(own) {
        readers.swap_remove(at);
    }
}

fn unread(papers: &Papers) -> io::Error {
    let own = papers.own.iter().flat_map(|(cert, key)| [cert, key]);
    let files: Vec<String> =
        papers.ca.iter().chain(own).map(|path| path.display().to_string()).collect();
    let whose = match files.is_empty() {
        true => "this machine's certificates".to_string(),
        false => format!("the certificates in {}", files.join(", ")),
    };
    distrust(format!("{whose}: not read within {READ_WITHIN:?}: the file system does not answer"))
}

/// What is known of a set, if its files are these versions still.
fn known(papers: &Papers, files: &[Version]) -> Option<Arc<ClientConfig>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get(papers)?;
    let is_so = known.files == files && (papers.ca.is_some() || known.read.elapsed() < REREAD);
    is_so.then(|| known.config.clone())
}

fn read_config(papers: &Papers) -> io::Result<Arc<ClientConfig>> {
    let mut files = Vec::new();
    if let Some(ca) = &papers.ca {
        files.push(version(ca).map_err(|e| unreadable(ca, e))?);
    }
    for path in papers.own.iter().flat_map(|(cert, key)| [cert, key]) {
        files.push(version(path).map_err(|e| unshowable(path, e))?);
    }
    if let Some(config) = known(papers, &files) {
        return Ok(config);
    }
    let roots = match &papers.ca {
        Some(path) => file_roots(path)?,
        None => machine_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let config = match &papers.own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => config
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| {
            unusable(cert, format!("not the certificate of the key in {}: {error}", key.display()))
        })?,
    };
    let config = Arc::new(config);
    let read = Known { config: config.clone(), read: Instant::now(), files };
    // Nothing is read while this is held: all threads wait for it.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(papers.clone(), read);
    Ok(config)
}

/// The certificate that is shown, and those that lead from it to an issuer.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = fs::read(path).map_err(|error| unshowable(path, error))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if found.is_empty() { Err(unusable(path, "no certificate in it")) } else { Ok(found) }
}

/// A key, of a file that not everybody may read.
fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let mode = fs::metadata(path).map_err(|error| unshowable(path, error))?.mode();
    if mode & 0o007 != 0 {
        return Err(unusable(
            path,
            "everybody may use this key: chmod 600 it, and have it replaced if others could read it",
        ));
    }
    let bytes = fs::read(path).map_err(|error| unshowable(path, error))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| unusable(path, "no key in it"))
}

/// A file of what is shown that cannot be read.
fn unshowable(path: &Path, error: io::Error) -> io::Error {
    if is_shortage(&error) { error } else { unusable(path, reason(&error)) }
}

fn version(path: &Path) -> io::Result<Version> {
    let meta = fs::metadata(path)?;
    // Others are read for ever, or until somebody writes to them.
    if !meta.is_file() || meta.len() > LARGEST {
        let most = LARGEST >> 20;
        return Err(io::Error::other(format!("not a plain file of at most {most} MiB")));
    }
    Ok((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

fn unreadable(path: &Path, error: io::Error) -> io::Error {
    if is_shortage(&error) {
        return error;
    }
    distrust(format!("the certificates in {}: {}", path.display(), reason(&error)))
}

fn file_roots(path: &Path) -> io::Result<RootCertStore> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(certificates);
    match good {
        0 => Err(distrust(format!("the certificates in {}: no certificate in it", path.display()))),
        _ => Ok(roots),
    }
}

fn machine_roots() -> io::Result<RootCertStore> {
    let told = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some());
    let bundle = BUNDLES.iter().map(Path::new).find(|path| path.exists()).filter(|_| !told);
    let of_bundle = bundle.map(|path| load_certs_from_paths(Some(path), None));
    let found = match of_bundle.filter(|found| !found.certs.is_empty()) {
        Some(found) => found,
        None => load_native_certs(),
    };
    // Some of them would be taken for all, and kept.
    if let Some(shortage) = found.errors.into_iter().find_map(shortage) {
        return Err(shortage);
    }
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found.certs);
    match good {
        0 => Err(distrust(
            "this machine trusts no issuer of certificates: install ca-certificates, or name the issuer's certificate in the node's ca, or, for a command, in CORKBOARD_CA",
        )),
        _ => Ok(roots),
    }
}

/// What kept certificates from being read, if this process lacked what it takes.
fn shortage(error: rustls_native_certs::Error) -> Option<io::Error> {
    let rustls_native_certs::ErrorKind::Io { inner, .. } = error.kind else { return None };
    is_shortage(&inner).then_some(inner)
}
