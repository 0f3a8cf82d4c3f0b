//! Which piece of a log a query asks for: the same keys in every program.

use super::request::Request;
use super::route::Key;
use crate::error::{Error, Result};
use crate::model::log::LogQuery;

const STREAM: Key = Key::new("stream", "stdout|stderr", "of a job whose output is split");
const OFFSET: Key = Key::new("offset", "BYTES", "from there on");
const LIMIT: Key = Key::new("limit", "BYTES", "at most so much");
const TAIL: Key = Key::new("tail", "LINES", "the last lines");
const FOLLOW: Key = Key::new("follow", "1", "until the job has ended");
const ATTEMPT: Key = Key::new("attempt", "K", "of this attempt, or followed from it on");

/// The keys of [`query`]; `task` says of what it is one.
pub const fn keys(task: Key) -> [Key; 5] {
    [STREAM, OFFSET, LIMIT, TAIL, task]
}

/// The same where the log can be followed.
pub const fn keys_with_follow(task: Key) -> [Key; 6] {
    [STREAM, OFFSET, LIMIT, TAIL, FOLLOW, task]
}

/// [`keys_with_follow`] for what may have been tried more than once.
pub const fn keys_of_attempts(task: Key) -> [Key; 7] {
    [STREAM, OFFSET, LIMIT, TAIL, FOLLOW, ATTEMPT, task]
}

/// What is asked for.
pub fn query(request: &Request) -> Result<LogQuery> {
    let query = LogQuery {
        stream: request.param("stream").map(str::to_string),
        offset: request.number("offset")?.unwrap_or(0),
        limit: request.number("limit")?,
        tail: request.number("tail")?,
        task: request.task()?,
    };
    if query.stream.as_deref().is_some_and(|stream| stream != "stdout" && stream != "stderr") {
        return Err(Error::bad("stream must be stdout or stderr"));
    }
    Ok(query)
}

/// Whether the log is to be followed until the job has ended.
pub fn is_followed(request: &Request, query: &LogQuery) -> Result<bool> {
    let followed = request.switch("follow")?;
    if followed && query.limit.is_some() {
        return Err(Error::bad("limit and follow exclude each other"));
    }
    Ok(followed)
}
