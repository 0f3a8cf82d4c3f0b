//! Which cards there are: numbers by column, and the newest ones.

use std::path::Path;

use super::cards::Cards;
use super::files;
use crate::error::Result;
use crate::model::card::Column;
use crate::model::ids;

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

    /// The newest finished jobs, newest first, at least `limit` of them where there are so many.
    pub fn newest_done(&self, limit: usize) -> Result<Vec<u64>> {
        let mut done = Vec::new();
        for shard in self.done_shards()? {
            if done.len() >= limit {
                break;
            }
            done.extend(self.done_in(shard)?);
        }
        done.sort_unstable_by(|a, b| b.cmp(a));
        Ok(done)
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
