//! The hierarchies of control groups: where they are mounted, and where in them this process is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};
use sha2::{Digest, Sha256};

use crate::processor::tree;

/// What names of roots' groups begin with.
pub(super) const PREFIX: &str = "corkboard-";

/// How many digits of a hash follow.
pub(super) const HASH: usize = 12;

/// Which kind of hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The unified one.
    Two,
    /// One for each controller.
    One,
}

impl Version {
    /// Its name in `info`.
    pub fn name(self) -> &'static str {
        match self {
            Version::Two => "cgroup2",
            Version::One => "cgroup1",
        }
    }
}

/// Whether groups may be made in this one.
pub(super) fn may_write(dir: &Path) -> bool {
    let both = AccessFlags::W_OK | AccessFlags::X_OK;
    eaccess(dir, both).is_ok() && eaccess(&dir.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
}

/// Whether an error says that a group is not there, or not any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    // ENODEV: it was removed after the file was opened.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// The name of a root's groups: that of the directory itself, which may have several paths, and others
/// may have the same one.
pub(super) fn name_of(root: &Path) -> String {
    let directory = fs::metadata(root).map(|meta| (meta.dev(), meta.ino())).ok();
    let digest = Sha256::digest(format!("{directory:?}"));
    let short: String = base16ct::lower::encode_string(&digest[..HASH / 2]);
    format!("{PREFIX}{short}")
}

/// A hierarchy that this process is in.
pub(super) struct Hierarchy {
    mount: PathBuf,
    /// This process's group, as a path below the mount.
    own: String,
}

impl Hierarchy {
    /// This process's group, or if that is a job's, where that job's root has its groups.
    pub fn base(&self) -> PathBuf {
        self.mount.join(outside(&self.own).trim_start_matches('/'))
    }

    /// Whether this process is in a job's group.
    pub fn is_in_job(&self) -> bool {
        outside(&self.own).len() < self.own.len()
    }
}

/// A group's path up to the first part that is a slot's.
fn outside(path: &str) -> &str {
    let is_slots = |after: &str| {
        let (hash, rest) = after.split_at_checked(HASH).unwrap_or_default();
        let slot = rest.strip_prefix('/').map(|rest| rest.split('/').next().unwrap_or(rest));
        hash.bytes().all(|b| b.is_ascii_hexdigit())
            && slot.is_some_and(|slot| slot.parse::<u64>().is_ok())
    };
    let parts = path.match_indices(PREFIX).filter(|(at, _)| path[..*at].ends_with('/'));
    let first = parts.into_iter().find(|(at, _)| is_slots(&path[at + PREFIX.len()..]));
    first.map_or(path, |(at, _)| &path[..at - 1])
}

/// The hierarchies of these controllers (`None`: the unified one) that a process is in, as far as this
/// one sees them.
pub(super) fn hierarchies(pid: &str, is_wanted: impl Fn(Option<&str>) -> bool) -> Vec<Hierarchy> {
    let memberships = tree::text(&format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut mounts = None;
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        let controllers = Some(controllers).filter(|names| !names.is_empty());
        if !is_wanted(controllers) {
            return None;
        }
        let mounts =
            mounts.get_or_insert_with(|| tree::text("/proc/self/mountinfo").unwrap_or_default());
        let (mount, own) = mounts.lines().find_map(|line| mounted(line, controllers, path))?;
        Some(Hierarchy { mount, own })
    };
    memberships.lines().filter_map(of_line).collect()
}

/// Where a line of `mountinfo` mounts this hierarchy, and the group's path below that.
fn mounted(line: &str, controllers: Option<&str>, path: &str) -> Option<(PathBuf, String)> {
    let kind = if controllers.is_none() { " - cgroup2 " } else { " - cgroup " };
    if !line.contains(kind) {
        return None;
    }
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let options = after.nth(2)?;
    let has = |name: &str| options.split(',').any(|option| option == name);
    let is_it = controllers.is_none_or(|names| names.split(',').all(has));
    let below = if root == "/" { path } else { path.strip_prefix(root)? };
    // One outside of what is mounted, or with escapes in its name, is of no use.
    let inside = below.is_empty() || below.starts_with('/');
    let usable =
        is_it && inside && !below.split('/').any(|part| part == "..") && !point.contains('\\');
    usable.then(|| (PathBuf::from(point), below.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_is_found_where_it_is_mounted() {
        let two = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let found = mounted(two, None, "/a/b").unwrap();
        assert_eq!(found, ("/sys/fs/cgroup/unified".into(), "/a/b".to_string()));
        assert!(mounted(two, Some("freezer"), "/").is_none());
        let one = "38 31 0:35 /c /x rw shared:9 - cgroup cgroup rw,cpu,freezer";
        let found = mounted(one, Some("freezer"), "/c/d").unwrap();
        assert_eq!(found, ("/x".into(), "/d".to_string()));
        assert!(mounted(one, Some("pids"), "/c/d").is_none());
        assert!(mounted(one, Some("freezer"), "/e").is_none());
        assert!(mounted(two, None, "/../a").is_none());
    }

    #[test]
    fn outside_of_a_job() {
        assert_eq!(outside("/"), "/");
        assert_eq!(outside("/system.slice/x"), "/system.slice/x");
        assert_eq!(outside("/a/corkboard-001122334455/3/own"), "/a");
        assert_eq!(outside("/corkboard-001122334455/3"), "");
        for others in ["/corkboard-node.service", "/corkboard-001122334455", "/corkboard-x/3"] {
            assert_eq!(outside(others), others);
        }
    }
}
