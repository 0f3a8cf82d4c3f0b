//! What was written and not yet durable when its writer, or the machine, stopped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;

use common::head::open_root;
use corkboard::attempts::{self, Said};
use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::ids::NodejobId;
use corkboard::model::outcome::Outcome;
use corkboard::model::run_status::RunStatus;
use serde_json::json;

#[test]
fn a_card_that_lost_its_end_and_kept_its_place_goes_on() {
    let mut root = open_root("");
    let poller = root.poller();
    let job = root.submit(&json!({"command": ["true"]}));
    let other = root.submit(&json!({"command": ["true"], "max_retry_count": 1}));
    for job in [job, other] {
        root.reaches(job, "stopped");
    }
    poller.end("TERM");
    let path = root.path(&format!("state/scheduler/done/0/{job}.job"));
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.find(r#"{"at":"#).unwrap()
        + text[text.find(r#"{"at":"#).unwrap()..].find('\n').unwrap()
        + 1;
    File::options().write(true).open(&path).unwrap().set_len(kept as u64).unwrap();
    let found = root.cmd("scheduler", &["check"]).expect(1).body;
    assert!(found.contains("belongs in Running"), "{found}");
    root.env.push(("CORKBOARD_BOOT_ID".into(), "the-next".into()));
    let _poller = root.poller();
    let status = root.reaches(job, "stopped");
    assert_eq!(status["code"], 0, "{status}");
    assert_eq!(root.read("state/scheduler/poller.lock").trim(), "the-next");
    root.check();
}

#[test]
fn a_card_that_was_stamped_by_a_process_that_died_is_synced_with_its_move() {
    let test = open_root("");
    let job = test.submit(&json!({"command": ["true"], "state": "held"}));
    let end = json!({"at": "2026-01-01T00:00:00.000Z", "event": "stopped", "status": "error",
        "cause": "killed", "reason": "killed by ada"});
    let path = test.path(&format!("state/scheduler/queue/{job}.job"));
    fs::create_dir_all(test.path("state/scheduler/done/0")).unwrap();
    let mut card = File::options().append(true).open(path).unwrap();
    card.write_all(format!("\n{end}\n").as_bytes()).unwrap();
    let root = Root::open(&test.dir).unwrap();
    let cards = Cards::new(&root);
    let lock = cards.lock().unwrap();
    let changed = cards.change(&lock, job, |_| Ok(Vec::new())).unwrap();
    drop(lock);
    // The card, the directory that it left, and the one that it came to.
    assert_eq!(changed.sync.len(), 3, "{:?}", changed.sync);
    assert!(format!("{:?}", changed.sync).contains(&format!("{job}.job")), "{:?}", changed.sync);
    changed.sync.commit().unwrap();
    test.check();
}

/// Their nodes may have told of them for the last time.
#[test]
fn ends_that_cannot_be_recorded_now_are_to_be_recorded_again() {
    let test = open_root("");
    let job: u64 = 1;
    test.cmd("scheduler", &["jobs", "new", "--wait", "--", "true"]).expect(0);
    let root = Root::open(&test.dir).unwrap();
    let id = NodejobId::new(test.read("state/scheduler/cluster").trim(), job, 1).unwrap();
    let said = |status: RunStatus| Said {
        node: "localhost".into(),
        id: id.clone(),
        proven: true,
        status: Box::new(status.of(&id)),
    };
    let end = said(RunStatus::stopped(&Outcome::exit(0)));
    let all = vec![said(RunStatus::running(1, 1, "b")), end.clone()];
    for name in ["cluster", "lock"] {
        let (file, aside) = (test.path(&format!("state/scheduler/{name}")), test.path("aside"));
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
        let applied = attempts::record(&root, all.clone());
        assert_eq!((applied.errors.len(), applied.safe.len()), (1, 0), "{name}: {applied:?}");
        assert_eq!(applied.again, std::slice::from_ref(&end), "{name}");
        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
    }
    let applied = attempts::record(&root, all);
    assert!(applied.errors.is_empty() && applied.again.is_empty(), "{applied:?}");
    assert_eq!(applied.safe.len(), 1, "{applied:?}");
    test.check();
}
