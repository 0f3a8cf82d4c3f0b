//! A root of its own with its own httpd and, where asked for, its own poller.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use corkboard::board::cards::Cards;
use corkboard::board::root::Root;
use corkboard::model::card::{Card, Column};
use corkboard::model::outcome::Status;

use crate::process::{self, Guarded};
use crate::{Bench, Result, http};

/// How long anything that should happen at once may take.
const SOON: Duration = Duration::from_secs(20);

pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A directory that is removed with this.
pub struct Removed(pub PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("bench: {}: {error}", self.0.display());
        }
    }
}

/// See the module. Dropped, its processes are ended, then it is removed.
pub struct Site {
    pub dir: PathBuf,
    pub address: SocketAddr,
    pub root: Root,
    httpd: Option<Guarded>,
    _removed: Removed,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.httpd = None;
        process::end_those_of(&self.dir);
    }
}

impl Site {
    /// An open root in `dir`, served on loopback; localhost is a node at that address.
    pub fn new(bench: &Bench, dir: PathBuf) -> Result<Site> {
        for name in ["cgi-bin", "bin", "www", "run", "state", "floor/tmp", "floor/queue"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let removed = Removed(dir.clone());
        let dir = fs::canonicalize(&dir)?;
        symlink("../cgi-bin", dir.join("www/cgi-bin"))?;
        for (from, to) in [
            ("scheduler", "cgi-bin/scheduler"),
            ("processor", "cgi-bin/processor"),
            ("nodemgr", "cgi-bin/nodemgr"),
            ("poller", "bin/poller"),
            ("examples/null_cgi", "cgi-bin/null"),
            ("examples/publish_cgi", "cgi-bin/publish"),
            ("examples/empty", "bin/empty"),
        ] {
            let from = bench.programs.join(from);
            fs::copy(&from, dir.join(to)).map_err(|e| format!("{}: {e}", from.display()))?;
        }
        File::create(dir.join("state/open"))?;
        fs::write(dir.join("httpd.conf"), "")?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::write(dir.join("run/url"), format!("http://{address}/cgi-bin\n"))?;
        let httpd = Guarded::start(
            Command::new("busybox")
                .args(["httpd", "-f", "-p", &address.to_string(), "-h"])
                .arg(dir.join("www"))
                .arg("-c")
                .arg(dir.join("httpd.conf"))
                .env_clear()
                .env("PATH", PATH)
                .env("BENCH_DIR", dir.join("floor"))
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log(&dir, "httpd")?),
        )?;
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("httpd does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let root = Root::open(&dir).map_err(|e| e.message)?;
        let site = Site { dir, address, root, httpd: Some(httpd), _removed: removed };
        let node = format!(r#"{{"name":"localhost","driver":"http","uri":"http://{address}"}}"#);
        site.scheduler(&["nodes", "new", "-d", &node])?;
        Ok(site)
    }

    /// Runs the scheduler as a command.
    pub fn scheduler(&self, words: &[&str]) -> Result<()> {
        self.ask(words).map(|_| ())
    }

    /// The same; what it says.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(self.dir.join("cgi-bin/scheduler"))
            .args(words)
            .env("CORKBOARD_ROOT", &self.dir)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("scheduler {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    /// Starts the poller as `scripts/up` does.
    pub fn poller(&self) -> Result<Guarded> {
        Guarded::start(
            Command::new(self.dir.join("bin/poller"))
                .env_clear()
                .env("PATH", PATH)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log(&self.dir, "poller")?),
        )
    }

    pub fn cards(&self) -> Cards<'_> {
        Cards::new(&self.root)
    }

    /// Submits so many separate jobs, in arrays. Returns their last number.
    pub fn submit_many(&self, request: &str, count: usize) -> Result<u64> {
        const AT_ONCE: usize = 10_000;
        let mut last = 0;
        let mut left = count;
        while left > 0 {
            let now = left.min(AT_ONCE);
            let body = format!("[{}]", vec![request; now].join(","));
            let answer = http::json(self.address, &http::post("scheduler/jobs/new", &body))?;
            let numbers = answer.as_array().ok_or("the answer is no array")?;
            if numbers.len() != now {
                return Err(format!("{} of {now} jobs were accepted", numbers.len()).into());
            }
            last = numbers.last().and_then(|one| one["job"].as_u64()).ok_or("no job number")?;
            left -= now;
        }
        Ok(last)
    }

    /// Submits one job and returns its number.
    pub fn submit(&self, request: &str) -> Result<u64> {
        let answer = http::json(self.address, &http::post("scheduler/jobs/new", request))?;
        Ok(answer["job"].as_u64().ok_or("no job number")?)
    }

    /// Waits until no card waits or runs. Looks at directories only once the last job is done,
    /// which is about the end: looking costs, too.
    pub fn wait_done(&self, last: u64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let cards = self.cards();
        let done = cards.card_path(Column::Done, last);
        loop {
            let over = done.exists()
                && [Column::Queue, Column::Running]
                    .iter()
                    .all(|column| cards.numbers(*column).is_ok_and(|all| all.is_empty()));
            if over {
                return Ok(());
            }
            if Instant::now() > deadline {
                let left = cards.numbers(Column::Queue).map_or(0, |all| all.len());
                return Err(format!("{left} jobs still wait after {patience:?}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All of so many jobs ended well; otherwise what was measured means nothing.
    pub fn check_good(&self, count: usize) -> Result<()> {
        let cards = self.cards();
        let numbers = cards.numbers(Column::Done).map_err(|e| e.message)?;
        if numbers.len() != count {
            return Err(format!("{} cards in done, not {count}", numbers.len()).into());
        }
        for job in numbers {
            let card = cards.find(job).map_err(|e| e.message)?;
            if card.status() != Status::Good {
                return Err(format!("job {job} did not end well").into());
            }
        }
        Ok(())
    }

    /// Every task of this array ended well.
    pub fn check_tasks(&self, job: u64, count: usize) -> Result<()> {
        let card = self.cards().find(job).map_err(|e| e.message)?;
        let good = card.array().map_or(0, |array| array.ended.good.len());
        if card.status() != Status::Good || good != count as u64 {
            return Err(format!("{good} of {count} tasks ended well").into());
        }
        Ok(())
    }

    /// The card of one job as it is written.
    pub fn card_text(&self, column: Column, job: u64) -> Result<String> {
        Ok(fs::read_to_string(self.cards().card_path(column, job))?)
    }

    /// Fills a column with cards like this one, under the numbers from `first` on.
    pub fn fill(&self, column: Column, model: &str, first: u64, count: u64) -> Result<()> {
        let old = Card::parse(model.as_bytes()).map_err(|e| e.to_string())?.job();
        let cards = self.cards();
        let write = |job: u64| -> Result<()> {
            let path = cards.card_path(column, job);
            if job == first || job.is_multiple_of(1000) {
                fs::create_dir_all(path.parent().ok_or("no directory")?)?;
            }
            let text = model
                .replacen(&format!("\"job\":{old},"), &format!("\"job\":{job},"), 1)
                .replace(&format!("-{old}.1\""), &format!("-{job}.1\""));
            Ok(fs::write(path, text)?)
        };
        let last = first + count;
        let middle = (first + count / 2) / 1000 * 1000;
        let middle = middle.clamp(first, last);
        std::thread::scope(|scope| {
            let half = scope.spawn(|| (first..middle).try_for_each(write));
            (middle..last).try_for_each(write)?;
            half.join().map_err(|_| "the generator died")?
        })?;
        for job in [first, last - 1] {
            let text = self.card_text(column, job)?;
            let card = Card::parse(text.as_bytes()).map_err(|e| e.to_string())?;
            if card.job() != job || card.column() != column {
                return Err(format!("the generated card {job} is not valid").into());
            }
        }
        Ok(())
    }

    /// Says from which number on new jobs are to be counted.
    pub fn count_from(&self, next: u64) -> Result<()> {
        let line = format!("next={next} limit={next} boot=generated");
        Ok(fs::write(self.dir.join("state/scheduler/seq"), format!("{line:<127}\n"))?)
    }
}

fn log(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join("run").join(format!("{name}.log"));
    Ok(File::options().create(true).append(true).open(path)?)
}

/// What earlier rounds left for the disk to do is done.
pub fn settle(dir: &Path) -> Result<()> {
    nix::unistd::syncfs(File::open(dir)?)?;
    Ok(())
}
