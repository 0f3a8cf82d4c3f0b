#![allow(missing_docs)]
use crate::board::root::Root;
use crate::error::*;
use crate::model::outcome::RunStatus;
use serde::*;
use std::time::*;
#[derive(Debug, Serialize, Deserialize)]
pub struct FeedPage {
    pub cursor: String,
    pub events: Vec<RunStatus>,
}
pub fn read(_: &Root, _: Option<&str>, _: Duration) -> Result<FeedPage> {
    todo!()
}
