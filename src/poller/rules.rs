//! The partitions as the engine knows them: by whose rules jobs are placed, and which of them nobody can go
//! by now. Read when one was changed, and with every scan; only records that changed are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::board::files::Version;
use crate::board::partitions::{self, Recorded};
use crate::board::root::Root;
use crate::error::{Error, Kind, Result};
use crate::model::partition::Partition;

/// See the module.
#[derive(Debug, Default)]
pub struct Rules {
    known: BTreeMap<String, Rule>,
}

/// A partition that there is.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// Of which record; `None` where that is not known, so that it is read again.
    version: Option<Version>,
    /// Its rules, if one can go by them, and else why not.
    read: std::result::Result<Arc<Partition>, String>,
}

/// What is different from before: partitions by name, and those that one can go by with their rules.
pub type Changed = Vec<(String, Option<Arc<Partition>>)>;

impl Rules {
    /// By which record of this partition jobs are placed.
    pub fn version(&self, name: &str) -> Option<Version> {
        self.known.get(name)?.version
    }

    /// Reads what changed, and what kept records from being read that may be the next time.
    pub fn read(&mut self, root: &Root) -> Result<(Changed, Vec<Error>)> {
        let names = partitions::names(root)?;
        let (mut changed, mut trouble) = (Vec::new(), Vec::new());
        let gone: Vec<String> =
            self.known.keys().filter(|name| names.binary_search(name).is_err()).cloned().collect();
        for name in gone {
            self.known.remove(&name);
            changed.push((name, None));
        }
        for name in names {
            let version = partitions::version(root, &name).unwrap_or(None); // before it is read
            let before = self.known.get(&name);
            if version.is_some() && before.is_some_and(|known| known.version == version) {
                continue;
            }
            let (read, version) = match partitions::look(root, &name) {
                Ok(Recorded::Known(partition)) => (Ok(partition), version),
                Ok(other) => (Err(other.objection(&name).unwrap_or_default()), version),
                Err(error) => {
                    let said = error.message.clone();
                    trouble.extend(Some(error).filter(|error| error.kind == Kind::Unavailable));
                    (Err(said), None)
                }
            };
            let rule = Rule { version, read };
            let is_as_before = before.is_some_and(|known| known.read == rule.read);
            if let Err(why) = &rule.read
                && !is_as_before
            {
                eprintln!("poller: {why}; jobs of partition {name} wait");
            }
            if !is_as_before {
                changed.push((name.clone(), rule.read.as_ref().ok().cloned()));
            }
            self.known.insert(name, rule);
        }
        Ok((changed, trouble))
    }
}
