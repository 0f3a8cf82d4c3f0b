//! `worker.conf`: the options of the worker, as `name = value` lines. A wrong line is named.

use std::fs;
use std::path::Path;

use crate::error::{At, Error, Result};
use crate::settings;

/// Options that may be given several times.
const LISTS: [&str; 2] = ["head", "label"];

/// What the file says: names and values, in order.
pub(super) fn read(path: &Path, known: &[&str]) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).at(path)?;
    let wrong =
        |line: usize, why: &str| Error::bad(format!("{}, line {line}: {why}", path.display()));
    let mut said: Vec<(String, String)> = Vec::new();
    for line in settings::lines(&text) {
        let (number, name, value) =
            line.map_err(|e| Error::bad(format!("{}, {}", path.display(), e.message)))?;
        if !known.contains(&name) {
            return Err(wrong(number, &format!("there is no option {name:?}")));
        }
        if !LISTS.contains(&name) && said.iter().any(|(other, _)| other == name) {
            return Err(wrong(number, &format!("{name} is set twice")));
        }
        said.push((name.to_string(), value.to_string()));
    }
    Ok(said)
}
