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
    find(&fs::read("/etc/passwd").unwrap_or_default(), uid)
}

/// The table is not ours: a line that is no text spoils that line alone.
fn find(passwd: &[u8], uid: Uid) -> Option<User> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line);
        let fields: Vec<&str> = line.split(':').collect();
        fields.get(2).filter(|id| id.parse() == Ok(uid.as_raw()))?;
        Some(User { name: (*fields.first()?).into(), home: (*fields.get(5)?).into() })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_text_spoils_no_other() {
        let table = b"root:x:0:0:root:/root:/bin/sh\n\xff\xfe:x:5:5:J\xf6rg:/home/j:/bin/sh\nada:x:7:7::/home/ada:";
        let found = |uid| find(table, Uid::from_raw(uid)).map(|user| (user.name, user.home));
        assert_eq!(found(7), Some(("ada".into(), "/home/ada".into())));
        assert_eq!(found(0), Some(("root".into(), "/root".into())));
        assert_eq!(found(5).unwrap().1, "/home/j");
        assert_eq!(found(8), None);
    }
}
