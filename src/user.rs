//! The user that this process runs as, by `/etc/passwd` alone: what a static program would need
//! for other sources (and would have to load when it runs) is a tenth of its size.

use std::fs;

use nix::unistd::{Uid, geteuid};

/// An account of this machine.
#[derive(Debug)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its home directory.
    pub home: String,
}

/// The account of this process; `Err` if `/etc/passwd` has none.
pub fn own() -> Result<User, Uid> {
    let uid = geteuid();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<&str>>());
    let is_own = |id: &&str| id.parse() == Ok(uid.as_raw());
    accounts
        .find_map(|account| {
            account.get(2).filter(|id| is_own(id))?;
            Some(User { name: (*account.first()?).into(), home: (*account.get(5)?).into() })
        })
        .ok_or(uid)
}
