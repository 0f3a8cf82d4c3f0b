//! The files in a job's work directory.

use serde::{Deserialize, Serialize};

use crate::model::ids::RunId;

/// Where their names are asked.
pub fn names_path(id: &RunId) -> String {
    format!("jobs/{id}/files")
}

/// Where one of them is. Whatever it is called, it is one segment of the path.
pub fn file_path(id: &RunId, name: &str) -> String {
    name.bytes().fold(names_path(id) + "/", |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            path.push(byte as char);
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

/// Their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// In order.
    pub files: Vec<String>,
}

impl Names {
    /// Reads them.
    ///
    /// Errors: it is no list of any.
    pub fn read(body: &[u8]) -> serde_json::Result<Names> {
        serde_json::from_slice(body)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written() {
        let id = RunId::parse("c-1.1").unwrap();
        let names = ["a", "b c", "é%/\n", ""];
        for count in 0..=names.len() {
            let names = Names { files: names[..count].iter().map(ToString::to_string).collect() };
            assert_eq!(Names::read(&serde_json::to_vec(&names).unwrap()).unwrap(), names);
        }
        for name in names {
            let path = file_path(&id, name);
            let encoded = path.strip_prefix("jobs/c-1.1/files/").unwrap();
            let decoded = form_urlencoded::parse(encoded.as_bytes()).next();
            assert_eq!(decoded.map_or(String::new(), |(name, _)| name.into_owned()), name);
        }
    }
}
