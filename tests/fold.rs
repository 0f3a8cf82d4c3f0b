//! The fold of a plain card against histories of any kind: read again from its bytes, cut at every
//! line, a card says what it said when its lines were applied one by one.
#![allow(missing_docs, clippy::unwrap_used)]

use corkboard::model::card::{Card, Event, State, What};
use corkboard::model::node::DriverKind;
use corkboard::model::outcome::{Cause, Outcome};

const FIRST: &str = r#"{"job":2,"request_id":"r","at":"2026-01-01T00:00:00.000Z","by":"ada","request":{"command":["true"],"max_retry_count":2,"retry_delay":"1s"}}"#;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(5) {
            0 => Outcome::exit(0),
            1 => Outcome::exit(3),
            2 => Outcome::killed("bob"),
            3 => Outcome::lost("gone"),
            _ => Outcome::error(Cause::Expired, "late".into()),
        }
    }

    /// Anything that a program writes, whether it makes sense now or not.
    fn what(&mut self, card: &Card) -> What {
        let last = card.attempts.last().map_or(0, |last| last.attempt);
        // Mostly about the attempt that is due, now and then about another.
        let attempt = if self.below(4) > 0 { last.max(1) } else { self.below(4) as u32 + 1 };
        let by = "ada".to_string();
        let time = "2026-01-01T00:00:09.000Z".to_string();
        match self.below(10) {
            0 => What::Held { by },
            1 => What::Released { by },
            2 => What::Priority { priority: self.below(9) as i64 - 4, by },
            3 | 4 => What::Placed {
                attempt: last + 1,
                node: format!("n{}", self.below(3)),
                nodejob: format!("c-2.{}", last + 1),
                driver: if self.below(2) == 0 { DriverKind::Local } else { DriverKind::Http },
                uri: (self.below(2) == 0).then(|| "http://n".into()),
                tasks: None,
            },
            5 => What::Running { attempt, pid: Some(7), started: Some(time) },
            6 => What::Stopping { by, tasks: None },
            7 if self.below(2) == 0 => What::Ref { attempt, reference: "batch 7".into() },
            7 => What::Refused { attempt, reason: "full".into(), not_before: time },
            8 if self.below(2) == 0 => What::Late { attempt, outcome: self.outcome() },
            8 => What::Retry { attempt, outcome: self.outcome(), not_before: Some(time) },
            _ if self.below(3) > 0 => What::Running { attempt, pid: None, started: None },
            _ => What::Stopped {
                attempt: (self.below(3) > 0).then_some(attempt),
                outcome: self.outcome(),
            },
        }
    }
}

/// What must hold of every card, whatever was written.
fn holds(card: &Card, before: &Card) {
    let open = card.attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count();
    let with_nodes = card.with_nodes().count();
    assert!(open <= 1 || card.state == State::Stopped, "{card:?}");
    assert_eq!(
        with_nodes > 0,
        matches!(card.state, State::Placed | State::Running | State::Stopping)
    );
    assert_eq!(card.outcome.is_some(), card.state == State::Stopped, "{card:?}");
    assert!(card.tasks.most_retries() >= before.tasks.most_retries());
    assert_eq!(card.newer, None, "{card:?}");
    if before.state == State::Stopped {
        let is_as_before = |card: &Card| {
            (card.outcome.clone(), card.stopped_at.clone(), card.attempts.clone(), card.priority)
        };
        assert_eq!(is_as_before(card), is_as_before(before), "the first end stands");
    }
}

#[test]
fn a_card_read_again_says_what_it_said() {
    let mut random = Random(11);
    let mut ends = 0;
    for _ in 0..100 {
        let mut bytes = format!("{FIRST}\n").into_bytes();
        let mut card = Card::parse(&bytes).unwrap();
        for _ in 0..random.below(24) {
            let before = card.clone();
            let event = Event::now(random.what(&card));
            let line = serde_json::to_string(&event).unwrap();
            // What a crash leaves between lines is passed over.
            let torn = line[..random.below(line.len() as u64) as usize].to_string();
            let damage = match random.below(4) {
                0 => format!("\n{torn}\n"),
                1 => "\n\0\0\0\0\n".to_string(),
                _ => String::new(),
            };
            bytes.extend(format!("{damage}\n{line}\n").as_bytes());
            card.apply(event);
            card.length = bytes.len() as u64;
            let read = Card::parse(&bytes).unwrap();
            assert_eq!(
                format!("{read:?}"),
                format!("{card:?}"),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
            let short = format!("{:?}", read.without_events());
            assert_eq!(short, format!("{:?}", Card { events: Vec::new(), ..read }));
            holds(&card, &before);
        }
        ends += usize::from(card.state == State::Stopped);
        // Cut anywhere within its last line it is what it was before that.
        if card.events.is_empty() {
            continue;
        }
        let last = bytes.iter().rev().skip(1).position(|b| *b == b'\n').unwrap();
        let end = bytes.len() - last - 1;
        let whole = Card::parse(&bytes[..end]).unwrap();
        for cut in end..bytes.len() - 1 {
            let cut = Card::parse(&bytes[..cut]).unwrap();
            assert_eq!((cut.state, cut.events.len()), (whole.state, whole.events.len()));
        }
    }
    assert!(ends > 12, "{ends}");
}
