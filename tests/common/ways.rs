//! The ways in which the processes of a job are held together: a test that goes every way runs as
//! root with control groups of each version, and as a user without rights, who has none.

use std::fs;
use std::path::PathBuf;

use nix::libc;

use super::node::{assert_clean, root, root_of_nobody};
use super::{TestRoot, lives, signal, until};

/// What holds the processes of a root's jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Cgroup2,
    Cgroup1,
    Scan,
}

impl Way {
    pub fn root(self) -> TestRoot {
        match self {
            Way::Cgroup2 => root(),
            Way::Cgroup1 => {
                hide_version_two();
                root()
            }
            Way::Scan => root_of_nobody(),
        }
    }
}

/// This thread, and what it starts, sees no hierarchy of version 2 any more.
pub fn hide_version_two() {
    let none = std::ptr::null();
    // SAFETY: two calls that change what this thread sees of file systems, with strings that end in
    // NUL.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "root is needed");
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, flags, none.cast()), 0);
    }
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let point = std::ffi::CString::new(mount.split(' ').nth(4).unwrap()).unwrap();
        // SAFETY: a string that ends in NUL.
        assert_eq!(unsafe { libc::umount2(point.as_ptr(), libc::MNT_DETACH) }, 0);
    }
}

pub fn every_way(test: impl Fn(Way, &TestRoot)) {
    // The second one changes what this thread sees, for good.
    for way in [Way::Scan, Way::Cgroup2, Way::Cgroup1] {
        println!("{way:?}");
        let root = way.root();
        test(way, &root);
        until("all supervisors know", || root.supervisors().is_empty());
        assert_clean(&root);
    }
}

/// A place where any user may write.
pub fn notes(root: &TestRoot) -> PathBuf {
    let dir = root.path("notes");
    fs::create_dir(&dir).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&dir, all).unwrap();
    dir
}

/// Kills the supervisor that has claims.
pub fn kill_supervisor(root: &TestRoot) {
    let supervisor = root.supervisors()[0];
    signal(supervisor, "KILL");
    until("it is dead", || !lives(supervisor));
}
