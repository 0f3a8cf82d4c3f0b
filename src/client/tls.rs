//! Who a server proves to be, over TLS, and what it is shown in turn. Nothing of it is touched unless a
//! server is asked so.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConnection, StreamOwned};

use super::papers::{Papers, Refused, config, distrust};
use crate::clock;

/// Who a server has to prove to be.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    name: ServerName<'static>,
    papers: Papers,
}

impl Identity {
    /// A server of this name or address, as in a URI, by what this machine trusts.
    pub(crate) fn new(host: &str) -> io::Result<Identity> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_string()).map_err(|_| {
            io::Error::new(ErrorKind::InvalidInput, "not a name that a certificate can be for")
        })?;
        Ok(Identity { name, papers: Papers::default() })
    }

    /// By these files from now on.
    pub(crate) fn trust(&mut self, papers: Papers) {
        self.papers = papers;
    }

    /// The beginning of a conversation.
    pub(crate) fn conversation(&self) -> io::Result<ClientConnection> {
        let config = config(&self.papers)?;
        ClientConnection::new(config, self.name.clone()).map_err(|error| why(&error))
    }
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
        rustls::Error::AlertReceived(alert) => refusal(*alert),
        other => io::Error::new(ErrorKind::InvalidData, format!("TLS: {other}")),
    }
}

/// Why a server will not have whoever asks.
fn refusal(alert: AlertDescription) -> io::Error {
    let shown =
        "the certificate that it is shown (the node's cert, or, for a command, CORKBOARD_CERT)";
    let why = match alert {
        AlertDescription::CertificateRequired => "it demands a certificate: name one, and its key, in the node's cert and key, or, for a command, in CORKBOARD_CERT and CORKBOARD_KEY".into(),
        AlertDescription::CertificateExpired => format!("it says that {shown} has expired"),
        AlertDescription::CertificateRevoked => format!("it says that {shown} was revoked"),
        AlertDescription::UnknownCA => format!("it does not know the issuer of {shown}"),
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => format!("it refuses {shown}, which may not be valid yet by its clock"),
        other => {
            let why = format!("it ends the TLS handshake: {other:?}");
            return io::Error::new(ErrorKind::InvalidData, why);
        }
    };
    io::Error::new(ErrorKind::InvalidData, Refused(why))
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
