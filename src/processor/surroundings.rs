//! What a program finds when it starts: environment and standard input.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{At, Result};
use crate::model::request::Spec;
use crate::user::User;

/// `PATH` of a job that does not set its own.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// The variable in which a job finds the server of the node that it runs on.
const NODE_URL: &str = "CORKBOARD_NODE_URL";

/// The variable that says which GPUs a program may use.
const GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// What the environment of every job of a slot has.
pub(super) struct Around<'a> {
    pub user: &'a User,
    /// Where the node's server is.
    pub url: Option<&'a str>,
    /// Which GPUs it may use, on a machine that may have any: no other's, whatever the job says.
    pub gpus: Option<String>,
}

/// The job's environment, or that of a task of it, and its `PATH`.
pub(super) fn environment(
    Around { user, url, gpus }: Around,
    id: &str,
    spec: &Spec,
    task: Option<u32>,
) -> (Vec<String>, String) {
    let asked = &spec.environment;
    let base = [
        ("PATH", PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
    ];
    let mark = format!("CORKBOARD_NODEJOB={id}");
    let env = base
        .iter()
        .filter(|(name, _)| !asked.contains_key(*name))
        .map(|(name, value)| format!("{name}={value}"))
        .chain(
            asked
                .iter()
                .filter(|(name, _)| *name != "CORKBOARD_NODEJOB")
                .filter(|(name, _)| url.is_none() || *name != NODE_URL)
                .filter(|(name, _)| gpus.is_none() || *name != GPUS)
                .filter(|(name, _)| task.is_none() || *name != "CORKBOARD_TASK")
                .map(|(name, value)| format!("{name}={value}")),
        )
        .chain(std::iter::once(mark))
        .chain(url.map(|url| format!("{NODE_URL}={url}")))
        .chain(gpus.as_ref().map(|gpus| format!("{GPUS}={gpus}")))
        .chain(task.map(|task| format!("CORKBOARD_TASK={task}")))
        .collect();
    (env, asked.get("PATH").map_or(PATH, String::as_str).to_string())
}

/// Standard input: the request's text, in memory; `None` where it has none.
pub(super) fn stdin(spec: &Spec) -> Result<Option<OwnedFd>> {
    let Some(text) = &spec.stdin else { return Ok(None) };
    let fd = memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC).at("memfd")?;
    let mut file = File::from(fd);
    file.write_all(text.as_bytes()).at("memfd")?;
    file.rewind().at("memfd")?;
    Ok(Some(file.into()))
}
