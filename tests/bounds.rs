//! What one user may have waiting, and how many requests stay at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::process::{Child, Command, Stdio};

use common::head::CONF;
use common::rights::{ask, running, submit, token};
use common::{Answer, Httpd, SOON, TestRoot, wait_for};
use serde_json::{Value, json};

fn held() -> Value {
    json!({"command": ["true"], "state": "held"})
}

fn refused(answer: Answer, why: &str) {
    assert!(answer.code == 503 && answer.body.contains(why), "{answer:?}");
    assert_eq!(answer.header("Retry-After"), Some("1"), "{answer:?}");
}

#[test]
fn a_user_has_no_more_jobs_waiting_than_may_be() {
    let root = TestRoot::new(&format!("{CONF}max_waiting_per_user = 3\n"));
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let new =
        |token: &str, request: &Value| ask(&root, token, "POST", "/scheduler/jobs/new", request);
    let mut own = held();
    own["request_id"] = json!("first");
    let first = submit(&root, &ada, &own);
    refused(new(&ada, &json!([held(), held(), held()])), "ada has 1 jobs that wait");
    new(&ada, &json!([held(), held()])).expect(201);
    refused(new(&ada, &held()), "more than 3 (setting max_waiting_per_user)");
    // The same request again is no more than there was; others are not held up, nor who looks after it.
    new(&ada, &own).expect(200);
    submit(&root, &ben, &held());
    root.cmd("scheduler", &["jobs", "new", "--held", "--", "true"]).expect(0);
    assert_eq!(root.read("state/scheduler/waiting/ada").lines().count(), 4);
    // What waits no more makes room.
    ask(&root, &ada, "DELETE", &format!("/scheduler/queue/{first}"), &Value::Null).expect(200);
    submit(&root, &ada, &held());
    refused(new(&ada, &held()), "ada has 3 jobs that wait");
    // The file is never the truth.
    for left in ["", "waiting 9", "waiting 9\n", "nonsense\n"] {
        root.write("state/scheduler/waiting/ada", left);
        refused(new(&ada, &held()), "ada has 3 jobs that wait");
    }
    root.check();
}

#[test]
fn a_user_has_no_more_bytes_waiting_than_may_be() {
    let root = TestRoot::new(&format!("{CONF}max_waiting_bytes_per_user = 10 KiB\n"));
    let ada = token(&root, &["role=user", "user=ada"]);
    let form = |size: usize| {
        let body = format!(
            "--x\r\nContent-Disposition: form-data; name=\"job\"\r\n\r\n{}\r\n--x\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{}\r\n--x--\r\n",
            held(),
            "a".repeat(size)
        );
        let bearer = format!("Bearer {ada}");
        let kind = ("Content-Type", "multipart/form-data; boundary=x");
        let headers = [("Authorization", bearer.as_str()), kind];
        root.cgi("POST", "/scheduler/jobs/new", &headers, body.as_bytes())
    };
    form(6000).expect(201);
    refused(form(6000), "more than 10240 bytes (setting max_waiting_bytes_per_user)");
    form(3000).expect(201);
    // Those that waited before there was a bound count as well, with their files.
    std::fs::remove_file(root.path("state/scheduler/waiting/ada")).unwrap();
    refused(form(3000), "ada has 2 jobs that wait");
    // What was refused has left nothing.
    assert_eq!(std::fs::read_dir(root.path("state/scheduler/files")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(root.path("state/scheduler/tmp")).unwrap().count(), 0);
    root.check();
}

/// By a crash, or a full disk. Cut between two lines it says itself how many there were.
#[test]
fn an_account_of_what_waits_that_is_torn_is_made_anew() {
    let root = TestRoot::new(&format!("{CONF}max_waiting_per_user = 3\n"));
    let ada = token(&root, &["role=user", "user=ada"]);
    for _ in 0..3 {
        submit(&root, &ada, &held());
    }
    let again = || ask(&root, &ada, "POST", "/scheduler/jobs/new", &held());
    refused(again(), "ada has 3 jobs");
    let path = root.path("state/scheduler/waiting/ada");
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        refused(again(), "ada has 3 jobs that wait");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "of {length} bytes");
    }
    std::fs::write(&path, [&whole[..], b"\xff\n"].concat()).unwrap();
    refused(again(), "ada has 3 jobs that wait");
    root.check();
}

#[test]
fn a_child_counts_as_its_owners() {
    let root = TestRoot::new(&format!("{CONF}max_waiting_per_user = 1\n"));
    let _poller = root.poller();
    let ada = token(&root, &["role=user", "user=ada"]);
    let (job, key) = running(&root, &ada, "key");
    submit(&root, &key, &held());
    refused(ask(&root, &key, "POST", "/scheduler/jobs/new", &held()), "ada has 1 jobs");
    root.write("go", "");
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn a_long_series_of_jobs_leaves_no_long_file() {
    let root = TestRoot::new(&format!("{CONF}max_waiting_per_user = 1000\n"));
    let ada = token(&root, &["role=user", "user=ada"]);
    let mut longest = 0;
    for _ in 0..3 {
        let batch = Value::from(vec![held(); 60]);
        let answer = ask(&root, &ada, "POST", "/scheduler/jobs/new", &batch).expect(201).json();
        for job in answer.as_array().unwrap() {
            let path = format!("/scheduler/queue/{}", job["job"]);
            ask(&root, &ada, "DELETE", &path, &Value::Null).expect(200);
        }
        longest = longest.max(root.read("state/scheduler/waiting/ada").lines().count());
    }
    assert!(longest <= 1 + 64 + 60, "{longest}");
    root.check();
}

/// Somebody who waits for a job, until dropped.
struct Waiting(Command, Child);

impl Waiting {
    fn new(httpd: &Httpd, token: &str, job: u64) -> Waiting {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-H", &format!("Authorization: Bearer {token}")]);
        let url = format!("http://127.0.0.1:{}/cgi-bin/scheduler/jobs/{job}", httpd.port);
        curl.arg(format!("{url}/status?wait=40")).stdout(Stdio::null());
        let child = curl.spawn().unwrap();
        Waiting(curl, child)
    }

    /// Comes again if it found no place: somebody who only looked may have had it.
    fn insist(&mut self) {
        if self.1.try_wait().unwrap().is_some() {
            self.1 = self.0.spawn().unwrap();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

#[test]
fn so_many_wait_at_a_time_and_a_place_is_free_when_its_holder_is_gone() {
    let root = TestRoot::new(&format!("{CONF}max_waits = 3\nmax_waits_per_user = 2\n"));
    let httpd = root.httpd();
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=user", "user=ben"]);
    let admin = token(&root, &["role=admin"]);
    let job = submit(&root, &ada, &held());
    let path = format!("/scheduler/jobs/{job}/status?wait=0.01");
    let look = |token: &str| ask(&root, token, "GET", &path, &Value::Null);
    let is_refused = |token: &str, why: &str, waiting: &mut [Waiting]| {
        wait_for(SOON, || {
            waiting.iter_mut().for_each(Waiting::insist);
            let answer = look(token);
            if answer.code != 503 {
                return Err(format!("{answer:?}"));
            }
            refused(answer, why);
            Ok(())
        });
    };
    let mut waiting = vec![Waiting::new(&httpd, &ada, job), Waiting::new(&httpd, &ada, job)];
    is_refused(&ada, "ada has 2 requests that wait or send much", &mut waiting);
    look(&ben).expect(200);
    waiting.push(Waiting::new(&httpd, &ben, job));
    is_refused(&ben, "there are 3 requests that wait or send much", &mut waiting);
    // A short request takes no place, and an admin is not held up by users.
    ask(&root, &ada, "GET", "/scheduler/jobs", &Value::Null).expect(200);
    look(&admin).expect(200);
    let long = json!({"command": ["true"], "environment": {"LONG": "x".repeat(70_000)}});
    refused(ask(&root, &ada, "POST", "/scheduler/jobs/new", &long), "ada has 2 requests");
    ask(&root, &admin, "POST", &format!("/scheduler/jobs/{job}/update?kill=1"), &Value::Null)
        .expect(200);
    // They are told, and gone.
    for mut one in waiting {
        one.1.wait().unwrap();
    }
    for token in [&ada, &ben] {
        wait_for(SOON, || match look(token) {
            answer if answer.code == 200 => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
    }
    root.check();
}

#[test]
fn what_came_while_nothing_was_bounded_waits_too() {
    let bounded = format!("{CONF}max_waiting_per_user = 3\n");
    let root = TestRoot::new(&bounded);
    let ada = token(&root, &["role=user", "user=ada"]);
    submit(&root, &ada, &held());
    root.write("corkboard.conf", CONF);
    (0..3).for_each(|_| _ = submit(&root, &ada, &held()));
    root.write("corkboard.conf", &bounded);
    let more = ask(&root, &ada, "POST", "/scheduler/jobs/new", &held());
    refused(more, "ada has 4 jobs that wait");
    root.check();
}
