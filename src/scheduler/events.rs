//! The head's change feed: page by page, and as a stream of server-sent events.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::auth::{Who, ownership};
use crate::board::card_news::{self, NewsPage};
use crate::board::root::Root;
use crate::board::watch;
use crate::cgi::request::LONGEST_WAIT;
use crate::cgi::{Call, Key, Response};
use crate::error::{Error, Kind, Result};
use crate::model::access::{Need, Reach};

/// A stream that has nothing to say says so after so long: who has left is found out, and nothing between
/// takes the line for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// After how many milliseconds a client of a stream that has ended should ask again.
const RETRY: u32 = 500;

/// What `events` takes.
pub const KEYS: &[Key] = &[
    Key::new("since", "CURSOR", "what was done after it; without one, where it is now"),
    Key::new("wait", "SECONDS", "answer when something is done, or then"),
    Key::new("format", "json|event-stream", "one page, or a stream; json if absent"),
];

/// What everybody sees of a line.
const EVERYBODYS: [&str; 4] = ["job", "state", "at", "event"];

/// `GET events`.
pub fn events(call: &Call) -> Result<Response> {
    let request = call.request;
    if !matches!(request.param("format"), None | Some("json" | "event-stream")) {
        return Err(Error::bad("format must be json or event-stream"));
    }
    let last = request.last_event_id();
    let since = request.param("since").or(last.as_deref().filter(|id| !id.is_empty()));
    let wait = request.wait()?;
    let mut eyes = Eyes::of(call);
    if !request.wants_event_stream() {
        let mut page = card_news::read(call.root, since, wait.unwrap_or_default())?;
        eyes.conceal(&mut page);
        return Ok(Response::bytes("application/json", json(&page)));
    }
    // What is wrong with the cursor is said before the stream begins.
    let page = card_news::read(call.root, since, Duration::ZERO)?;
    let longest = if request.command { wait } else { Some(wait.unwrap_or(LONGEST_WAIT)) };
    let deadline = longest.map(|longest| Instant::now() + longest);
    let stream = move |out: &mut dyn Write| stream(&mut eyes, page, deadline, out);
    Ok(Response::stream("text/event-stream", Box::new(stream)))
}

/// What whoever asks may see of what is done to other users' jobs: when, what it is called, and the state.
struct Eyes {
    root: Root,
    who: Who,
    /// Of the jobs that were told of, whether all is seen.
    jobs: BTreeMap<u64, bool>,
}

impl Eyes {
    fn of(call: &Call) -> Eyes {
        Eyes { root: call.root.clone(), who: call.who.clone(), jobs: BTreeMap::new() }
    }

    /// Leaves of each line what may be seen.
    fn conceal(&mut self, page: &mut NewsPage) {
        if self.who.reach(Need::Read) == Reach::All {
            return;
        }
        for told in &mut page.events {
            let Ok(mut line) = serde_json::from_str::<Map<String, Value>>(&told.line) else {
                told.line = "{}".into(); // it may say anything
                continue;
            };
            let job = line.get("job").and_then(Value::as_u64).unwrap_or_default();
            let seen = match self.jobs.get(&job) {
                Some(seen) => *seen,
                None => {
                    // Of one that is gone, or cannot be read, nobody can tell whose it is.
                    let whose = ownership::of_job(&self.root, &self.who, job);
                    let seen = whose.is_ok_and(|whose| self.who.may(Need::Read, whose));
                    *self.jobs.entry(job).or_insert(seen)
                }
            };
            if !seen {
                line.retain(|name, _| EVERYBODYS.contains(&name.as_str()));
                told.line = Value::Object(line).to_string();
            }
        }
    }
}

/// A page as it is answered. Its lines are JSON already.
fn json(page: &NewsPage) -> Vec<u8> {
    let lines: Vec<&str> = page.events.iter().map(|told| told.line.as_str()).collect();
    format!("{{\"cursor\":\"{}\",\"events\":[{}]}}\n", page.cursor, lines.join(",")).into_bytes()
}

/// Sends pages until the deadline, or until whoever reads has left or may not read any more. The client
/// goes on from the last id; one of an epoch that is over gets 410 for it.
fn stream(
    eyes: &mut Eyes,
    mut page: NewsPage,
    deadline: Option<Instant>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut text = format!("retry: {RETRY}\n\n");
    loop {
        if page.events.is_empty() {
            // A comment, and where to go on, which is no event by itself.
            text.push_str(&format!(":\nid: {}\n\n", page.cursor));
        }
        eyes.conceal(&mut page);
        for told in &page.events {
            text.push_str(&format!("id: {}\ndata: {}\n\n", told.cursor, told.line));
        }
        if send(out, &text).is_err() || !watch::may_wait() {
            return Ok(());
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        let patience = left.map_or(KEEP_ALIVE, |left| left.min(KEEP_ALIVE));
        page = match card_news::read(&eyes.root, Some(&page.cursor), patience) {
            Ok(page) => page,
            // Over HTTP the client asks again, and is told then.
            Err(error) if error.kind == Kind::Gone && deadline.is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        text.clear();
    }
}

fn send(out: &mut dyn Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}
