//! What machine this is, by its properties.

use std::fs;
use std::path::Path;

/// Cores, processor, memory, kernel, file system.
pub fn describe(disk: &Path) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim().to_string())
            })
            .unwrap_or_else(|| "unknown".into())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("cores", cores.to_string()),
        ("processor", field(&read("/proc/cpuinfo"), "model name")),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_string()),
        ("file system", file_system(disk)),
    ]
}

/// Type and options of the mount that holds a directory.
fn file_system(dir: &Path) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let (point, kind, options) = (*fields.get(1)?, *fields.get(2)?, *fields.get(3)?);
            dir.starts_with(point).then(|| (point.len(), format!("{kind} ({options})")))
        })
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".into(), |(_, text)| text)
}

/// The load average of the last minute, and how many processes are ready to run.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_string()
}
