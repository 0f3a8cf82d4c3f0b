//! A piece of a job's log. The parameters are those of everybody who asks for one, and are read where
//! everybody's are ([`crate::model::log::LogQuery`]).

use crate::model::ids::RunId;
use crate::model::log::LogQuery;

/// The header that says where to go on.
pub const OFFSET: &str = "X-Corkboard-Offset";

/// As it is asked.
pub fn path(id: &RunId, query: &LogQuery) -> String {
    let LogQuery { stream, offset, limit, tail, task } = query;
    let mut path = format!("jobs/{id}/log?offset={offset}");
    stream.iter().for_each(|stream| path.push_str(&format!("&stream={stream}")));
    limit.iter().for_each(|limit| path.push_str(&format!("&limit={limit}")));
    tail.iter().for_each(|tail| path.push_str(&format!("&tail={tail}")));
    task.iter().for_each(|task| path.push_str(&format!("&task={task}")));
    path
}
