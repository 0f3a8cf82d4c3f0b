//! The one table of answers and HTTP codes. What an answer means is its kind; the code is only how it
//! travels.

use crate::error::Kind;

/// A code and its phrase.
pub type Code = (u16, &'static str);

/// What was asked for.
pub const OK: Code = (200, "OK");

/// It is made, and was not there before.
pub const CREATED: Code = (201, "Created");

/// Whether an answer with this code is what was asked for, and no error.
pub fn is_good(code: u16) -> bool {
    (200..300).contains(&code)
}

/// Whether it says no more than where else to ask.
pub fn leads_elsewhere(code: u16) -> bool {
    (300..400).contains(&code)
}

/// The code by which an error of a kind travels.
pub fn of(kind: Kind) -> Code {
    match kind {
        Kind::BadRequest => (400, "Bad Request"),
        Kind::Unauthorized => (401, "Unauthorized"),
        Kind::Forbidden => (403, "Forbidden"),
        Kind::NotFound => (404, "Not Found"),
        Kind::MethodNotAllowed => (405, "Method Not Allowed"),
        Kind::Conflict => (409, "Conflict"),
        Kind::Gone => (410, "Gone"),
        Kind::LengthRequired => (411, "Length Required"),
        Kind::TooLarge => (413, "Content Too Large"),
        Kind::UnsupportedMedia => (415, "Unsupported Media Type"),
        Kind::Misdirected => (421, "Misdirected Request"),
        Kind::Unprocessable => (422, "Unprocessable Content"),
        Kind::Internal | Kind::Misconfigured => (500, "Internal Server Error"),
        Kind::NotImplemented => (501, "Not Implemented"),
        Kind::BadGateway => (502, "Bad Gateway"),
        Kind::Unavailable | Kind::Shortage => (503, "Service Unavailable"),
        Kind::GatewayTimeout => (504, "Gateway Timeout"),
    }
}

/// The kind of an error that another root answered with this code.
pub fn kind(code: u16) -> Kind {
    match code {
        // The token that it refuses is this root's, and not that of whoever asks this root.
        401 | 403 => Kind::Forbidden,
        404 => Kind::NotFound,
        405 => Kind::MethodNotAllowed,
        409 => Kind::Conflict,
        410 => Kind::Gone,
        411 => Kind::LengthRequired,
        413 => Kind::TooLarge,
        415 => Kind::UnsupportedMedia,
        421 => Kind::Misdirected,
        422 => Kind::Unprocessable,
        500 => Kind::Internal,
        501 => Kind::NotImplemented,
        503 => Kind::Unavailable,
        504 => Kind::GatewayTimeout,
        400..=499 => Kind::BadRequest,
        _ => Kind::BadGateway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind that stands after this one in [`Kind`]: a kind that is missing here does not compile.
    fn after(kind: Kind) -> Option<Kind> {
        Some(match kind {
            Kind::BadRequest => Kind::Unauthorized,
            Kind::Unauthorized => Kind::Forbidden,
            Kind::Forbidden => Kind::NotFound,
            Kind::NotFound => Kind::MethodNotAllowed,
            Kind::MethodNotAllowed => Kind::Conflict,
            Kind::Conflict => Kind::Gone,
            Kind::Gone => Kind::LengthRequired,
            Kind::LengthRequired => Kind::TooLarge,
            Kind::TooLarge => Kind::UnsupportedMedia,
            Kind::UnsupportedMedia => Kind::Misdirected,
            Kind::Misdirected => Kind::Unprocessable,
            Kind::Unprocessable => Kind::Internal,
            Kind::Internal => Kind::Misconfigured,
            Kind::Misconfigured => Kind::NotImplemented,
            Kind::NotImplemented => Kind::BadGateway,
            Kind::BadGateway => Kind::Unavailable,
            Kind::Unavailable => Kind::GatewayTimeout,
            Kind::GatewayTimeout => Kind::Shortage,
            Kind::Shortage => return None,
        })
    }

    #[test]
    fn every_kind_has_a_code_and_every_code_a_kind() {
        let kinds: Vec<Kind> =
            std::iter::successors(Some(Kind::BadRequest), |k| after(*k)).collect();
        for kind in &kinds {
            // What is this root's own affair is for others what it looks like from there.
            let seen = match kind {
                Kind::Unauthorized => Kind::Forbidden,
                Kind::Misconfigured => Kind::Internal,
                Kind::Shortage => Kind::Unavailable,
                kind => *kind,
            };
            let (code, phrase) = of(*kind);
            assert_eq!(super::kind(code), seen, "{kind:?} travels as {code}");
            assert!((400..600).contains(&code) && !phrase.is_empty(), "{kind:?}: {code} {phrase}");
        }
        let told: Vec<u16> = kinds.iter().map(|kind| of(*kind).0).collect();
        for code in 0..=u16::MAX {
            let kind = super::kind(code);
            assert!(kinds.contains(&kind), "{code}");
            let is_client = (400..500).contains(&code);
            match told.contains(&code) {
                true if code == 401 => assert_eq!(of(kind).0, 403),
                true => assert_eq!(of(kind).0, code),
                false if is_client => assert_eq!(kind, Kind::BadRequest, "{code}"),
                false => assert_eq!(kind, Kind::BadGateway, "{code}"),
            }
        }
        assert!(is_good(OK.0) && is_good(CREATED.0) && !told.iter().any(|code| is_good(*code)));
    }
}
