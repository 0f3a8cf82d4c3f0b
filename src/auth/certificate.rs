//! A client certificate in place of a token: known by its digest, and believed by the word of the server
//! that runs the program, whose own environment this is.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::{Meant, is_expired, record_of};
use crate::board::files;
use crate::board::root::Root;
use crate::board::vault::{self, TokenRecord};
use crate::cgi::environment::var;
use crate::error::{Error, Kind, Result};

/// What the server calls itself whose word on certificates counts: the configuration of
/// `scripts/up --client-certs` has it do so. Every server sets this variable, over whatever it was
/// started with, so that none takes part by accident: busybox hands on all else that is in its own
/// environment.
const SERVER: &str = "corkboard-certificates";

/// Characters of a server's reason in an answer.
const LONGEST_REASON: usize = 100;

/// What somebody who asks has shown to the server.
pub(super) enum Shown {
    /// No certificate; or nobody looked whose word counts.
    None,
    /// One that the server refuses, and why.
    Bad(String),
    /// One that leads to an issuer whom the server was told to believe, is valid and not revoked: its
    /// digest.
    Good(String),
}

/// What the server says of whoever asks.
pub(super) fn shown() -> Shown {
    let is = |name: &str, value: &str| var(name).is_some_and(|is| is == value);
    if !is("SERVER_SOFTWARE", SERVER) || !is("HTTPS", "on") {
        return Shown::None;
    }
    match var("SSL_CLIENT_VERIFY").unwrap_or_default().as_str() {
        "SUCCESS" => match var("SSL_CLIENT_CERT").and_then(|pem| digest(pem.as_bytes())) {
            Some(digest) => Shown::Good(digest),
            None => Shown::Bad("the server does not hand it on".into()),
        },
        "" | "NONE" => Shown::None,
        other => Shown::Bad(other.chars().take(LONGEST_REASON).collect()),
    }
}

impl Shown {
    /// The record that makes it known here, if there is one. Refuses one whose time is over.
    pub(super) fn known(&self, root: &Root) -> Result<Option<TokenRecord>> {
        let Shown::Good(digest) = self else { return Ok(None) };
        let record = vault::token(root, id(digest))?;
        let record = record.filter(|record| record.certificate.as_ref() == Some(digest));
        if record.as_ref().is_some_and(is_expired) {
            let why = "what this certificate was made known for is over (expires)";
            return Err(Error::new(Kind::Unauthorized, why));
        }
        Ok(record)
    }

    /// The id of the record that there is of it, whether it admits or not.
    pub(super) fn claimed(&self, root: &Root) -> Option<String> {
        let Shown::Good(digest) = self else { return None };
        vault::has_token(root, id(digest)).then(|| id(digest).to_string())
    }

    /// What to do for whoever is not admitted.
    pub(super) fn advice(&self) -> String {
        let token = "send a token as `Authorization: Bearer TOKEN`";
        match self {
            Shown::None => token.into(),
            Shown::Bad(why) => {
                format!(
                    "the server does not accept the certificate ({why}): {}, or {token}",
                    cure(why)
                )
            }
            Shown::Good(_) => format!(
                "the certificate is not known here: make it known by `scheduler tokens new role=ROLE user=USER certificate=FILE` on this machine, or {token}"
            ),
        }
    }
}

/// What to do about a certificate that a server refuses, by the number that OpenSSL has for the reason
/// (`X509_V_ERR_…`): lighttpd says `FAILED:error:…:reason(23)`.
fn cure(why: &str) -> &'static str {
    let number = why.rsplit_once("reason(").and_then(|(_, rest)| rest.split_once(')'));
    match number.and_then(|(number, _)| number.parse().ok()) {
        Some(9) => "it is not valid yet by this machine's clock: look at both clocks",
        Some(10) => "it has expired: renew it (scripts/ca renew client NAME)",
        Some(23) => "it was revoked: have another one made",
        Some(2 | 18..=21) => {
            "its issuer is not one that this server believes (scripts/up --client-ca)"
        }
        _ => "show another one",
    }
}

/// The record by which the certificate in this file stands for a token. What the file has beside it, a key
/// or what leads to an issuer, is passed over.
pub fn record(file: &Path, meant: &Meant, expires: Option<SystemTime>) -> Result<TokenRecord> {
    let no = |what: &str| Error::bad(format!("{}: {what}", file.display()));
    let pem = files::read(file)?.ok_or_else(|| no("there is no such file"))?;
    let digest = digest(&pem)
        .ok_or_else(|| no("no certificate in it (PEM: -----BEGIN CERTIFICATE-----)"))?;
    let record = record_of(id(&digest).to_string(), meant, expires);
    Ok(TokenRecord { certificate: Some(digest), ..record })
}

/// SHA-256 of the first certificate of a text.
fn digest(pem: &[u8]) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    Some(base16ct::lower::encode_string(&Sha256::digest(&der)))
}

/// The id under which a digest is known: half of it is more than anybody can match.
fn id(digest: &str) -> &str {
    &digest[..digest.len() / 2]
}
