//! What a job asks for and what a node has: cores and memory.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::settings::parse_size;

/// An amount of each resource. Job: what it is given; node: what it gives in all, or has free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Whole cores; a job has at least one.
    #[serde(default = "one_core")]
    pub cores: u64,
    /// Bytes; a job that does not say is counted with none.
    #[serde(default, deserialize_with = "size")]
    pub memory: u64,
}

fn one_core() -> u64 {
    1
}

impl Default for Resources {
    fn default() -> Resources {
        Resources { cores: one_core(), memory: 0 }
    }
}

impl Resources {
    /// Nothing at all.
    pub const NONE: Resources = Resources { cores: 0, memory: 0 };

    /// Whether a job that asks for this fits into `room`.
    pub fn fits(&self, room: &Resources) -> bool {
        self.cores <= room.cores && self.memory <= room.memory
    }

    /// How often this fits into `room`.
    pub fn times_in(&self, room: &Resources) -> u64 {
        let memory = room.memory.checked_div(self.memory).unwrap_or(u64::MAX);
        (room.cores / self.cores.max(1)).min(memory)
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Resources) -> Resources {
        Resources {
            cores: self.cores.saturating_add(other.cores),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    /// What is left; nothing where `other` is more.
    #[must_use]
    pub fn minus(&self, other: &Resources) -> Resources {
        Resources {
            cores: self.cores.saturating_sub(other.cores),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    /// As a person reads it: "8 cores, 1 GiB memory".
    pub fn human(&self) -> String {
        let cores = if self.cores == 1 { "1 core".into() } else { format!("{} cores", self.cores) };
        if self.memory == 0 {
            cores
        } else {
            format!("{cores}, {} memory", human_size(self.memory))
        }
    }
}

/// A size in the largest binary unit that keeps it exact, or with one decimal.
pub fn human_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1u64;
    while bytes / scale >= 1024 && unit + 1 < units.len() {
        scale *= 1024;
        unit += 1;
    }
    // By whole numbers: see `clock`.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    match bytes % scale {
        0 => format!("{} {}", bytes / scale, units[unit]),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, units[unit]),
    }
}

/// A number of bytes or a text such as "1 GiB".
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Bytes(u64),
        Text(String),
    }
    match Form::deserialize(from) {
        Ok(Form::Bytes(bytes)) => Some(bytes),
        Ok(Form::Text(text)) => parse_size(&text),
        Err(_) => None,
    }
    .ok_or_else(|| {
        de::Error::custom("memory must be a size such as \"1 GiB\" or a number of bytes")
    })
}
