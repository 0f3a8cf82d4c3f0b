//! What a supervisor has from whoever happened to start it, and other people's jobs are not to have:
//! limits, priority, processors, control groups.
//!
//! What a root's jobs should have is what its poller has, which was started for that (`scripts/up`, a
//! service). A supervisor takes that over as far as it may. If it would still have less, it leaves the
//! jobs to the next sweep of the poller, which starts one that has not. Where no poller is at work
//! nobody else can run them: limits are then raised as far as they go, and the rest is as usual.

use std::fs;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{cgroup, tree};
use crate::board::poller_lock;
use crate::board::root::Root;

/// Limits as `/proc/PID/limits` calls them.
const LIMITS: &[(&str, Resource)] = &[
    ("Max cpu time", Resource::RLIMIT_CPU),
    ("Max file size", Resource::RLIMIT_FSIZE),
    ("Max data size", Resource::RLIMIT_DATA),
    ("Max stack size", Resource::RLIMIT_STACK),
    ("Max core file size", Resource::RLIMIT_CORE),
    ("Max resident set", Resource::RLIMIT_RSS),
    ("Max processes", Resource::RLIMIT_NPROC),
    ("Max open files", Resource::RLIMIT_NOFILE),
    ("Max locked memory", Resource::RLIMIT_MEMLOCK),
    ("Max address space", Resource::RLIMIT_AS),
    ("Max file locks", Resource::RLIMIT_LOCKS),
    ("Max pending signals", Resource::RLIMIT_SIGPENDING),
    ("Max msgqueue size", Resource::RLIMIT_MSGQUEUE),
];

/// The usual soft value of limits by which programs go, and which is lower than the hard one for that
/// reason. A poller raises its own to have descriptors for its nodes.
const USUAL: &[(Resource, u64)] = &[
    (Resource::RLIMIT_STACK, 8 << 20),
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_NOFILE, 1024),
];

/// A hard limit on open files that is as good as any higher one: `scripts/up` gives a server no more.
const MANY_FILES: u64 = 1 << 20;

/// What a process is given of the machine.
#[derive(Debug, Clone, Copy)]
struct Priority {
    nice: i32,
    policy: i32,
}

/// Takes over what this root's poller has. Returns what this process has less of all the same; always
/// `None` where no poller is at work.
pub(super) fn replace(root: &Root) -> Option<String> {
    let poller = poller_lock::holder(root).filter(|pid| stays(*pid));
    // Without one what the machine itself has is the measure, for who may go that far.
    let limits = proc_file(poller.unwrap_or(1), "limits").unwrap_or_default();
    let mut lacks = Vec::new();
    for (name, resource) in LIMITS {
        let wanted = limits.lines().find_map(|line| values(line.strip_prefix(name)?));
        lacks.extend(raise(*resource, wanted, poller.is_some()).then(|| name.to_lowercase()));
    }
    let usual = Priority { nice: 0, policy: libc::SCHED_OTHER };
    let wanted = poller.and_then(priority).unwrap_or(usual);
    lacks.extend(set_priority(wanted).map(String::from));
    use_processors_of(poller);
    let score = poller.and_then(|pid| proc_file(pid, "oom_score_adj"));
    let score = score.as_deref().map_or("0", str::trim);
    if proc_file(own(), "oom_score_adj").is_some_and(|own| own.trim() != score) {
        let _ = fs::write("/proc/self/oom_score_adj", score); // as far as it may
    }
    let poller = poller?;
    let _ = cgroup::join(poller); // else it stays where it was started
    lacks.extend(confined(poller).map(String::from));
    (!lacks.is_empty()).then(|| lacks.join(", "))
}

/// Whether a poller is one that stays. Others make the rounds of a command or of cron, with what their
/// starters have.
fn stays(poller: i32) -> bool {
    let words = fs::read(format!("/proc/{poller}/cmdline")).unwrap_or_default();
    let is_round = |word: &[u8]| word.starts_with(b"--once") || word.starts_with(b"--job");
    !words.split(|byte| *byte == 0).any(is_round)
}

fn own() -> i32 {
    std::process::id() as i32
}

fn proc_file(pid: i32, name: &str) -> Option<String> {
    tree::text(&format!("/proc/{pid}/{name}")).ok()
}

/// The soft and the hard value of a limit.
fn values(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace().map(|field| match field {
        "unlimited" => Some(libc::RLIM_INFINITY),
        number => number.parse().ok(),
    });
    Some((fields.next()??, fields.next()??))
}

/// Raises a limit; whether it is still lower than the poller's.
fn raise(resource: Resource, wanted: Option<(u64, u64)>, by_poller: bool) -> bool {
    let Ok((soft, hard)) = getrlimit(resource) else { return false };
    let (wanted_soft, wanted_hard) = wanted.unwrap_or((soft, hard));
    let highest = hard.max(wanted_hard);
    let new_soft = match USUAL.iter().find(|(usual, _)| *usual == resource) {
        Some((_, usual)) => soft.max((*usual).min(highest)),
        None if by_poller => soft.max(wanted_soft),
        None => highest,
    };
    if (new_soft, highest) == (soft, hard) || setrlimit(resource, new_soft, highest).is_ok() {
        return false;
    }
    let _ = setrlimit(resource, new_soft.min(hard), hard); // needs no rights
    // A server may have no more than a number of descriptors that nothing comes near.
    by_poller && !(resource == Resource::RLIMIT_NOFILE && hard >= MANY_FILES)
}

/// Niceness and policy of a process, by `/proc/PID/stat`.
fn priority(pid: i32) -> Option<Priority> {
    let stat = proc_file(pid, "stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Priority { nice: fields.get(16)?.parse().ok()?, policy: fields.get(38)?.parse().ok()? })
}

/// Returns what this process lacks of it.
fn set_priority(wanted: Priority) -> Option<&'static str> {
    // SAFETY: asks and sets numbers of this very process; the structure is valid for a policy
    // without real-time priority, which is what zeros say, and lives through the call.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        let keeps = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
        let policy = if keeps.contains(&wanted.policy) { wanted.policy } else { libc::SCHED_OTHER };
        if libc::sched_getscheduler(0) != policy
            && libc::sched_setscheduler(0, policy, &raw const none) != 0
        {
            return Some("scheduling policy");
        }
        // What was set by hand; otherwise it follows from the niceness.
        let own_process = 1;
        libc::syscall(libc::SYS_ioprio_set, own_process, 0, 0);
    }
    let now = priority(own())?.nice;
    // SAFETY: sets a number of this very process.
    let set =
        now == wanted.nice || unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, wanted.nice) } == 0;
    (!set && now > wanted.nice).then_some("niceness")
}

/// Lets this process run wherever that one may; without one, on all processors.
fn use_processors_of(pid: Option<i32>) {
    // SAFETY: a set is plain bits, which zeros make empty; both calls are given its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        let asked = pid.is_some_and(|pid| libc::sched_getaffinity(pid, size, &raw mut set) == 0);
        if !asked {
            std::ptr::write_bytes(&raw mut set, 0xff, 1);
        }
        libc::sched_setaffinity(0, size, &raw const set);
    }
}

/// What this process may not do that the poller may, and can never be undone.
fn confined(poller: i32) -> Option<&'static str> {
    let (ours, its) = (proc_file(own(), "status")?, proc_file(poller, "status")?);
    let field = |status: &str, name: &str, base: u32| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        u64::from_str_radix(line?.trim(), base).ok()
    };
    for name in ["NoNewPrivs", "Seccomp"] {
        if field(&ours, name, 10) > field(&its, name, 10) {
            return Some("the right to gain privileges, or system calls");
        }
    }
    let (ours, its) = (field(&ours, "CapBnd", 16)?, field(&its, "CapBnd", 16)?);
    (its & !ours != 0).then_some("capabilities")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_proc_shows_them() {
        let text = fs::read_to_string("/proc/self/limits").unwrap();
        for (name, resource) in LIMITS {
            let found = text.lines().find_map(|line| values(line.strip_prefix(name)?));
            assert_eq!(found.unwrap(), getrlimit(*resource).unwrap(), "{name}");
        }
    }

    #[test]
    fn priority_as_proc_shows_it() {
        let own = priority(own()).unwrap();
        // SAFETY: asks for a number of this very process.
        assert_eq!(own.policy, unsafe { libc::sched_getscheduler(0) });
        // SAFETY: likewise.
        assert_eq!(own.nice, unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) });
    }
}
