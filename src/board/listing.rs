//! Which cards there are: numbers by column, and the newest ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::cards::Cards;
use super::files;
use crate::error::{At, Error, Result};
use crate::model::card::Column;
use crate::model::ids;

/// Far longer than anything that was written waits for the disk.
const BEFORE_BOOT: Duration = Duration::from_secs(3600);

impl Cards<'_> {
    /// Numbers of the cards that lie in `queue/` or `running/`, or in one directory of `done/`
    /// given by [`Cards::done_shards`]; in no order.
    pub fn numbers(&self, column: Column) -> Result<Vec<u64>> {
        match column {
            Column::Done => {
                let mut all = Vec::new();
                for shard in self.done_shards()? {
                    all.extend(self.done_in(shard)?);
                }
                Ok(all)
            }
            _ => card_numbers(&self.column_path(column)),
        }
    }

    /// Directories of `done/`, the newest first.
    pub fn done_shards(&self) -> Result<Vec<u64>> {
        let mut shards: Vec<u64> = files::names(&self.path("done"))?
            .iter()
            .filter_map(|name| if name == "0" { Some(0) } else { ids::parse_number(name) })
            .collect();
        shards.sort_unstable_by(|a, b| b.cmp(a));
        Ok(shards)
    }

    /// Numbers of the cards in one directory of `done/`.
    pub fn done_in(&self, shard: u64) -> Result<Vec<u64>> {
        card_numbers(&self.path(&format!("done/{shard}")))
    }

    /// The newest finished jobs, newest first, at least `limit` of them where there are so many. Those
    /// of a directory that cannot be read are left out, which is said.
    pub fn newest_done(&self, limit: usize) -> Result<Vec<u64>> {
        let mut done = Vec::new();
        for shard in self.done_shards()? {
            if done.len() >= limit {
                break;
            }
            match self.done_in(shard) {
                Ok(jobs) => done.extend(jobs),
                Err(error) => eprintln!("{}: its jobs are left out", error.message),
            }
        }
        done.sort_unstable_by(|a, b| b.cmp(a));
        Ok(done)
    }

    /// Cards that came to `done/` in the last hour before the machine was started at this time, or
    /// since. Their moves may have outlived a power loss that took the lines which made them: of no
    /// other column that is not looked through anyway. Costs a look at each directory, and at each
    /// card of those into which cards came then. Also what went wrong with those that could not be
    /// looked at.
    pub fn done_before_boot(&self, booted: SystemTime) -> Result<(Vec<u64>, Vec<Error>)> {
        let time = |path: &Path| -> Result<Option<SystemTime>> {
            let meta = files::gone_is_fine(fs::metadata(path)).at(path)?;
            let since = |meta: fs::Metadata| Duration::from_secs(meta.ctime().max(0) as u64);
            Ok(meta.map(|meta| SystemTime::UNIX_EPOCH + since(meta)))
        };
        let mut failed = Vec::new();
        let mut shards = Vec::new();
        for shard in self.done_shards()? {
            match time(&self.path(&format!("done/{shard}"))) {
                Ok(changed) => shards.extend(changed.map(|changed| (changed, shard))),
                Err(error) => failed.push(error),
            }
        }
        shards.sort_unstable_by(|a, b| b.cmp(a));
        let mut came = Vec::new();
        let (mut stop, mut newest) = (None, None);
        for (changed, shard) in shards {
            if stop.or(newest).is_some_and(|last| changed + BEFORE_BOOT < last) {
                break;
            }
            let jobs = self.done_in(shard).unwrap_or_else(|error| {
                failed.push(error);
                Vec::new()
            });
            for job in jobs {
                let at = match time(&self.card_path(Column::Done, job)) {
                    Ok(Some(at)) => at,
                    Ok(None) => continue,
                    Err(error) => {
                        failed.push(error);
                        continue;
                    }
                };
                came.push((at, job));
                newest = newest.max(Some(at));
                stop = stop.max(Some(at).filter(|at| *at <= booted));
            }
        }
        let last = stop.or(newest);
        came.retain(|(at, _)| last.is_some_and(|last| *at + BEFORE_BOOT >= last));
        Ok((came.into_iter().map(|(_, job)| job).collect(), failed))
    }

    /// Numbers of the cards that cannot be read and were put aside.
    pub fn put_aside(&self) -> Result<Vec<u64>> {
        card_numbers(&self.path("bad"))
    }

    /// The newest jobs on the board, newest first, at most `limit`; those too whose cards were put
    /// aside.
    pub fn newest(&self, limit: usize) -> Result<Vec<u64>> {
        let mut all = self.numbers(Column::Queue)?;
        all.extend(self.put_aside()?);
        all.extend(self.numbers(Column::Running)?);
        all.extend(self.newest_done(limit)?);
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.dedup();
        all.truncate(limit);
        Ok(all)
    }
}

pub(super) fn card_numbers(dir: &Path) -> Result<Vec<u64>> {
    Ok(files::names(dir)?.iter().filter_map(|name| card_number(name)).collect())
}

/// The job whose card has this file name.
pub fn card_number(name: &str) -> Option<u64> {
    ids::parse_number(name.strip_suffix(".job")?)
}
