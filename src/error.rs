//! The one error type: what went wrong, for a person, and which kind of wrong
//! it is, for a program. The kind decides the HTTP status and the exit code.

use std::fmt;
use std::io;
use std::path::Path;

/// Result of everything in this crate that can be refused or can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of refusal and failure. Each travels by one HTTP status: see [`crate::wire::codes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request cannot be understood.
    BadRequest,
    /// 401: a token is needed and none, or a wrong one, was given.
    Unauthorized,
    /// 403: understood, and not allowed.
    Forbidden,
    /// 404: no such thing.
    NotFound,
    /// 405: the path has no such method.
    MethodNotAllowed,
    /// 409: not possible in the present state.
    Conflict,
    /// 410: it was there and is not any more.
    Gone,
    /// 411: a body came without its length, or cut short.
    LengthRequired,
    /// 413: the body is over the limit.
    TooLarge,
    /// 415: the body is of another type than the route takes.
    UnsupportedMedia,
    /// 421: the request names another host.
    Misdirected,
    /// 422: well formed, but contradicts what is already recorded.
    Unprocessable,
    /// 500: unknown outcome or a defect; repeat with the same id.
    Internal,
    /// 500: the root's settings are wrong: the fault of its owner, and of no request.
    Misconfigured,
    /// 501: a way of sending that is not supported.
    NotImplemented,
    /// 502: a node answered with nonsense.
    BadGateway,
    /// 503: no room, no descriptors, disk full or failing: nothing changed, try again later.
    Unavailable,
    /// 504: a node did not answer.
    GatewayTimeout,
    /// 503: this process lacks descriptors, threads or memory to ask a node, which says nothing of
    /// the node: nothing was sent.
    Shortage,
}

impl Kind {
    /// The exit code of a command: 75 for "try again later", else 1.
    pub fn exit_code(self) -> i32 {
        match self {
            Kind::Unavailable | Kind::GatewayTimeout | Kind::Shortage => exit::TRY_LATER,
            _ => exit::REFUSED,
        }
    }
}

/// Exit codes of every command.
pub mod exit {
    /// Refused or failed; repeating it unchanged gives the same.
    pub const REFUSED: i32 = 1;
    /// The words of the command are wrong.
    pub const USAGE: i32 = 2;
    /// Nothing changed; the same command may succeed later (`EX_TEMPFAIL`).
    pub const TRY_LATER: i32 = 75;
}

/// What went wrong: its kind, and a message that names what it is about.
#[derive(Debug, Clone)]
pub struct Error {
    /// Decides the HTTP status and the exit code.
    pub kind: Kind,
    /// Lower case, no final stop, names the path or id, says what to do.
    pub message: String,
    /// Whether a node has said it itself: whatever is wrong with it, it is there and not silent.
    pub is_said: bool,
}

impl Error {
    /// An error of a kind with a message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), is_said: false }
    }

    /// The same as the word of a node about itself.
    pub fn said(self) -> Error {
        Error { is_said: true, ..self }
    }

    /// 400 with a message.
    pub fn bad(message: impl Into<String>) -> Error {
        Error::new(Kind::BadRequest, message)
    }

    /// 404 with a message.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    /// 409 with a message.
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// An I/O error on a path. What a full disk, a lack of descriptors or memory or a failing
    /// device causes is 503, for nothing was promised yet; anything else is 500.
    pub fn io(path: &Path, error: &io::Error) -> Error {
        use nix::libc;
        let kind = match error.raw_os_error() {
            Some(
                libc::ENOSPC
                | libc::EDQUOT
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::EIO
                | libc::EROFS
                | libc::EAGAIN
                | libc::EFBIG,
            ) => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Error::new(kind, format!("{}: {}", path.display(), reason(error)))
    }
}

/// Whether an I/O error says that this process has used up what it may have.
pub fn is_shortage(error: &io::Error) -> bool {
    use nix::libc;
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN)
    )
}

/// An I/O error in words, without the "(os error N)" that std appends.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    let mut words = text[..cut].to_string();
    if let Some(first) = words.get(..1) {
        let lower = first.to_lowercase();
        words.replace_range(..1, &lower);
    }
    words
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Adds the path to an I/O error: `fs::read(&p).at(&p)?`.
pub trait At<T> {
    /// See [`Error::io`].
    fn at(self, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::io(path.as_ref(), &e))
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::io(path.as_ref(), &io::Error::from(e)))
    }
}
