//! The chain of one job without us: the same process starts and the same syncs, one after another.
//!
//! What a job costs on its way is process starts and syncs, and both follow the machine's mood: a
//! disk that is slow for an hour makes any durable system slow. Against this chain it shows what
//! ours adds to what any system must do that starts as many programs and makes as much durable.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Result;
use crate::http::{get, post, send};
use crate::site::{Removed, Site};

const LINE: &[u8] = &[b'x'; 150];

/// Files that the steps of a chain are made on.
pub struct Chain<'s> {
    site: &'s Site,
    dir: PathBuf,
    count: usize,
    _removed: Removed,
}

impl<'s> Chain<'s> {
    /// A chain beside this site, on its disk and through its server.
    pub fn new(site: &'s Site) -> Result<Chain<'s>> {
        let dir = site.dir.join("chain");
        for name in ["queue", "running", "done", "job"] {
            fs::create_dir_all(dir.join(name))?;
        }
        Ok(Chain { site, dir: dir.clone(), count: 0, _removed: Removed(dir) })
    }

    /// Seconds that one chain takes.
    pub fn run(&mut self) -> Result<f64> {
        self.count += 1;
        let name = self.count.to_string();
        let path = |place: &str| self.dir.join(place).join(&name);
        let body = format!("{{\"card\":\"{}\"}}", "x".repeat(140));
        let publish = post("publish", &body);
        fs::write(path("queue"), LINE)?;
        fs::create_dir_all(path("job"))?;
        let begun = Instant::now();
        // Submitted: a server's process, a program, a file and its directory.
        send(self.site.address, &publish)?;
        // Placed.
        self.stamp(&path("queue"), &path("running"))?;
        // Accepted by the node: once more a server's process, a program, a file and its directory.
        send(self.site.address, &publish)?;
        // Claimed.
        let slot = self.dir.join("slot");
        append(&slot)?.sync_all()?;
        sync_dir(&self.dir.join("queue"))?;
        // Run.
        let status = Command::new("/bin/true").env_clear().stdin(Stdio::null()).status()?;
        if !status.success() {
            return Err(format!("/bin/true: {status}").into());
        }
        append(&path("job").join("status"))?.sync_all()?;
        sync_dir(&path("job"))?;
        // Recorded.
        self.stamp(&path("running"), &path("done"))?;
        // Told: a server's process and a program.
        send(self.site.address, &get("null"))?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// A line appended, a move, and what makes both durable.
    fn stamp(&self, from: &Path, to: &Path) -> Result<()> {
        let file = append(from)?;
        fs::rename(from, to)?;
        file.sync_all()?;
        for path in [from, to] {
            sync_dir(path.parent().ok_or("no directory")?)?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(LINE)?;
    Ok(file)
}

fn sync_dir(path: &Path) -> Result<()> {
    Ok(File::open(path)?.sync_all()?)
}
