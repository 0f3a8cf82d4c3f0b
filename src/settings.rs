//! `corkboard.conf`: `name = value` lines, `#` begins a comment.
//!
//! A missing file, and a missing line, mean the default. An unknown name, a value that does not
//! parse and a name given twice are errors that name the line, so that a typing error is never
//! silently a default.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::error::{At, Error, Kind, Result};
use crate::names::is_name;
use crate::strategy::Strategy;

mod values;

use values::{countables, is_url, labels};
pub use values::{parse_amount, parse_size};

/// Each is looked at with every placement.
const MOST_RESERVATIONS: usize = 64;

/// Every setting, with its value for this root.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest JSON of a request in bytes.
    pub max_body: u64,
    /// Most bytes of the files that come with a job, in all.
    pub max_upload: u64,
    /// Largest array of jobs in one request.
    pub max_jobs_per_request: usize,
    /// Most requests of users at a time that wait, follow or send much.
    pub max_waits: u32,
    /// Most of these of one user.
    pub max_waits_per_user: u32,
    /// Most waiting jobs of one user; `None` is as many as they like.
    pub max_waiting_per_user: Option<usize>,
    /// Most bytes of the waiting jobs of one user, their requests and files; `None` as above.
    pub max_waiting_bytes_per_user: Option<u64>,
    /// `Host` headers admitted beside loopback ones; `*` admits any.
    pub allowed_hosts: Vec<String>,
    /// Whether the trees may be read by the group.
    pub group_readable: bool,
    /// Whether state may lie on a network file system.
    pub allow_network_fs: bool,
    /// Which of the nodes that have room a job is given that does not say.
    pub placement: Strategy,
    /// The partition into which jobs go that name none; `None`: into none.
    pub partition: Option<String>,
    /// Of what users have had, by which they take turns, half is forgotten in this time; zero: nothing is.
    pub share_half_life: Duration,
    /// Most jobs of one user that nodes have at a time; `None` is as many as there is room for.
    pub max_jobs_per_user: Option<u64>,
    /// Most cores of these in all.
    pub max_cores_per_user: Option<u64>,
    /// For so many waiting jobs at most a node is reserved: the first that fit nowhere now.
    pub reservations: usize,
    /// Period of the poller's full scan.
    pub scan_every: Duration,
    /// Until a node that does not accept a connection counts as unreachable.
    pub connect_timeout: Duration,
    /// Until a node that says nothing counts as unreachable.
    pub request_timeout: Duration,
    /// A worker that has no orders asks again after so long.
    pub ping_timer: Duration,
    /// A worker that has not asked for so long is disconnected.
    pub silence_timeout: Duration,
    /// A worker that cannot reach this head for so long ends what it has of it; told no longer than 4/5 of
    /// `lost_after`.
    pub give_up_after: Duration,
    /// A job whose order a worker has not fetched for so long is taken back.
    pub dead_timeout: Duration,
    /// Whether it ends then, and does not wait for another node.
    pub dead_timeout_ends: bool,
    /// A job whose node cannot be reached for so long ends as lost.
    pub lost_after: Duration,
    /// A job that its node does not know ends as lost after so long.
    pub unknown_after: Duration,
    /// Whether attempts of a job are killed whose card cannot be read.
    pub kill_unreadable: bool,
    /// Base URL under which jobs reach `/scheduler/…`.
    pub advertise: Option<String>,
    /// Cores given to jobs; `None` is all of the machine's.
    pub cores: Option<u64>,
    /// Memory given to jobs in bytes; `None` is all of the machine's.
    pub memory: Option<u64>,
    /// Which GPUs jobs are given are those of these numbers, from 0 on; `None` is all that the machine has.
    pub gpus: Option<u32>,
    /// How much of what else can be counted is given to jobs.
    pub countables: BTreeMap<String, u64>,
    /// What this node is like, beside what it says by itself.
    pub labels: BTreeMap<String, String>,
    /// Whether each job has processor cores of its own.
    pub pin_cores: bool,
    /// Most processes, and threads, of one job; `None` is as many as it likes.
    pub max_processes: Option<u64>,
    /// Whether a job's memory is a limit on the addresses of each of its processes where no control group
    /// can limit it.
    pub limit_address_space: bool,
    /// Output kept per job and stream, in bytes.
    pub max_log: u64,
    /// Lines of each output that are told of a process once it has ended.
    pub batch_size: u64,
    /// Most bytes of output in an answer about a process.
    pub max_answer: u64,
    /// Between SIGTERM and SIGKILL when a job does not say.
    pub default_grace: Duration,
    /// What was not started of a range of an array's tasks after so long is given back to the head.
    pub range_time: Duration,
    /// How long a supervisor that has nothing to do stays for the next job. Zero: not at all.
    pub linger: Duration,
    /// Age at which finished cards are removed.
    pub keep_done: Duration,
    /// Number of finished cards kept.
    pub keep_done_count: usize,
    /// Age at which unreadable cards are removed.
    pub keep_bad: Duration,
    /// Age at which a node's finished jobs are removed.
    pub keep_jobs: Duration,
    /// Number of finished jobs kept on a node.
    pub keep_jobs_count: usize,
    /// Age at which finished jobs are removed whose result no head has fetched.
    pub keep_unacknowledged: Duration,
    /// Size of a file of the audit at which a new one is begun, in bytes.
    pub max_audit: u64,
    /// Size at which a change feed, the head's or a node's, is begun anew, in bytes.
    pub max_events: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        const MINUTE: u64 = 60;
        const DAY: u64 = 86_400;
        Settings {
            max_body: 16 << 20,
            max_upload: 2000 << 20,
            max_jobs_per_request: 20_000,
            max_waits: 1000,
            max_waits_per_user: 250,
            max_waiting_per_user: None,
            max_waiting_bytes_per_user: None,
            allowed_hosts: Vec::new(),
            group_readable: true,
            allow_network_fs: false,
            placement: Strategy::Spread,
            partition: None,
            share_half_life: Duration::from_secs(7 * DAY),
            max_jobs_per_user: None,
            max_cores_per_user: None,
            reservations: 4,
            scan_every: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(20),
            ping_timer: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(4 * MINUTE),
            dead_timeout: Duration::from_secs(MINUTE),
            dead_timeout_ends: false,
            lost_after: Duration::from_secs(5 * MINUTE),
            unknown_after: Duration::from_secs(MINUTE),
            kill_unreadable: true,
            advertise: None,
            cores: None,
            memory: None,
            gpus: None,
            countables: BTreeMap::new(),
            labels: BTreeMap::new(),
            pin_cores: true,
            max_processes: None,
            limit_address_space: false,
            max_log: 64 << 20,
            batch_size: 20,
            max_answer: 1 << 20,
            default_grace: Duration::from_secs(10),
            range_time: Duration::from_secs(MINUTE),
            linger: Duration::from_secs(2),
            keep_done: Duration::from_secs(30 * DAY),
            keep_done_count: 1_000_000,
            keep_bad: Duration::from_secs(90 * DAY),
            keep_jobs: Duration::from_secs(7 * DAY),
            keep_jobs_count: 100_000,
            keep_unacknowledged: Duration::from_secs(30 * DAY),
            max_audit: 16 << 20,
            max_events: 16 << 20,
        }
    }
}

impl Settings {
    /// Reads the file; all defaults where there is none.
    pub fn read(path: &Path) -> Result<Settings> {
        match fs::read_to_string(path) {
            Ok(text) => Settings::parse(&text).map_err(|e| {
                Error::new(Kind::Misconfigured, format!("{}, {}", path.display(), e.message))
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(e) => Err(e).at(path),
        }
    }

    /// The settings of a file with this text.
    pub fn parse(text: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        let mut seen: Vec<&str> = Vec::new();
        for line in lines(text) {
            let (number, name, value) = line?;
            if seen.contains(&name) {
                return Err(Error::bad(format!("line {number}: {name} is set twice")));
            }
            seen.push(name);
            settings
                .set(name, value)
                .map_err(|e| Error::bad(format!("line {number}: {}", e.message)))?;
        }
        if settings.silence_timeout < settings.ping_timer * 2 {
            let why = "silence_timeout must be at least twice ping_timer: one request may be late";
            return Err(Error::bad(why));
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |what: &str| Error::bad(format!("{name}: \"{value}\" is not {what}"));
        let duration =
            || clock::parse_duration(value).ok_or_else(|| wrong("a duration such as 30s or 5m"));
        // Of a wait that may not be none.
        let wait = || match duration()? {
            Duration::ZERO => Err(wrong("more than 0")),
            duration => Ok(duration),
        };
        let size = || parse_size(value).ok_or_else(|| wrong("a size such as 64 KiB"));
        let count = || value.parse::<usize>().map_err(|_| wrong("a whole number"));
        let switch = || match value {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(wrong("true or false")),
        };
        let places = || value.parse::<u32>().map_err(|_| wrong("a whole number"));
        let most = || match value {
            "none" => Ok(None),
            _ => value.parse::<u64>().map(Some).map_err(|_| wrong("a whole number or none")),
        };
        let (auto, none) = (value == "auto", value == "none");
        match name {
            "max_body" => self.max_body = size()?,
            "max_upload" => self.max_upload = size()?,
            "max_jobs_per_request" => self.max_jobs_per_request = count()?,
            "max_waits" => self.max_waits = places()?,
            "max_waits_per_user" => self.max_waits_per_user = places()?,
            "max_waiting_per_user" if none => self.max_waiting_per_user = None,
            "max_waiting_per_user" => self.max_waiting_per_user = Some(count()?),
            "max_waiting_bytes_per_user" if none => self.max_waiting_bytes_per_user = None,
            "max_waiting_bytes_per_user" => self.max_waiting_bytes_per_user = Some(size()?),
            // None of these stands in a host: such an entry would admit nobody, and nobody would know.
            "allowed_hosts" => {
                let hosts = value.split(',').map(|host| host.trim().to_ascii_lowercase());
                let hosts: Vec<String> = hosts.filter(|host| !host.is_empty()).collect();
                if hosts.iter().any(|host| host.contains(['/', '@', ' ', ';'])) {
                    return Err(wrong("a list of hosts such as head.example, 10.0.0.1:8080"));
                }
                self.allowed_hosts = hosts;
            }
            "group_readable" => self.group_readable = switch()?,
            "allow_network_fs" => self.allow_network_fs = switch()?,
            "placement" => {
                self.placement = Strategy::of(value)
                    .ok_or_else(|| wrong("spread, pack, round-robin or random"))?;
            }
            "partition" if none => self.partition = None,
            "partition" if is_name(value) => self.partition = Some(value.to_string()),
            "partition" => return Err(wrong("the name of a partition or none")),
            "share_half_life" => self.share_half_life = duration()?,
            "max_jobs_per_user" => self.max_jobs_per_user = most()?,
            "max_cores_per_user" => self.max_cores_per_user = most()?,
            "reservations" => {
                let few = count().ok().filter(|count| *count <= MOST_RESERVATIONS);
                self.reservations = few.ok_or_else(|| wrong("a whole number, at most 64"))?;
            }
            "scan_every" => self.scan_every = wait()?,
            "connect_timeout" => self.connect_timeout = wait()?,
            "request_timeout" => self.request_timeout = wait()?,
            "ping_timer" => self.ping_timer = wait()?,
            "silence_timeout" => self.silence_timeout = wait()?,
            "give_up_after" => self.give_up_after = wait()?,
            "dead_timeout" => self.dead_timeout = wait()?,
            "dead_timeout_ends" => self.dead_timeout_ends = switch()?,
            "lost_after" => self.lost_after = wait()?,
            "unknown_after" => self.unknown_after = wait()?,
            "kill_unreadable" => self.kill_unreadable = switch()?,
            "advertise" if value.is_empty() => self.advertise = None,
            "advertise" if is_url(value) => {
                self.advertise = Some(value.trim_end_matches('/').to_string());
            }
            "advertise" => return Err(wrong("a URL such as http://10.0.0.1:8080/cgi-bin")),
            "cores" if auto => self.cores = None,
            "cores" => {
                self.cores =
                    Some(value.parse().map_err(|_| wrong("a whole number of cores or auto"))?);
            }
            "memory" if auto => self.memory = None,
            "memory" => self.memory = Some(size()?),
            "gpus" if auto => self.gpus = None,
            "gpus" => {
                let number = value.parse().ok().filter(|number| *number <= MOST_GPUS);
                self.gpus = Some(number.ok_or_else(|| wrong("a whole number of GPUs or auto"))?);
            }
            "countables" => self.countables = countables(value)?,
            "labels" => self.labels = labels(value)?,
            "pin_cores" => self.pin_cores = switch()?,
            "max_processes" if none => self.max_processes = None,
            "max_processes" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                let number = number.ok_or_else(|| wrong("a whole number from 1 on, or none"))?;
                self.max_processes = Some(number);
            }
            "limit_address_space" => self.limit_address_space = switch()?,
            "max_log" => self.max_log = size()?,
            "batch_size" => {
                self.batch_size = value.parse().map_err(|_| wrong("a whole number of lines"))?;
            }
            "max_answer" => match size()? {
                // No character is longer, and something has to be told.
                0..8 => return Err(wrong("at least 8")),
                size => self.max_answer = size,
            },
            "default_grace" => self.default_grace = duration()?,
            "range_time" => self.range_time = duration()?,
            "linger" => self.linger = duration()?,
            "keep_done" => self.keep_done = duration()?,
            "keep_done_count" => self.keep_done_count = count()?,
            "keep_bad" => self.keep_bad = duration()?,
            "keep_jobs" => self.keep_jobs = duration()?,
            "keep_jobs_count" => self.keep_jobs_count = count()?,
            "keep_unacknowledged" => self.keep_unacknowledged = duration()?,
            "max_audit" => self.max_audit = size()?,
            "max_events" => self.max_events = size()?,
            _ => return Err(Error::bad(format!("there is no setting \"{name}\""))),
        }
        Ok(())
    }
}

/// The `name = value` lines of a text, with their numbers.
pub fn lines(text: &str) -> impl Iterator<Item = Result<(usize, &str, &str)>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.enumerate().filter(|(_, line)| !line.is_empty()).map(|(index, line)| {
        let number = index + 1;
        let wrong = || Error::bad(format!("line {number}: not `name = value`: {line}"));
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        Ok((number, name.trim(), value.trim()))
    })
}

/// Most GPUs of one machine.
const MOST_GPUS: u32 = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_lists_every_setting_with_its_default() {
        let shipped = include_str!("../corkboard.conf");
        let uncommented: String = shipped
            .lines()
            .filter(|line| line.starts_with('#') && line.contains(" = ") || line.ends_with('='))
            .map(|line| format!("{}\n", &line[1..]))
            .collect();
        let read = Settings::parse(&uncommented).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", Settings::default()));
        let fields = format!("{:#?}", Settings::default()).matches(": ").count();
        assert!(uncommented.lines().filter(|l| l.contains('=')).count() >= fields);
    }

    #[test]
    fn a_worker_has_time_for_one_more_request() {
        let read = |text: &str| Settings::parse(text).map_err(|error| error.message);
        assert!(read("ping_timer = 3s\nsilence_timeout = 6s").is_ok());
        let wrong = read("ping_timer = 6s").unwrap_err();
        assert!(wrong.contains("silence_timeout must be at least twice ping_timer"), "{wrong}");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let message = |text: &str| Settings::parse(text).unwrap_err().message;
        assert_eq!(message("\nlog = 3"), "line 2: there is no setting \"log\"");
        assert!(message("scan_every = often").starts_with("line 1: scan_every: \"often\" is not"));
        for name in ["scan_every", "connect_timeout", "request_timeout", "lost_after"] {
            let said = message(&format!("\n{name} = 0s"));
            assert_eq!(said, format!("line 2: {name}: \"0s\" is not more than 0"));
        }
        for wrong in
            ["head.example", "http://", "https:///x", "http://h:99999/cgi-bin", "http://:80"]
        {
            let said = message(&format!("advertise = {wrong}"));
            assert!(said.contains("is not a URL such as"), "{wrong}: {said}");
        }
        for right in ["http://h", "https://h:443/cgi-bin", "http://[::1]", "http://[::1]:8080/x"] {
            assert!(Settings::parse(&format!("advertise = {right}")).is_ok(), "{right}");
        }
        for wrong in ["http://head.example", "head.example, a b", "u@head.example"] {
            let said = message(&format!("allowed_hosts = {wrong}"));
            assert!(said.contains("is not a list of hosts such as"), "{said}");
        }
        let hosts = Settings::parse("allowed_hosts = Head.example:8080, ,[::1], *").unwrap();
        assert_eq!(hosts.allowed_hosts, ["head.example:8080", "[::1]", "*"]);
        assert_eq!(Settings::parse("linger = 0").unwrap().linger, Duration::ZERO);
        for (wrong, said) in [
            ("labels = ssd", "line 1: \"ssd\" is not name=value"),
            ("labels = a b=c", "cannot be a label"),
            ("labels = disk=ssd, disk=hdd", "disk is listed twice"),
            ("countables = licenses", "is not name=value"),
            ("countables = licenses=-1", "\"-1\" is not a whole number"),
            ("countables = licenses=1.5", "is not a whole number"),
            ("countables = Licenses=1", "is no resource"),
            ("countables = gpus=1", "gpus has a setting of its own"),
            ("licenses = 4", "line 1: there is no setting \"licenses\""),
            ("gpus = many", "a whole number of GPUs or auto"),
            ("max_processes = 0", "a whole number from 1 on"),
        ] {
            assert!(message(wrong).contains(said), "{wrong}: {}", message(wrong));
        }
        let read =
            Settings::parse("labels = disk=ssd, zone = b\ncountables=licenses=4,scratch=2 KiB");
        let read = read.unwrap();
        assert_eq!(format!("{:?}", read.labels), r#"{"disk": "ssd", "zone": "b"}"#);
        assert_eq!(format!("{:?}", read.countables), r#"{"licenses": 4, "scratch": 2048}"#);
        assert_eq!(message("cores = 1\ncores = 2"), "line 2: cores is set twice");
        assert_eq!(message("cores"), "line 1: not `name = value`: cores");
    }
}
