#![allow(missing_docs)]
use crate::board::root::Root;
use crate::cgi::body::Upload;
use crate::error::*;
use crate::model::outcome::RunStatus;
use serde_json::Value;
use std::time::*;
pub mod accept {
    use super::*;
    pub struct NewRun {
        pub id: String,
        pub request: Value,
        pub uploads: Vec<Upload>,
    }
    pub struct Accepted;
    pub fn accept(_: &Root, _: Vec<NewRun>) -> Result<Vec<Result<Accepted>>> {
        todo!()
    }
}
pub mod status {
    use super::*;
    pub fn of(_: &Root, _: &str) -> Result<RunStatus> {
        todo!()
    }
}
pub mod kill {
    use super::*;
    pub fn kill(_: &Root, _: &str, _: Option<Duration>, _: &str) -> Result<RunStatus> {
        todo!()
    }
}
pub mod list {
    use super::*;
    pub fn ids(_: &Root) -> Result<Vec<String>> {
        todo!()
    }
}
pub mod log {
    use super::*;
    use crate::model::log::*;
    pub fn read(_: &Root, _: &str, _: &LogQuery) -> Result<LogPiece> {
        todo!()
    }
}
pub mod files {
    use super::*;
    pub fn names(_: &Root, _: &str) -> Result<Vec<String>> {
        todo!()
    }
    pub fn read(_: &Root, _: &str, _: &str) -> Result<Vec<u8>> {
        todo!()
    }
}
pub mod ack {
    use super::*;
    pub fn acknowledge(_: &Root, _: &[String]) -> Result<usize> {
        todo!()
    }
}
pub mod info {
    use super::*;
    pub fn total(_: &Root) -> Result<crate::model::resources::Resources> {
        todo!()
    }
}
pub mod sweep {
    use super::*;
    pub fn sweep(_: &Root) -> Result<()> {
        todo!()
    }
}
pub mod cleanup {
    use super::*;
    pub fn clean(_: &Root, _: SystemTime) -> Result<usize> {
        todo!()
    }
}
