//! What a program finds when it starts: environment and standard input.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::supervise::Claimed;
use crate::error::{At, Result};
use crate::user::User;

/// `PATH` of a job that does not set its own.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// The job's environment, and its `PATH`.
pub(super) fn environment(user: &User, job: &Claimed) -> (Vec<String>, String) {
    let asked = &job.spec.environment;
    let base = [
        ("PATH", PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
    ];
    let mark = format!("CORKBOARD_NODEJOB={}", job.id);
    let env = base
        .iter()
        .filter(|(name, _)| !asked.contains_key(*name))
        .map(|(name, value)| format!("{name}={value}"))
        .chain(
            asked
                .iter()
                .filter(|(name, _)| *name != "CORKBOARD_NODEJOB")
                .map(|(name, value)| format!("{name}={value}")),
        )
        .chain(std::iter::once(mark))
        .collect();
    (env, asked.get("PATH").map_or(PATH, String::as_str).to_string())
}

/// Standard input: the request's text, in memory; `None` where it has none.
pub(super) fn stdin(job: &Claimed) -> Result<Option<OwnedFd>> {
    let Some(text) = &job.spec.stdin else { return Ok(None) };
    let fd = memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC).at("memfd")?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).at("memfd")?;
    file.rewind().at("memfd")?;
    Ok(Some(file.into()))
}
