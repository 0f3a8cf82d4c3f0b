//! Asking for a piece of a job's log.

/// A piece of a log.
#[derive(Debug)]
pub struct LogPiece {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub next: u64,
}

/// Which piece of which log.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// `stdout` or `stderr`, where the job's output is split.
    pub stream: Option<String>,
    /// From this byte.
    pub offset: u64,
    /// At most so many bytes.
    pub limit: Option<u64>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Of a range: only what this task wrote; offsets count in that.
    pub task: Option<u32>,
}
