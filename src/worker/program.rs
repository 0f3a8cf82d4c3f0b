//! The worker's options, its threads, and its end.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, ArgMatches, Command};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::gethostname;

use super::conversation::{self, Conversation, Who};
use super::heads::Head;
use super::heard::Heard;
use super::orders::Orders;
use super::outbox::Outbox;
use super::{conf, joining, reporter, tending};
use crate::board::conf as settings;
use crate::board::root::Root;
use crate::board::worker_state::WorkerState;
use crate::cgi::presented::Access;
use crate::cgi::usage;
use crate::cgi::words::{flag, with};
use crate::error::{At, Error, Result};
use crate::model::ids;
use crate::wire::worker::News;
use crate::{descriptors, edge};

/// Options with a value, which a file may give, too.
const KNOWN: [&str; 9] =
    ["head", "token-file", "name", "label", "cores", "memory", "ca", "cert", "key"];

/// At its end it waits no longer for what it is at.
const END_WITHIN: Duration = Duration::from_secs(4);

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    edge::outlast_limits();
    let words = match usage::read(&mut options(), env::args_os().skip(1)) {
        Ok(words) => words,
        Err(code) => return code,
    };
    descriptors::raise();
    match run(&words) {
        Ok(()) => 0,
        Err(error) => edge::complain("worker", &error),
    }
}

fn options() -> Command {
    usage::command("worker")
        .about("worker: runs the jobs of a head that cannot reach this machine: it asks for them")
        .override_usage("worker --head URL --token-file FILE [OPTION...]")
        .after_help(
            "The root is CORKBOARD_ROOT, else the directory above the program's own; one\nworker of a root is at work. SIGTERM ends it; jobs go on.\nExit codes: 0 done, 1 refused or failed, 2 usage, 75 try again later.",
        )
        .arg(
            with("head", "URL", "where the head is; again for another address of it")
                .action(ArgAction::Append),
        )
        .arg(with("token-file", "FILE", "has a token of the role join, or of a worker"))
        .arg(with("name", "NAME", "what the node is called; this machine's name if absent"))
        .arg(
            with("label", "NAME=VALUE", "what this machine is like; may be repeated")
                .action(ArgAction::Append),
        )
        .arg(with("cores", "N", "cores given to jobs, into the root's settings"))
        .arg(with("memory", "SIZE", "memory given to jobs, likewise"))
        .arg(with("ca", "FILE", "certificates by one of which the head is believed"))
        .arg(with("cert", "FILE", "the certificate that is shown to it"))
        .arg(with("key", "FILE", "the key of that certificate"))
        .arg(with("file", "FILE", "options, as name = value lines").short('f'))
        .arg(flag("quiet", "say nothing but what is wrong").short('q'))
}

/// What was given, by words or by a file; words count.
struct Given(Vec<(String, String)>);

impl Given {
    fn read(words: &ArgMatches) -> Result<Given> {
        let mut given = Vec::new();
        for name in KNOWN {
            for value in words.get_many::<String>(name).into_iter().flatten() {
                given.push((name.to_string(), value.clone()));
            }
        }
        if let Some(file) = words.get_one::<String>("file") {
            let said = conf::read(Path::new(file), &KNOWN)?.into_iter();
            let more: Vec<(String, String)> =
                said.filter(|(name, _)| given.iter().all(|(other, _)| other != name)).collect();
            given.extend(more);
        }
        Ok(Given(given))
    }

    fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(other, _)| other == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    fn one(&self, name: &str) -> Option<String> {
        self.all(name).pop()
    }

    /// Those of them that are settings of the root: supervisors read them there.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let labels = self.all("label");
        let labels = (!labels.is_empty()).then(|| ("labels", labels.join(", ")));
        let plain = ["cores", "memory"].map(|name| self.one(name).map(|value| (name, value)));
        labels.into_iter().chain(plain.into_iter().flatten()).collect()
    }
}

fn run(words: &ArgMatches) -> anyhow::Result<()> {
    let given = Given::read(words)?;
    let quiet = words.get_flag("quiet");
    let urls = given.all("head");
    let urls: Vec<String> = urls.iter().map(|url| url.trim_end_matches('/').to_string()).collect();
    let missing = |what: &str| Error::bad(format!("{what} is missing; `worker --help` says more"));
    if urls.is_empty() {
        return Err(missing("--head").into());
    }
    let token_file = PathBuf::from(given.one("token-file").ok_or_else(|| missing("--token-file"))?);
    let root = Root::find().context("opening the root")?;
    let own = WorkerState::take(&root)?;
    let put = given.settings();
    if !put.is_empty() {
        settings::set(&root, &put).context("changing the root's settings")?;
    }
    let root = Root::open(root.dir()).context("opening the root")?;
    let token = fs::read_to_string(&token_file).at(&token_file)?.trim().to_string();
    let hostname = hostname();
    let name = given.one("name").unwrap_or_else(|| hostname.clone());
    if !ids::is_valid(&name) {
        return Err(Error::bad(format!("{name:?} can be no node's name: give --name")).into());
    }
    let access =
        Access { token: None, ca: given.one("ca"), cert: given.one("cert"), key: given.one("key") };
    let head = Head::new(urls, access, name);
    // Before any thread is started: all of them do as this one.
    let signals = block_signals()?;
    let who = Who::new(own.id()?)?;
    let outbox = Arc::new(Outbox::default());
    end_by(signals, &head, &outbox, &who)?;
    joining::join(&head, &own, &token, &hostname).context("joining the head")?;
    work(root, own, head, (outbox, who), quiet)
}

/// Does all that a worker does; comes back only if it cannot.
fn work(
    root: Root,
    own: WorkerState,
    head: Arc<Head>,
    (outbox, who): (Arc<Outbox>, Who),
    quiet: bool,
) -> anyhow::Result<()> {
    let (orders, inbox) = channel();
    let heard = Arc::new(Heard::default());
    let carries_out = Orders {
        root: root.clone(),
        head: head.clone(),
        heard: heard.clone(),
        outbox: outbox.clone(),
    };
    spawn("orders", move || {
        if let Err(error) = carries_out.run(inbox) {
            eprintln!("worker: {}", error.message);
        }
    })?;
    let (at, out) = (root.clone(), outbox.clone());
    spawn("feed", move || reporter::run(&at, &out))?;
    let (at, out) = (root.clone(), outbox.clone());
    spawn("tending", move || tending::run(&at, &out))?;
    let (to, out, by) = (head.clone(), outbox.clone(), who.clone());
    spawn("reports", move || conversation::report(&to, &out, &by))?;
    let (cluster, buffered_at) = (None, None);
    Conversation { head, outbox, who, heard, orders, quiet, root, cluster, buffered_at }.run();
    drop(own); // until here no other one is at work
    Err(Error::bad("orders cannot be carried out any more").into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(|_| ()).at("threads")
}

fn block_signals() -> Result<SigSet> {
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    set.thread_block().at("signals")?;
    Ok(set)
}

/// By the first of these signals it ends: what it is at is finished and told, with that it takes leave. By
/// the second it ends at once. What it has started goes on.
fn end_by(signals: SigSet, head: &Arc<Head>, outbox: &Arc<Outbox>, who: &Who) -> Result<()> {
    let (head, outbox, who) = (head.clone(), outbox.clone(), who.clone());
    spawn("signals", move || {
        while let Err(nix::Error::EINTR) = signals.wait() {}
        let _ = spawn("second signal", move || {
            while let Err(nix::Error::EINTR) = signals.wait() {}
            std::process::exit(1);
        });
        outbox.end();
        take_leave(&head, &outbox, &who);
        std::process::exit(0);
    })
}

fn take_leave(head: &Head, outbox: &Outbox, who: &Who) {
    outbox.wait_for_answers(END_WITHIN);
    let Some(parcel) = outbox.for_claim(END_WITHIN / 4) else { return };
    let news = News { leaving: true, ..who.signed(&parcel.0) };
    if let Ok(remote) = head.open() {
        let _ = head.report(&remote.patient(END_WITHIN / 4), &news); // else it is missed in time
    }
    std::mem::forget(parcel); // nobody tells anything after it
}

/// This machine's name, without its domain.
fn hostname() -> String {
    let name = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_string()
}
