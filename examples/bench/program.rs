//! What the smallest request of each program costs as bare CGI.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::requests::JOB;
use crate::site::Site;
use crate::table::{Limit, Table};
use crate::{Bench, Result};

/// The smallest request of each program.
const REQUESTS: [(&str, &str); 3] =
    [("scheduler", "/queue/1"), ("processor", "/jobs"), ("nodemgr", "/list")];

pub fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let site = Site::new(bench, bench.disk.join("program"))?;
    site.submit(JOB)?;
    let count = bench.size(500, 20);
    for (name, path) in REQUESTS {
        let program = site.dir.join("cgi-bin").join(name);
        let empty = site.dir.join("bin/empty");
        let mut rounds = Vec::new();
        for _ in 0..bench.rounds {
            let ours = start(&program, name, path, count)?;
            rounds.push((ours, start(&empty, name, path, count)?));
        }
        let limit = Some(Limit::AtMost(1.3, 1.1));
        let what = format!("GET {name}{path} by an empty static program");
        table.ratio("program", what, "µs", &rounds, limit, "fork, exec, answer, wait; no server");
    }
    Ok(())
}

/// Microseconds of a request as bare CGI.
fn start(program: &Path, name: &str, path: &str, count: usize) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..count {
        let status = Command::new(program)
            .env_clear()
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", "GET")
            .env("SCRIPT_NAME", format!("/cgi-bin/{name}"))
            .env("PATH_INFO", path)
            .env("SERVER_PROTOCOL", "HTTP/1.0")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("HTTP_HOST", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("{}: {status}", program.display()).into());
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / count as f64)
}
