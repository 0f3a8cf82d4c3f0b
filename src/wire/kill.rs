//! To end a job, some tasks of a range, or to forbid that it ever starts. What is answered is where it is
//! then; of one that will never be started, that it is gone.

use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::model::ids::RunId;
use crate::model::proof;
use crate::model::tasks::TaskSet;

/// The parameter that says on whose behalf.
pub const BY: &str = "by";

/// Longest that may say.
const LONGEST_BY: usize = 100;

/// How something is to be ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kill {
    /// On whose behalf; only a head says so.
    pub by: Option<String>,
    /// Between SIGTERM and SIGKILL, where the killer says.
    pub grace: Option<Duration>,
    /// Of a range: only these tasks.
    pub tasks: Option<TaskSet>,
    /// What the run has to show ([`crate::model::proof`]): any other is left alone.
    pub proof: Option<String>,
    /// Nothing is ended: only an id that is not known there is refused from now on.
    pub forbid: bool,
}

impl Kill {
    /// As it is asked of the job of this id.
    pub fn path(&self, id: &RunId) -> String {
        let mut path = format!("jobs/{id}/kill");
        let mut sign = '?';
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            path.push_str(&format!("{sign}{name}={value}"));
            sign = '&';
        };
        if let Some(by) = &self.by {
            add(BY, &form_urlencoded::byte_serialize(by.as_bytes()).collect::<String>());
        }
        self.grace.iter().for_each(|grace| add("grace", &grace.as_secs_f64()));
        self.proof.iter().for_each(|proof| add("proof", proof));
        self.tasks.iter().for_each(|tasks| add("task", tasks));
        if self.forbid {
            add("forbid", &1);
        }
        path
    }

    /// Reads the parameters, of which each is given once, decoded.
    ///
    /// Errors: 400 for one that makes no sense, or goes with no other that is there.
    pub fn read<'q>(param: impl Fn(&str) -> Option<&'q str>) -> Result<Kill> {
        let by = param(BY);
        if by.is_some_and(|by| by.len() > LONGEST_BY || by.chars().any(char::is_control)) {
            return Err(Error::bad("by must be at most 100 bytes of plain text"));
        }
        let grace = param("grace").map(|text| {
            clock::parse_duration(text)
                .ok_or_else(|| Error::bad("grace must be a number of seconds"))
        });
        let grace = grace.transpose()?;
        let tasks = param("task").map(|text| text.parse());
        let tasks: Option<TaskSet> =
            tasks.transpose().map_err(|why| Error::bad(format!("task: {why}")))?;
        let proof = param("proof");
        if proof.is_some_and(|proof| !proof::is_one(proof)) {
            let why = "proof must be 32 hexadecimal digits in lower case, or none";
            return Err(Error::bad(why));
        }
        let forbid = match param("forbid") {
            None | Some("0" | "false") => false,
            Some("" | "1" | "true") => true,
            Some(_) => return Err(Error::bad("forbid must be 1 or 0")),
        };
        if forbid && (tasks.is_some() || grace.is_some() || proof.is_some()) {
            return Err(Error::bad("forbid ends nothing: it goes with by alone"));
        }
        let (by, proof) = (by.map(str::to_string), proof.map(str::to_string));
        Ok(Kill { by, grace, tasks, proof, forbid })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<Kill> {
        let (_, query) = path.split_once('?').unwrap_or_default();
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Kill::read(|name| pairs.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str()))
    }

    #[test]
    fn a_kill_is_read_as_it_was_written() {
        let id = RunId::parse("c-1.1").unwrap();
        let killers = [None, Some("ada"), Some("job 7"), Some("é&=+%?#/ x")];
        let graces = [None, Some(0), Some(1), Some(1_500), Some(86_400_123)];
        let tasks = [None, Some("3"), Some("0-9,12,40-41")];
        let proofs = [None, Some("none".to_string()), Some(proof::of_key("cbkey_x"))];
        for (n, by) in killers
            .iter()
            .enumerate()
            .flat_map(|(n, by)| vec![(n, by); 15])
            .enumerate()
            .map(|(at, (n, by))| (at + n, by))
        {
            let kill = Kill {
                by: by.map(str::to_string),
                grace: graces[n % graces.len()].map(Duration::from_millis),
                tasks: tasks[n % tasks.len()].map(|text| text.parse().unwrap()),
                proof: proofs[n / 2 % proofs.len()].clone(),
                forbid: false,
            };
            assert_eq!(read(&kill.path(&id)).unwrap(), kill, "{}", kill.path(&id));
            let forbid = Kill { by: kill.by, forbid: true, ..Kill::default() };
            assert_eq!(read(&forbid.path(&id)).unwrap(), forbid);
        }
    }

    #[test]
    fn a_kill_is_written_as_it_always_was() {
        let id = RunId::parse("c-1.1").unwrap();
        let kill = Kill {
            by: Some("a b".into()),
            grace: Some(Duration::from_millis(500)),
            tasks: Some("3,5-9".parse().unwrap()),
            proof: Some("none".into()),
            forbid: false,
        };
        assert_eq!(kill.path(&id), "jobs/c-1.1/kill?by=a+b&grace=0.5&proof=none&task=3,5-9");
        let forbid = Kill { by: Some("x".into()), forbid: true, ..Kill::default() };
        assert_eq!(forbid.path(&id), "jobs/c-1.1/kill?by=x&forbid=1");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["by=%0A", "grace=soon", "task=x", "proof=7", "forbid=2", "forbid=1&task=1"] {
            assert!(read(&format!("?{wrong}")).is_err(), "{wrong}");
        }
        assert!(read(&format!("?by={}", "x".repeat(101))).is_err());
    }
}
