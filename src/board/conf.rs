//! Settings that a program puts into its root's `corkboard.conf`, for those that read it there.

use super::files;
use super::root::Root;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Puts these settings in place of what is said of them there, behind everything else. What is said already
/// is left as it is.
///
/// Errors: one is wrong; then nothing is changed.
pub fn set(root: &Root, given: &[(&str, String)]) -> Result<()> {
    let path = root.dir().join("corkboard.conf");
    let before = files::read(&path)?.unwrap_or_default();
    let before = String::from_utf8(before)
        .map_err(|_| Error::bad(format!("{}: not UTF-8", path.display())))?;
    let name_of = |line: &str| line.split(['#', '=']).next().unwrap_or("").trim().to_string();
    let is_given = |line: &str| given.iter().any(|(name, _)| name_of(line) == *name);
    let mut text: String =
        before.lines().filter(|line| !is_given(line)).map(|line| format!("{line}\n")).collect();
    for (name, value) in given {
        text.push_str(&format!("{name} = {value}\n"));
    }
    Settings::parse(&text).map_err(|e| Error::bad(e.message))?;
    let same = given
        .iter()
        .all(|(name, value)| before.lines().any(|line| line == format!("{name} = {value}")));
    if same { Ok(()) } else { files::replace(&root.state("scheduler/tmp"), &path, text.as_bytes()) }
}
