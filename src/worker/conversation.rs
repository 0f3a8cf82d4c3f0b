//! Claims, one after the other, for as long as the worker is at work; and what is told between them.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::heads::Head;
use super::heard::Heard;
use super::joining::is_absence;
use super::orders::Got;
use super::outbox::{Outbox, Parcel};
use super::overdue;
use crate::board::files::random_hex;
use crate::board::head_contact;
use crate::board::root::{Root, boot_id};
use crate::board::workers::steady_ms;
use crate::cgi::remote::Remote;
use crate::error::{Error, Kind, Result};
use crate::wire::worker::{Claim, News, Orders};

/// The first pause after a failure; each is twice as long as the one before...
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// ...up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After so long in which everything went well, a failure is the first again.
const GOOD: Duration = Duration::from_secs(5);

/// The same trouble is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How long a claim asks to be kept waiting; the head cuts it.
const WAIT: Duration = Duration::from_secs(50);

/// Orders just got are answered with the next claim, where that takes no longer.
const ANSWERED_SOON: Duration = Duration::from_millis(500);

/// An answer begins within this time, unless something in between keeps it until it is whole.
const AT_ONCE: Duration = Duration::from_secs(1);

/// For so long that is taken to be so.
const BUFFERED_FOR: Duration = Duration::from_secs(600);

/// Who tells.
#[derive(Clone)]
pub(super) struct Who {
    root: String,
    session: String,
    boot: String,
}

impl Who {
    /// A process of this root.
    pub(super) fn new(root: String) -> Result<Who> {
        Ok(Who { root, session: random_hex::<8>()?, boot: boot_id()? })
    }

    /// News of this process.
    pub(super) fn signed(&self, news: &News) -> News {
        let Who { root, session, boot } = self.clone();
        News { root, session, boot, ..news.clone() }
    }
}

/// See the module.
pub(super) struct Conversation {
    pub head: Arc<Head>,
    pub outbox: Arc<Outbox>,
    pub who: Who,
    pub heard: Arc<Heard>,
    pub orders: Sender<Got>,
    pub quiet: bool,
    pub root: Root,
    /// Which head it is.
    pub cluster: Option<String>,
    /// When an answer did not begin at once.
    pub buffered_at: Option<Instant>,
}

impl Conversation {
    /// Never ends, unless nobody takes the orders.
    pub(super) fn run(mut self) {
        let (mut pause, mut began, mut told) = (FIRST_PAUSE, None::<Instant>, None::<Trouble>);
        let mut failed = 0;
        loop {
            match self.claim() {
                Ok(orders) => {
                    if told.take().is_some() || began.is_none() && !self.quiet {
                        eprintln!("worker: at work for {}", self.head.url());
                    }
                    let since = *began.get_or_insert_with(Instant::now);
                    failed = 0;
                    pause = match since.elapsed() >= GOOD {
                        true => FIRST_PAUSE,
                        false => FIRST_PAUSE.max(pause / 2),
                    };
                    let some = !orders.is_empty();
                    for got in orders {
                        if self.outbox.take_on(&got.order.order) && self.orders.send(got).is_err() {
                            return; // it is at its end
                        }
                    }
                    if some {
                        self.outbox.wait_for_answers(ANSWERED_SOON);
                    }
                }
                Err(error) => {
                    began = None;
                    Trouble::tell(&mut told, &error);
                    failed += 1;
                    self.head.try_next();
                    // The other addresses at once.
                    if failed % self.head.count() == 0 {
                        if !is_absence(&error) {
                            pause = LONGEST_PAUSE; // somebody has to do something about it
                        }
                        thread::sleep(jittered(pause));
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        }
    }

    /// One claim.
    fn claim(&mut self) -> Result<Vec<Got>> {
        overdue::give_back(&self.root);
        let silence = self.head.silence();
        let parcel = self.outbox.for_claim(silence * 2);
        let parcel = parcel.ok_or_else(|| {
            Error::new(Kind::GatewayTimeout, format!("{} takes no news", self.head.url()))
        })?;
        let parcel = match self.is_buffered() {
            true => self.told_before(parcel)?,
            false => parcel,
        };
        let (begun, is_news) = (Instant::now(), parcel.is_news());
        if !is_news {
            self.outbox.note_held(true); // what happens meanwhile need not wait for the answer to begin
        }
        let claim = Claim {
            news: self.who.signed(&parcel.0),
            wait_ms: WAIT.as_millis() as u64,
            have: self.outbox.in_hand(),
            version: env!("CARGO_PKG_VERSION").to_string(),
        };
        let sent_at = steady_ms()?;
        let asked = self.head.open().and_then(|remote| self.head.claim(&remote, &claim));
        let lines = match asked {
            Ok(lines) => lines,
            Err(error) => {
                self.outbox.note_held(false);
                self.outbox.returned(parcel);
                return Err(error);
            }
        };
        self.outbox.taken(parcel);
        self.outbox.note_held(true);
        if is_news && begun.elapsed() >= AT_ONCE {
            self.buffered_at = Some(Instant::now());
        }
        let orders = lines.into_iter().find(|line| !line.as_ref().is_ok_and(String::is_empty));
        self.outbox.note_held(false);
        let broken = || Error::new(Kind::GatewayTimeout, format!("{} broke off", self.head.url()));
        let orders = orders.ok_or_else(broken)??;
        self.read(&orders, sent_at)
    }

    /// Whether something in between passes on an answer only when it is whole: news that goes with a claim is
    /// known to be taken when that is over, and what happens meanwhile waits for it.
    fn is_buffered(&self) -> bool {
        self.buffered_at.is_some_and(|at| at.elapsed() < BUFFERED_FOR)
    }

    /// Tells news by itself; what goes with the claim then.
    fn told_before(&self, parcel: Parcel) -> Result<Parcel> {
        if !parcel.is_news() {
            return Ok(parcel);
        }
        let told =
            self.head.open().and_then(|open| self.head.report(&open, &self.who.signed(&parcel.0)));
        match told {
            Ok(()) => {
                self.outbox.taken(parcel);
                Ok(Parcel(News::default()))
            }
            Err(error) => {
                self.outbox.returned(parcel);
                Err(error)
            }
        }
    }

    fn read(&mut self, line: &str, sent_at: u64) -> Result<Vec<Got>> {
        let nonsense = |why: String| {
            Error::new(Kind::BadGateway, format!("{} answers nonsense: {why}", self.head.url()))
        };
        let said: Orders = serde_json::from_str(line).map_err(|e| nonsense(e.to_string()))?;
        let Orders { orders, superseded, cluster, ping_ms: _, silence_ms, give_up_ms } = said;
        if silence_ms > 0 {
            self.head.note_silence(Duration::from_millis(silence_ms));
        }
        let cluster = cluster.ok_or_else(|| nonsense("it does not say which head it is".into()))?;
        let known = self.cluster.get_or_insert_with(|| cluster.clone());
        if *known != cluster {
            let why = format!("{} is another head: {cluster}, not {known}", self.head.url());
            return Err(Error::new(Kind::Conflict, why));
        }
        let give_up = Duration::from_millis(give_up_ms);
        let spell = self.heard.note(sent_at, give_up)?;
        head_contact::note(&self.root, &cluster, give_up, sent_at)?;
        if superseded {
            let why = "another process asks for this node's orders";
            return Err(Error::new(Kind::GatewayTimeout, why));
        }
        Ok(orders.into_iter().map(|order| Got { order, spell }).collect())
    }
}

/// What is told of failures: the same once a minute.
struct Trouble {
    why: String,
    at: Instant,
}

impl Trouble {
    fn tell(told: &mut Option<Trouble>, error: &Error) {
        let why = error.message.clone();
        if told.as_ref().is_some_and(|told| told.why == why && told.at.elapsed() < TELL_EVERY) {
            return;
        }
        eprintln!("worker: {why}; trying again");
        *told = Some(Trouble { why, at: Instant::now() });
    }
}

/// From half of it to one and a half: those that were cut off together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [128u8];
    let _ = getrandom::fill(&mut byte); // without any it is as long as that
    pause / 2 + pause * u32::from(byte[0]) / 255
}

/// Tells by itself what happens while a claim is held; ends with the worker.
pub(super) fn report(head: &Head, outbox: &Outbox, who: &Who) {
    let mut remote: Option<Remote> = None;
    let mut pause = FIRST_PAUSE;
    while let Some(parcel) = outbox.for_report() {
        let told = match remote.take().map_or_else(|| head.open(), Ok) {
            Ok(open) => head.report(&open, &who.signed(&parcel.0)).map(|()| open),
            Err(error) => Err(error),
        };
        match told {
            Ok(open) => {
                outbox.taken(parcel);
                (remote, pause) = (Some(open), FIRST_PAUSE);
            }
            Err(_) => {
                outbox.returned(parcel); // the claim tells what is wrong
                thread::sleep(jittered(pause));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
