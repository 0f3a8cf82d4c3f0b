//! To start a process, to stop it, to ask about one, or which there are: the messages of a job worker, with
//! its names of the fields. Times are Unix seconds, as in the names of `pid/PID_START_END`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::clock;
use crate::error::{Error, Result};

/// Where a process is started.
pub const START: &str = "start";

/// Where one is stopped.
pub const STOP: &str = "stop";

/// Where one is asked about.
pub const QUERY_ONE: &str = "query_one";

/// Where all that run are.
pub const QUERY_RUNNING: &str = "query_running";

/// To start a process. Answered with two lines of [`StartResponse`], one if it could not be started; between
/// them an empty line comes every 30 seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The path of a program, or its name.
    pub command: String,
    /// What it is called with.
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    /// `NAME=VALUE`, beside what every job's environment has.
    #[serde(default, deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Where it starts; without one in the home directory of the user that it runs as.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// A name of this start: the same again starts nothing new, and is answered as the first time.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// What became of a start: first that the process runs, later that it has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartResponse {
    /// Its process id; 0 where it could not be started.
    pub pid: i32,
    /// Of one that has ended: the last lines of its standard output.
    #[serde(default)]
    pub output: String,
    /// The same of its standard error, or why it could not be started.
    #[serde(default, rename = "ErrorOutput")]
    pub error_output: String,
    /// Whether it has ended.
    pub finished: bool,
    /// When it was started; of one that has ended, when that was.
    #[serde(rename = "timeStamp")]
    pub time_stamp: String,
}

/// To stop a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Its process id; 0: the name alone says which.
    #[serde(default, deserialize_with = "or_default")]
    pub pid: i32,
    /// When it was started: another that had the same id is left alone.
    #[serde(
        default,
        rename = "startingTimeStamp",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub starting_time_stamp: String,
    /// What it is called: its program, with or without the path, or its job's name.
    #[serde(default, rename = "processName", deserialize_with = "or_default")]
    pub process_name: String,
}

/// What a process had written when it was stopped: the last lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopResponse {
    /// On standard output.
    #[serde(rename = "Output")]
    pub output: String,
    /// On standard error.
    #[serde(rename = "errorOutput")]
    pub error_output: String,
}

/// To ask about a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryOneRequest {
    /// Its process id; 0: the name alone says which.
    #[serde(default, deserialize_with = "or_default")]
    pub pid: i32,
    /// When it was started; without it the last one that had that id.
    #[serde(default, rename = "startingTimeStamp", deserialize_with = "or_default")]
    pub starting_time_stamp: String,
    /// As in [`StopRequest`].
    #[serde(default, rename = "processName", deserialize_with = "or_default")]
    pub process_name: String,
    /// What is wanted of its standard error: a [`Part`](crate::model::excerpt::Part); the last lines if
    /// empty.
    #[serde(default, rename = "errorLog", deserialize_with = "or_default")]
    pub error_log: String,
    /// The same of its standard output.
    #[serde(default, rename = "outputLog", deserialize_with = "or_default")]
    pub output_log: String,
}

/// What is known of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryOneResponse {
    /// Of its standard output.
    pub output: String,
    /// Of its standard error.
    #[serde(rename = "errorOutput")]
    pub error_output: String,
    /// Whether it runs.
    pub running: bool,
    /// Once it has ended: its exit code; 1 if a signal ended it.
    #[serde(default, rename = "exitCode", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How it ended, in words, unless with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to ask for next of its standard output, where that was not all, or more may come.
    #[serde(default, rename = "nextOutputLog", skip_serializing_if = "Option::is_none")]
    pub next_output_log: Option<String>,
    /// The same of its standard error.
    #[serde(default, rename = "nextErrorLog", skip_serializing_if = "Option::is_none")]
    pub next_error_log: Option<String>,
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningProcess {
    /// Its process id.
    pub pid: i32,
    /// When it was started.
    #[serde(rename = "startingTimeStamp")]
    pub starting_time_stamp: String,
    /// What it is called.
    #[serde(rename = "processName")]
    pub process_name: String,
}

/// All that run, of those that whoever asks may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningProcessResponse {
    /// The newest first.
    #[serde(rename = "dataTable")]
    pub data_table: Vec<RunningProcess>,
}

/// A time as these messages have it.
pub fn time_stamp(seconds: u64) -> String {
    seconds.to_string()
}

/// The second that a request names: Unix seconds, or RFC 3339. `None` where it names none.
pub fn second(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = || clock::parse_rfc3339(text).map(clock::unix_seconds);
    let second = text.parse().ok().or_else(read);
    second.map(Some).ok_or_else(|| {
        Error::bad(format!(
            "startingTimeStamp: {text:?} is no time: it is in Unix seconds, or like \"2026-01-31T12:00:00Z\""
        ))
    })
}

/// Others write null where there is nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn fields_are_called_as_the_job_worker_calls_them() {
        let start: StartRequest =
            from_value(json!({"command": "/bin/ls", "args": null, "env": ["A=b"], "dir": ""}))
                .unwrap();
        assert_eq!((start.args.len(), start.env.as_slice()), (0, &["A=b".to_string()][..]));
        assert!(from_value::<StartRequest>(json!({"command": "x", "shell": true})).is_err());
        assert_eq!(
            to_value(StartResponse::default()).unwrap(),
            json!({"pid": 0, "output": "", "ErrorOutput": "", "finished": false, "timeStamp": ""})
        );
        assert_eq!(
            to_value(StopResponse::default()).unwrap(),
            json!({"Output": "", "errorOutput": ""})
        );
        assert_eq!(
            to_value(QueryOneResponse::default()).unwrap(),
            json!({"output": "", "errorOutput": "", "running": false})
        );
        let process =
            RunningProcess { pid: 7, starting_time_stamp: "1".into(), process_name: "x".into() };
        assert_eq!(
            to_value(RunningProcessResponse { data_table: vec![process] }).unwrap(),
            json!({"dataTable": [{"pid": 7, "startingTimeStamp": "1", "processName": "x"}]})
        );
    }

    #[test]
    fn seconds() {
        assert_eq!(second("").unwrap(), None);
        assert_eq!(second("1700000000").unwrap(), Some(1_700_000_000));
        assert_eq!(second("2023-11-14T22:13:20.900Z").unwrap(), Some(1_700_000_000));
        assert!(second("yesterday").is_err());
    }
}
