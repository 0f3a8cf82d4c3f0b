//! How busy this machine is.

use std::fs;

use nix::sys::statvfs::statvfs;

use crate::board::runs::Runs;
use crate::model::about::Live;

/// What it has at present; 0, or nothing, where that cannot be told.
pub fn now(runs: &Runs) -> Live {
    let disk = statvfs(&runs.jobs_dir()).map_or(0, |fs| {
        #[allow(clippy::useless_conversion)] // of another width on other machines
        let (blocks, size) = (u64::from(fs.blocks_available()), u64::from(fs.fragment_size()));
        blocks.saturating_mul(size)
    });
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    Live { at: None, free_memory: meminfo("MemAvailable:"), free_disk: disk, load: load.join(" ") }
}

/// A line of `/proc/meminfo`, in bytes; 0 if that cannot be told.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}
