//! Roots of another user than the one who runs the tests.

use std::fs;
use std::os::unix::fs::chown;

use super::{TestRoot, program};

pub const NOBODY: u32 = 65534;

/// A root of user `nobody`, with programs that everybody may run. Only root can make one.
pub fn nobodys_root(conf: &str) -> TestRoot {
    let mut root = TestRoot::new(conf);
    for name in ["cgi-bin/processor", "cgi-bin/scheduler", "cgi-bin/nodemgr", "bin/poller"] {
        let path = root.path(name);
        fs::remove_file(&path).unwrap();
        fs::copy(program(name.rsplit('/').next().unwrap()), &path).unwrap();
    }
    for name in ["", "cgi-bin", "bin", "corkboard.conf"] {
        chown(root.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    root.user = Some(NOBODY);
    root
}

/// A root whose user is bound by the rights on files, as root is not.
pub fn plain_root(conf: &str) -> TestRoot {
    if nix::unistd::geteuid().is_root() { nobodys_root(conf) } else { TestRoot::new(conf) }
}
