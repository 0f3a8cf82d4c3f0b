//! Whatever reads what comes from elsewhere, by one name each: fuzzing gives them anything, and a test what
//! was found so.
//!
//! Each takes any bytes. A panic is a defect.

use serde_json::Value;

use crate::cgi::untrusted as door;
use crate::clock;
use crate::model::card::Card;
use crate::model::ids::{NodejobId, RunId};
use crate::model::node::Node;
use crate::model::partition::Partition;
use crate::model::request::{Spec, split_request_id};
use crate::model::run_status::RunStatus;
use crate::model::tasks::TaskSet;
use crate::model::{audit, line::Line};
use crate::settings;
use crate::wire::{ack, failure, feed, list, node, run, status, work};
use crate::{nodemgr, processor, scheduler};

/// A reader of anything.
pub type Reader = fn(&[u8]);

/// All of them, by name.
pub const READERS: [(&str, Reader); 7] = [
    ("request", request),
    ("query", query),
    ("json", json),
    ("multipart", multipart),
    ("card", card),
    ("story", story),
    ("answer", answer),
];

/// Bytes as text; what is none in them is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A method, a path below a program and a query, a line each.
pub fn request(bytes: &[u8]) {
    let text = text(bytes);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (method, path, query) = (next(), next(), next());
    for program in [&scheduler::PROGRAM, &processor::PROGRAM, &nodemgr::PROGRAM] {
        let found = door::request(program.routes, method, path, query);
        let depth = |pattern: &str| pattern.split('/').filter(|word| !word.is_empty()).count();
        let given = depth(path);
        assert!(found.iter().all(|pattern| depth(pattern) == given), "{path:?} is no {found:?}");
    }
}

/// A value of a query or of a setting: times, durations, sizes, ids, numbers of tasks.
pub fn query(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(tasks) = text.parse::<TaskSet>() {
        let written = tasks.to_string();
        assert_eq!(written.parse::<TaskSet>().as_ref(), Ok(&tasks), "{written:?}");
        let first: Vec<u32> = tasks.iter().take(100).collect();
        assert!(first.is_sorted() && first.iter().all(|task| tasks.contains(*task)));
    }
    if let Some(time) = clock::parse_rfc3339(&text) {
        let written = clock::rfc3339(time);
        assert!(clock::parse_rfc3339(&written).is_some(), "{written:?}");
    }
    if let Some(id) = NodejobId::parse(&text) {
        assert_eq!(id.to_string(), text);
    }
    if let Some(id) = RunId::parse(&text) {
        assert_eq!(*id, *text);
    }
    let _ = (clock::parse_duration(&text).map(clock::human), settings::parse_size(&text));
}

/// The body of a submission, at the head and at a node.
pub fn json(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ =
        (Spec::for_node(&request), Spec::for_run(&request), run::Requests::read(request.clone()));
    let Ok(spec) = Spec::for_head(&request) else { return };
    // What was accepted is understood when it is read from its card.
    let (_, kept) = split_request_id(&request);
    let (read, newer) = Spec::of_card(&kept);
    assert!(newer.is_none(), "{newer:?} of {request}");
    assert_eq!((read.priority, read.held), (spec.priority, spec.held), "{request}");
}

/// A form: its Content-Type in the first line, then its body.
pub fn multipart(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (kind, body) = bytes.split_at(at);
    door::form(&text(kind), body.get(1..).unwrap_or_default());
}

/// A card, whole and cut off anywhere.
pub fn card(bytes: &[u8]) {
    let Ok(card) = Card::parse(bytes) else { return };
    let _ = (
        card.status(),
        card.expires_at(&std::time::SystemTime::now().into()),
        card.newer_reason(),
        card.without_events().column(),
    );
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let rest = bytes.len() - first;
    // As a crash may leave it: a card whose first line is whole stays one.
    for length in (0..rest).step_by(rest / 16 + 1) {
        assert!(Card::parse(&bytes[..first + length]).is_ok(), "cut off at {}", first + length);
    }
}

/// Lines of stories, feeds and the audit, and records of a node and of a partition.
pub fn story(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = Line::read(line);
        let status = serde_json::from_slice::<RunStatus>(line);
        let _ = status.map(|status| (status.outcome(), status.has_begun(), status.outside()));
        let _ = audit::Entry::read(&text(line));
    }
    let _ = Partition::parse("partition", bytes).map(|known| known.admits(Some("ada")));
    if let Ok(node) = Node::parse("node", bytes) {
        let _ = (node.shown(), node.trouble(), node.takes_jobs(), node.address());
    }
}

/// What a node answers, whatever it was asked.
pub fn answer(bytes: &[u8]) {
    let _ = (node::Info::read(bytes), feed::FeedPage::read(bytes), failure::Failure::read(bytes));
    let _ = (work::Names::read(bytes), list::read(bytes));
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = (status::Entry::read(value.clone()), ack::Ack::read(value.clone()));
    let _ = run::Many::read(value);
}
