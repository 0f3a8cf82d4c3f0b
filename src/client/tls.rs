//! Who a server proves to be, over TLS. Nothing of it is touched unless a server is asked so.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};

use crate::clock;
use crate::error::{is_shortage, reason};

/// The certificates that this machine trusts are read again after so long.
const REREAD: Duration = Duration::from_secs(3600);

/// Who a server has to prove to be.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    name: ServerName<'static>,
    /// The file of certificates to one of which its own has to lead; without one: those that this
    /// machine trusts.
    ca: Option<PathBuf>,
}

impl Identity {
    /// A server of this name or address, as in a URI, by what this machine trusts.
    pub(crate) fn new(host: &str) -> io::Result<Identity> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_string()).map_err(|_| {
            io::Error::new(ErrorKind::InvalidInput, "not a name that a certificate can be for")
        })?;
        Ok(Identity { name, ca: None })
    }

    /// By this file from now on.
    pub(crate) fn trust(&mut self, ca: Option<PathBuf>) {
        self.ca = ca;
    }

    /// The beginning of a conversation.
    pub(crate) fn conversation(&self) -> io::Result<ClientConnection> {
        let config = config(self.ca.as_deref())?;
        ClientConnection::new(config, self.name.clone()).map_err(|error| why(&error))
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

fn distrust(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, Distrust(why.into()))
}

/// Lets a server prove who it is, on a connection that was just made.
pub(crate) fn open<S: Read + Write>(
    conversation: ClientConnection,
    stream: S,
) -> io::Result<StreamOwned<ClientConnection, S>> {
    let mut stream = StreamOwned::new(conversation, stream);
    stream.conn.complete_io(&mut stream.sock).map_err(told)?;
    if stream.conn.is_handshaking() {
        return Err(told(ErrorKind::UnexpectedEof.into()));
    }
    Ok(stream)
}

/// An error of a conversation over TLS, told as what it is.
pub(crate) fn told(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => why(error),
        None if error.kind() == ErrorKind::UnexpectedEof => {
            io::Error::new(ErrorKind::UnexpectedEof, "the connection was cut")
        }
        None => error,
    }
}

/// What went wrong, by what it means for an operator.
pub(crate) fn why(error: &rustls::Error) -> io::Error {
    match error {
        rustls::Error::InvalidCertificate(error) => distrust(flaw(error)),
        rustls::Error::InvalidMessage(_) => io::Error::new(
            ErrorKind::InvalidData,
            "it does not speak TLS there: where it speaks plain HTTP its uri begins with http://",
        ),
        rustls::Error::AlertReceived(alert) => {
            io::Error::new(ErrorKind::InvalidData, format!("it ends the TLS handshake: {alert:?}"))
        }
        other => io::Error::new(ErrorKind::InvalidData, format!("TLS: {other}")),
    }
}

/// What is wrong with a certificate.
fn flaw(error: &CertificateError) -> String {
    use CertificateError as Flaw;
    let at = |time: &UnixTime| clock::rfc3339(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match error {
        Flaw::Expired => "its certificate has expired".into(),
        Flaw::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}", at(not_after))
        }
        Flaw::NotValidYet => "its certificate is not valid yet".into(),
        Flaw::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid before {}, and here it is {}",
            at(not_before),
            clock::now()
        ),
        Flaw::UnknownIssuer => "the issuer of its certificate is unknown here: name the issuer's certificate in the node's ca, or, for a command, in CORKBOARD_CA".into(),
        Flaw::NotValidForName => "its certificate is for another name".into(),
        Flaw::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not for {} but for {}",
            expected.to_str(),
            if presented.is_empty() { "no name".into() } else { presented.join(", ") }
        ),
        Flaw::BadSignature => "the signature of its certificate is wrong".into(),
        Flaw::Other(other) if is_authority(other) => "its certificate is an authority's, which is not a server's: make one with basicConstraints CA:FALSE".into(),
        other => format!("its certificate is refused: {other}"),
    }
}

/// Whether a server showed a certificate that may sign others: what `openssl req -x509` makes.
fn is_authority(error: &rustls::OtherError) -> bool {
    let inner = error.0.downcast_ref::<webpki::Error>();
    matches!(inner, Some(webpki::Error::CaUsedAsEndEntity))
}

/// What is known of a set of certificates.
struct Known {
    config: Arc<ClientConfig>,
    read: Instant,
    file: Option<Version>,
}

/// One version of a file: device, inode, time and length.
type Version = (u64, u64, i64, i64, u64);

/// By their file; those that this machine trusts by none. For all threads: a set takes milliseconds
/// to read, and with it go the sessions that need no proof again.
static KNOWN: Mutex<BTreeMap<Option<PathBuf>, Known>> = Mutex::new(BTreeMap::new());

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
    ca: Option<PathBuf>,
    begun: Instant,
}

/// How a server is to prove itself by one of these certificates.
///
/// Errors: they cannot be read, or not soon.
fn config(ca: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    if ca.is_none()
        && let Some(config) = known(ca, None)
    {
        return Ok(config);
    }
    let own = ca.map(Path::to_path_buf);
    let begun = Instant::now();
    {
        let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = |other: &Reader| other.ca == own && other.begun.elapsed() >= READ_WITHIN;
        if readers.iter().any(hangs) {
            return Err(unread(ca));
        }
        readers.push(Reader { ca: own.clone(), begun });
    }
    let (tells, told) = channel();
    let work = move || {
        let _ = tells.send(read_config(own.as_deref())); // whoever asked may wait no more
        done(own.as_deref(), begun);
    };
    let thread = thread::Builder::new().name("certificates".into()).stack_size(READER_STACK);
    if let Err(error) = thread.spawn(work) {
        done(ca, begun);
        return Err(error);
    }
    told.recv_timeout(READ_WITHIN).unwrap_or_else(|_| Err(unread(ca)))
}

/// A reader has come to its end.
fn done(ca: Option<&Path>, begun: Instant) {
    let mut readers = READERS.lock().unwrap_or_else(PoisonError::into_inner);
    let own = |other: &Reader| other.ca.as_deref() == ca && other.begun == begun;
    if let Some(at) = readers.iter().position(own) {
        readers.swap_remove(at);
    }
}

fn unread(ca: Option<&Path>) -> io::Error {
    let whose = ca.map_or("this machine's certificates".to_string(), |path| {
        format!("the certificates in {}", path.display())
    });
    distrust(format!("{whose}: not read within {READ_WITHIN:?}: the file system does not answer"))
}

/// What is known of a set, if its file is this version still.
fn known(ca: Option<&Path>, file: Option<Version>) -> Option<Arc<ClientConfig>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get(&ca.map(Path::to_path_buf))?;
    let is_so = known.file == file && (file.is_some() || known.read.elapsed() < REREAD);
    is_so.then(|| known.config.clone())
}

fn read_config(ca: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let file = ca.map(|path| version(path).map_err(|e| unreadable(path, e))).transpose()?;
    if let Some(config) = known(ca, file) {
        return Ok(config);
    }
    let roots = match ca {
        Some(path) => file_roots(path)?,
        None => machine_roots()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| why(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let read = Known { config: config.clone(), read: Instant::now(), file };
    // Nothing is read while this is held: all threads wait for it.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(ca.map(Path::to_path_buf), read);
    Ok(config)
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
