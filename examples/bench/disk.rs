//! What the disk alone costs: loops that make, sync and move the same files and do nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Instant;

use crate::Result;
use crate::site::Removed;

/// Jobs that share a sync in [`run`]; as many as the poller places in one round.
const ROUND: usize = 256;

const CARD: &[u8] = &[b'x'; 170];
const LINE: &[u8] = &[b'x'; 150];

/// Files published one by one (made, synced, renamed, directory synced) by so many threads; files
/// per second.
pub fn publish(dir: &Path, threads: usize, count: usize) -> Result<f64> {
    let dir = dir.join("raw");
    let _removed = Removed(dir.clone());
    fs::create_dir_all(dir.join("tmp"))?;
    fs::create_dir_all(dir.join("queue"))?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|thread| {
                let dir = &dir;
                scope.spawn(move || -> Result<()> {
                    for index in 0..count / threads {
                        let name = format!("{thread}-{index}");
                        let (from, to) =
                            (dir.join("tmp").join(&name), dir.join("queue").join(&name));
                        let mut file = File::create_new(&from)?;
                        file.write_all(CARD)?;
                        file.sync_all()?;
                        fs::rename(&from, &to)?;
                        File::open(dir.join("queue"))?.sync_all()?;
                    }
                    Ok(())
                })
            })
            .collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a thread died")?)
    })?;
    Ok((count / threads * threads) as f64 / begun.elapsed().as_secs_f64())
}

/// The files of jobs from the queue to done, with the syncs that rounds share; jobs per second.
/// The cards are there before, like those of the jobs that are measured.
pub fn run(dir: &Path, count: usize) -> Result<f64> {
    let dir = dir.join("raw");
    let _removed = Removed(dir.clone());
    for name in ["queue", "running", "done", "tmp", "waiting", "job", "pid"] {
        fs::create_dir_all(dir.join(name))?;
    }
    let numbers: Vec<usize> = (0..count).collect();
    let path = |place: &str, job: usize| dir.join(place).join(job.to_string());
    for job in &numbers {
        fs::write(path("queue", *job), CARD)?;
    }
    let sync = || -> Result<()> { Ok(nix::unistd::syncfs(File::open(&dir)?)?) };
    sync()?;
    let begun = Instant::now();
    for round in numbers.chunks(ROUND) {
        // The head places.
        for &job in round {
            append(&path("queue", job))?;
            fs::rename(path("queue", job), path("running", job))?;
        }
        sync()?;
        // The node accepts.
        for &job in round {
            fs::create_dir(path("tmp", job))?;
            fs::write(path("tmp", job).join("request.json"), CARD)?;
            fs::hard_link(path("tmp", job).join("request.json"), path("waiting", job))?;
            fs::rename(path("tmp", job), path("job", job))?;
        }
        sync()?;
        // Its supervisors claim and run.
        for &job in round {
            fs::remove_file(path("waiting", job))?;
        }
        sync()?;
        for &job in round {
            fs::write(path("job", job).join("status"), LINE)?;
            symlink(path("job", job), path("pid", job))?;
            fs::rename(path("pid", job), dir.join("pid").join(format!("{job}_1")))?;
            append(&path("job", job).join("status"))?;
        }
        sync()?;
        // The head records.
        for &job in round {
            append(&path("running", job))?;
            fs::rename(path("running", job), path("done", job))?;
        }
        sync()?;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn append(path: &Path) -> Result<()> {
    Ok(OpenOptions::new().append(true).open(path)?.write_all(LINE)?)
}
