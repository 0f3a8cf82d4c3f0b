//! How the questions for a node's processor get there, and its answers back: by HTTP, or by the box of a worker.
//! What is asked, and what answers mean, is the same: see `asked`.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Run, said};
use crate::client::server::Reply;
use crate::error::{Error, Kind, Result};
use crate::wire::codes;
use crate::wire::failure::Failure;
use crate::wire::feed::{FeedPage, Since};
use crate::wire::node::Info;

/// See the module. Errors are those of [`super::Questions`]; an answer with a bad code is one, too, by
/// [`checked`].
pub(super) trait Carrier: Send {
    /// The node's name.
    fn node(&self) -> &str;

    /// See [`super::Driver::prepare`].
    fn prepare(&self) {}

    /// Asks what changes nothing.
    fn get(&self, path: &str) -> Result<Reply>;

    /// The same of what may be long: the bytes, and how many they are.
    fn fetch(&self, path: &str) -> Result<(Box<dyn Read>, u64)>;

    /// Asks with JSON, or with nothing; these runs are started by it.
    fn post(&self, path: &str, json: &str, runs: &[&str]) -> Result<Reply>;

    /// Sends an attempt with its files.
    fn send_with_files(&self, run: &Run) -> Result<Reply>;

    /// See [`super::Driver::feed`].
    fn feed(&self, since: &Since) -> Result<FeedPage>;

    /// See [`super::Driver::info`].
    fn info(&self) -> Result<Info>;

    /// How long a question may take that brings and fetches nothing long.
    fn patience(&self) -> Duration;
}

/// An answer with a good status, or the error that it is.
pub(super) fn checked(node: &str, reply: Reply) -> Result<Reply> {
    let status = reply.head.status;
    if codes::is_good(status) {
        return Ok(reply);
    }
    if let (true, Some(to)) = (codes::leads_elsewhere(status), reply.head.location()) {
        let said = format!(
            "node {node} says {status}: ask {to}, which is not done: register the uri that it means"
        );
        return Err(Error::new(Kind::BadGateway, said));
    }
    let failed =
        |why: &str| Error::new(codes::kind(status), format!("node {node} says {status}: {why}"));
    // Without a reason it may be what stands before a node that is not there.
    Err(match Failure::read(&reply.body) {
        Some(said) => failed(&said::bounded(&said.error)).said(),
        None => failed("no reason given"),
    })
}

/// The value of an answer.
pub(super) fn json<T: DeserializeOwned>(node: &str, reply: &Reply) -> Result<T> {
    read(node, serde_json::from_slice(&reply.body))
}

/// What was read of an answer.
pub(super) fn read<T>(node: &str, read: serde_json::Result<T>) -> Result<T> {
    read.map_err(|e| nonsense(node, &e.to_string()))
}

/// An answer that is none. What is wrong with it may quote it.
pub(super) fn nonsense(node: &str, what: &str) -> Error {
    let what = said::bounded(what);
    Error::new(Kind::BadGateway, format!("node {node} answers nonsense: {what}"))
}
