//! Who changed what, and who was refused: a line each, nothing secret, and never more than so much.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::thread;

use common::head::CONF;
use common::rights::{ask, running, submit, token};
use common::{SOON, TestRoot, wait_for};
use serde_json::{Value, json};

/// The lines of the audit, as who looks after the root sees them.
fn audit(root: &TestRoot, words: &[&str]) -> Vec<Value> {
    let words = [&["audit"], words].concat();
    let answer = root.cmd("scheduler", &words).expect(0).json();
    answer["audit"].as_array().unwrap().clone()
}

/// What was asked, and what came of it.
fn told(lines: &[Value]) -> Vec<String> {
    let text = |line: &Value| {
        let of = |name: &str| line[name].as_str().unwrap_or("-").to_string();
        format!("{} {} {}", of("user"), of("what"), line["outcome"])
    };
    lines.iter().map(text).collect()
}

fn id(token: &str) -> &str {
    token.split('_').nth(1).unwrap()
}

#[test]
fn each_change_and_each_refusal_has_a_line() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    let ben = token(&root, &["role=viewer", "user=ben"]);
    let held = json!({"command": ["true"], "state": "held", "environment": {"PW": "hush"}});
    let job = submit(&root, &ada, &held);
    let update = format!("/scheduler/jobs/{job}/update?priority=3");
    ask(&root, &ada, "GET", "/scheduler/jobs", &Value::Null).expect(200); // a look is no change
    ask(&root, &ada, "POST", &update, &Value::Null).expect(200);
    ask(&root, &ben, "POST", &update, &Value::Null).expect(403);
    ask(&root, &ben, "GET", &format!("/scheduler/jobs/{job}"), &Value::Null).expect(403);
    ask(&root, &ada, "POST", "/scheduler/jobs/new", &json!({"comand": []})).expect(400);
    let wrong = format!("cb_{}_{}", id(&ada), "0".repeat(64));
    ask(&root, &wrong, "GET", "/scheduler/jobs", &Value::Null).expect(401);
    ask(&root, "cb_none_such", "POST", &update, &Value::Null).expect(401);
    root.cgi("GET", &format!("/scheduler/jobs/{ada}"), &[], b"").expect(401);
    let run = format!("/nodemgr/jobs/run?json_data={{\"environment\":\"hush\"}}&x={ada}");
    ask(&root, &ada, "POST", &run, &Value::Null).expect(400);
    root.cmd("scheduler", &["jobs", "new", "--held", "--", "true"]).expect(0);
    root.cmd("scheduler", &["jobs", "99", "update", "kill=1"]).expect(1);
    root.cmd("scheduler", &["check", "--repair"]).expect(0);
    let shell = audit(&root, &["limit=1"])[0]["user"].as_str().unwrap().to_string();
    let mut expected = vec![
        format!("{shell} POST scheduler/tokens/new?role=user&user=ada 201"),
        format!("{shell} POST scheduler/tokens/new?role=viewer&user=ben 201"),
        "ada POST scheduler/jobs/new 201".into(),
        "ada POST scheduler/jobs/1/update?priority=3 200".into(),
        "ben POST scheduler/jobs/1/update?priority=3 403".into(),
        "ben GET scheduler/jobs/1 403".into(),
        "ada POST scheduler/jobs/new 400".into(),
        "- GET scheduler/jobs 401".into(),
        "- POST scheduler/jobs/1/update 401".into(),
        "- GET scheduler/jobs/… 401".into(),
        format!("{shell} POST scheduler/jobs/new 201"),
        format!("{shell} POST scheduler/jobs/99/update?kill=1 404"),
        format!("{shell} GET scheduler/check?repair=1 200"),
    ];
    let lines = audit(&root, &[]);
    assert_eq!(told(&lines), expected, "{lines:#?}");
    let by = |index: usize| (&lines[index]["by"], &lines[index]["from"], &lines[index]["made"]);
    let ada_token = json!(format!("token {}", id(&ada)));
    assert_eq!(by(0).0, "shell");
    assert_eq!(by(2), (&ada_token, &json!("127.0.0.1"), &json!("/cgi-bin/scheduler/jobs/1")));
    assert_eq!(by(7).0, &json!(format!("not token {}", id(&ada))));
    assert_eq!(by(8).0, "nothing");
    assert_eq!(by(10).2, &json!("/cgi-bin/scheduler/jobs/2"));
    // What is asked for: one user's, from then on, so many; and whoever is no admin sees their own.
    let of_ben = told(&audit(&root, &["user=ben"]));
    assert_eq!(
        of_ben,
        expected.iter().filter(|line| line.starts_with("ben")).cloned().collect::<Vec<_>>()
    );
    assert_eq!(audit(&root, &["since=1h"]).len(), expected.len());
    let since = lines[8]["at"].as_str().unwrap();
    assert!(audit(&root, &[&format!("since={since}")]).len() <= expected.len() - 8);
    assert!(audit(&root, &["since=2199-01-01T00:00:00Z"]).is_empty());
    root.cmd("scheduler", &["audit", "since=yesterday"]).expect(1);
    let own = ask(&root, &ben, "GET", "/scheduler/audit", &Value::Null).expect(200).json();
    assert_eq!(told(own["audit"].as_array().unwrap()), of_ben);
    let admin = token(&root, &["role=admin", "scope=read"]);
    let all = ask(&root, &admin, "GET", "/scheduler/audit", &Value::Null).expect(200).json();
    expected.push(format!("{shell} POST scheduler/tokens/new?role=admin&scope=read 201"));
    assert_eq!(told(all["audit"].as_array().unwrap()), expected);
    // Nothing of it is secret, and it is its owner's alone.
    let secret = |token: &str| token.rsplit_once('_').unwrap().1.to_string();
    for name in ["state/audit/users", "state/audit/strangers"] {
        let text = root.read(name);
        for hushed in [&secret(&ada), &secret(&ben), &secret(&wrong), "hush", "none_such"] {
            assert!(!text.contains(hushed), "{name}: {hushed} in {text}");
        }
    }
    let refused = root.cmd("scheduler", &["tokens"]).expect(0).json()["refused"].clone();
    assert_eq!(refused["count"], 3, "{refused}");
    root.check();
}

#[test]
fn a_jobs_own_doings_are_its_owners_and_its_progress_is_none() {
    let root = TestRoot::new(CONF);
    let _poller = root.poller();
    let ada = token(&root, &["role=user", "user=ada"]);
    let (job, key) = running(&root, &ada, "key");
    let nodejob = root.card(job)[1]["nodejob"].as_str().unwrap().to_string();
    ask(&root, &key, "POST", &format!("/processor/jobs/{nodejob}/status"), &json!("half"))
        .expect(200);
    submit(&root, &key, &json!({"command": ["true"]}));
    let lines = audit(&root, &["user=ada"]);
    assert_eq!(told(&lines), ["ada POST scheduler/jobs/new 201"; 2]);
    assert_eq!(lines[1]["by"], json!(format!("key of {nodejob}")));
    root.write("go", "");
    root.reaches(job, "stopped");
    root.check();
}

#[test]
fn strangers_push_out_nothing_and_no_file_grows_for_ever() {
    let root = TestRoot::new(&format!("{CONF}max_audit = 4 KiB\n"));
    let ada = token(&root, &["role=user", "user=ada"]);
    let length =
        |name: &str| fs::metadata(root.path("state/audit").join(name)).map_or(0, |meta| meta.len());
    let ask_often = |token: &str, method: &str, path: &str, code: i32| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        ask(&root, token, method, path, &Value::Null).expect(code);
                    }
                });
            }
        });
    };
    ask_often("cb_none_such", "GET", "/scheduler/jobs", 401);
    let lines = audit(&root, &["user=ada"]);
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(
        told(&audit(&root, &[]))[0].split_once(' ').unwrap().1,
        "POST scheduler/tokens/new?role=user&user=ada 201"
    );
    ask_often(&ada, "POST", "/scheduler/jobs/7/update?kill=1", 404);
    for name in ["users", "users.1", "strangers", "strangers.1"] {
        // Whoever appends while a file is put aside may do so behind its size.
        assert!(length(name) < (4 << 10) + 2000, "{name}: {}", length(name));
    }
    for name in ["users.1", "strangers.1"] {
        assert!(length(name) >= 4 << 10, "{name}: {}", length(name));
    }
    let lines = audit(&root, &["user=ada", "limit=7"]);
    assert_eq!(told(&lines), ["ada POST scheduler/jobs/7/update?kill=1 404"; 7]);
    assert!(audit(&root, &[]).len() > 50);
    root.check();
}

#[test]
fn what_cannot_be_told_is_done_all_the_same() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    fs::remove_dir_all(root.path("state/audit")).unwrap();
    root.write("state/audit", "in the way");
    let job = submit(&root, &ada, &json!({"command": ["true"], "state": "held"}));
    let killed = root.cmd("scheduler", &["jobs", &job.to_string(), "update", "kill=1"]).expect(0);
    assert!(killed.stderr.contains("the audit lacks POST scheduler/jobs/1/update"), "{killed:?}");
    fs::remove_file(root.path("state/audit")).unwrap();
    root.check();
}

#[test]
fn when_a_token_was_last_used() {
    let root = TestRoot::new(CONF);
    let ada = token(&root, &["role=user", "user=ada"]);
    let used = || root.cmd("scheduler", &["tokens"]).expect(0).json()["tokens"][0].clone();
    assert_eq!(used()["last_used_at"], Value::Null);
    ask(&root, &ada, "GET", "/scheduler/jobs", &Value::Null).expect(200);
    // It is noted behind the answer.
    let noted = wait_for(SOON, || match used()["last_used_at"].as_str() {
        Some(at) => Ok(at.to_string()),
        None => Err(used().to_string()),
    });
    assert!(noted.contains(":00") && noted.ends_with('Z'), "{noted}");
    let file = root.path("state/tokens").join(id(&ada));
    let changed = || fs::metadata(&file).unwrap().modified().unwrap();
    // Another use within that minute changes nothing; a wrong secret never does.
    let before = changed();
    let wrong = format!("cb_{}_{}", id(&ada), "0".repeat(64));
    fs::File::open(&file)
        .unwrap()
        .set_modified(before - std::time::Duration::from_secs(3600))
        .unwrap();
    ask(&root, &wrong, "GET", "/scheduler/jobs", &Value::Null).expect(401);
    assert!(changed() < before);
    ask(&root, &ada, "GET", "/scheduler/jobs", &Value::Null).expect(200);
    wait_for(SOON, || if changed() >= before { Ok(()) } else { Err(used().to_string()) });
    root.check();
}
