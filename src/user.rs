//! Users of this machine, by `/etc/passwd` alone: what a static program would need
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
    account(uid).ok_or(uid)
}

/// The name of an account; `None` if `/etc/passwd` has none.
pub fn name_of(uid: Uid) -> Option<String> {
    account(uid).map(|user| user.name)
}

fn account(uid: Uid) -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut accounts = passwd.lines().map(|line| line.split(':').collect::<Vec<&str>>());
    let is_theirs = |id: &&str| id.parse() == Ok(uid.as_raw());
    accounts.find_map(|account| {
        account.get(2).filter(|id| is_theirs(id))?;
        Some(User { name: (*account.first()?).into(), home: (*account.get(5)?).into() })
    })
}
