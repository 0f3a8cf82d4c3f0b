//! Clients that submit jobs of all kinds, each until it is acknowledged, whatever dies meanwhile.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{TestRoot, wait_for};
use crate::net::{Random, http};

/// Until a request must have come through.
const LONGEST: Duration = Duration::from_secs(100);

/// Jobs in one request of those submitters that send arrays.
pub const ARRAY: usize = 10;

/// A job as a client wants it, without its request id.
pub fn request(random: &mut Random, witness: &Path) -> Value {
    let name = "$CORKBOARD_NODEJOB${CORKBOARD_TASK:+/$CORKBOARD_TASK}";
    let note = format!("echo {name} >> {}", witness.display());
    match random.below(21) {
        20 => {
            let sleep = random.below(30);
            let command = format!("{note}; sleep 0.{sleep:03}");
            json!({"command": command, "array": "0-11", "max_retry_count": random.below(3)})
        }
        0..=9 => json!({"command": note}),
        10 | 11 => json!({"command": note, "max_retry_count": 3}),
        12..=15 => {
            let sleep = 20 + random.below(400);
            let retries = random.below(3);
            json!({"command": format!("{note}; sleep 0.{sleep:03}"), "max_retry_count": retries})
        }
        16 => json!({"command": format!("{note}; (sleep 0.3 &) ; exit 0"), "max_retry_count": 1}),
        17 | 18 => {
            let first = format!("{note}; case $CORKBOARD_NODEJOB in *.1) exit 3;; esac");
            json!({"command": first, "max_retry_count": 2})
        }
        _ => json!({"command": format!("{note}; exit 5"), "max_retry_count": 1}),
    }
}

/// What the submitters know.
#[derive(Default)]
pub struct Journal {
    /// By number: the request id, the request, whether it was cancelled after that.
    pub acknowledged: BTreeMap<u64, (String, Value)>,
    pub cancelled: HashSet<u64>,
    pub repeats: usize,
}

/// Submits jobs, each until it is acknowledged.
pub struct Submitter<'t> {
    pub head: &'t TestRoot,
    pub port: u16,
    pub number: usize,
    pub journal: &'t Mutex<Journal>,
    pub random: Random,
}

impl Submitter<'_> {
    pub fn by_http(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// One try; the numbers that it was answered.
    pub fn once(&self, body: &Value) -> Option<Vec<u64>> {
        let answer: Value = if self.by_http() {
            let (code, text) = http(self.port, "POST", "/scheduler/jobs/new", &body.to_string())?;
            assert!(matches!(code, 200 | 201 | 500 | 503), "{code} {text}");
            serde_json::from_str(&text).ok().filter(|_| code < 300)?
        } else {
            let answer = self.head.cmd_in("scheduler", &["jobs", "new"], &body.to_string());
            assert!(matches!(answer.code, 0 | 1 | 75 | -1), "{answer:?}");
            serde_json::from_str(&answer.body).ok().filter(|_| answer.code == 0)?
        };
        let number = |one: &Value| one["job"].as_u64();
        match &answer {
            Value::Array(all) => all.iter().map(number).collect(),
            one => Some(vec![number(one)?]),
        }
    }

    pub fn submit(&mut self, jobs: Vec<(String, Value)>) {
        let with_id = |(id, request): &(String, Value)| {
            let mut request = request.clone();
            request["request_id"] = json!(id);
            request
        };
        let body = match jobs.as_slice() {
            [one] => with_id(one),
            several => several.iter().map(with_id).collect(),
        };
        let mut tries = 0;
        let numbers = loop {
            if let Some(numbers) = self.once(&body) {
                break numbers;
            }
            tries += 1;
            assert!(tries < 300, "{body} is never acknowledged");
            thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(numbers.len(), jobs.len());
        let cancel = jobs.len() == 1 && self.random.below(40) == 0;
        let first = numbers[0];
        {
            let mut journal = self.journal.lock().unwrap();
            journal.repeats += tries;
            for (number, job) in numbers.into_iter().zip(jobs) {
                let before = journal.acknowledged.insert(number, job);
                assert!(before.is_none(), "job {number} was given out twice");
            }
        }
        if cancel {
            let path = format!("/scheduler/jobs/{first}/update?kill=1");
            wait_for(LONGEST, || match http(self.port, "POST", &path, "") {
                Some((code, _)) if code < 300 => Ok(()),
                other => Err(format!("{path}: {other:?}")),
            });
            self.journal.lock().unwrap().cancelled.insert(first);
        }
    }
}
