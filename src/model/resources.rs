//! What a job asks for and what a node has: cores, memory, and whatever else can be counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::names::MOST_COUNTABLES;
pub use crate::names::check_countable;
use crate::settings::{parse_amount, parse_size};

/// The countable of which a job is given certain ones: see `CUDA_VISIBLE_DEVICES`.
pub const GPUS: &str = "gpus";

/// An amount of each resource. Job: what it is given; node: what it gives in all, or has free.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resources {
    /// Whole cores; a job has at least one.
    pub cores: u64,
    /// Bytes; a job that does not say is counted with none.
    pub memory: u64,
    /// All else that is counted, such as `gpus`.
    pub others: Others,
}

/// Amounts of countables by name, those of which there is more than none. Nothing costs nothing, and a
/// copy is the same one until it is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Others(Option<Arc<BTreeMap<Arc<str>, u64>>>);

impl Others {
    /// Of none anything.
    pub const NONE: Others = Others(None);

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many countables there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |all| all.len())
    }

    /// How much of a countable.
    pub fn get(&self, name: &str) -> u64 {
        self.0.as_ref().and_then(|all| all.get(name)).copied().unwrap_or(0)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, amount)| (name, *amount))
    }

    /// Whether of each there is no more than there.
    pub fn fit(&self, room: &Others) -> bool {
        self.iter().all(|(name, amount)| amount <= room.get(name))
    }

    /// Of each the less.
    #[must_use]
    pub fn least(&self, other: &Others) -> Others {
        let mut least = self.clone();
        for (name, amount) in self.iter().filter(|(name, amount)| other.get(name) < *amount) {
            least.set(name, amount.min(other.get(name)));
        }
        least
    }

    fn set(&mut self, name: &Arc<str>, amount: u64) {
        if amount > 0 {
            let all = self.0.get_or_insert_default();
            Arc::make_mut(all).insert(name.clone(), amount);
        } else if self.get(name) > 0
            && let Some(all) = &mut self.0
        {
            Arc::make_mut(all).remove(name);
            if all.is_empty() {
                self.0 = None;
            }
        }
    }
}

impl Default for Resources {
    fn default() -> Resources {
        Resources::of(1, 0)
    }
}

impl Resources {
    /// Nothing at all.
    pub const NONE: Resources = Resources::of(0, 0);

    /// Cores, and bytes of memory.
    pub const fn of(cores: u64, memory: u64) -> Resources {
        Resources { cores, memory, others: Others::NONE }
    }

    /// The same with so much of a countable.
    #[must_use]
    pub fn and(mut self, name: &str, amount: u64) -> Resources {
        self.others.set(&name.into(), amount);
        self
    }

    /// Whether a job that asks for this fits into `room`.
    pub fn fits(&self, room: &Resources) -> bool {
        self.cores <= room.cores && self.memory <= room.memory && self.others.fit(&room.others)
    }

    /// How often this fits into `room`.
    pub fn times_in(&self, room: &Resources) -> u64 {
        let memory = room.memory.checked_div(self.memory).unwrap_or(u64::MAX);
        let basic = (room.cores / self.cores.max(1)).min(memory);
        self.others.iter().map(|(name, each)| room.others.get(name) / each).fold(basic, u64::min)
    }

    /// Adds as much.
    pub fn add(&mut self, other: &Resources) {
        self.cores = self.cores.saturating_add(other.cores);
        self.memory = self.memory.saturating_add(other.memory);
        for (name, amount) in other.others.iter() {
            self.others.set(name, self.others.get(name).saturating_add(amount));
        }
    }

    /// Takes as much away; nothing is left where `other` is more.
    pub fn sub(&mut self, other: &Resources) {
        self.cores = self.cores.saturating_sub(other.cores);
        self.memory = self.memory.saturating_sub(other.memory);
        for (name, amount) in other.others.iter() {
            self.others.set(name, self.others.get(name).saturating_sub(amount));
        }
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Resources) -> Resources {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// What is left; nothing where `other` is more.
    #[must_use]
    pub fn minus(&self, other: &Resources) -> Resources {
        let mut left = self.clone();
        left.sub(other);
        left
    }

    /// As a person reads it: "8 cores, 1 GiB memory, 2 gpus".
    pub fn human(&self) -> String {
        let parts = self.parts();
        match self.cores {
            0 => [vec!["0 cores".into()], parts].concat().join(", "),
            _ => parts.join(", "),
        }
    }

    /// What there is more of than none, each as a person reads it.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        match self.cores {
            0 => {}
            1 => parts.push("1 core".into()),
            cores => parts.push(format!("{cores} cores")),
        }
        if self.memory > 0 {
            parts.push(format!("{} memory", human_size(self.memory)));
        }
        parts.extend(self.others.iter().map(|(name, amount)| match (&**name, amount) {
            (GPUS, 1) => "1 gpu".to_string(),
            _ => format!("{amount} {name}"),
        }));
        parts
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2 + self.others.len()))?;
        map.serialize_entry("cores", &self.cores)?;
        map.serialize_entry("memory", &self.memory)?;
        for (name, amount) in self.others.iter() {
            map.serialize_entry(&**name, &amount)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Resources, D::Error> {
        Resources::read(Map::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl Resources {
    /// Reads what a request, a record or a node says. One core, and no memory, where it does not.
    ///
    /// Errors: an amount that is none, or a name that names no countable.
    pub fn read(fields: Map<String, Value>) -> Result<Resources, String> {
        let mut read = Resources::default();
        for (name, value) in fields {
            match name.as_str() {
                "cores" => {
                    read.cores = whole(&name, &value)?;
                }
                "memory" => {
                    read.memory = amount(&value).ok_or_else(|| {
                        "memory must be a size such as \"1 GiB\" or a number of bytes".to_string()
                    })?;
                }
                _ => {
                    check_countable(&name)?;
                    let amount = countable(&value).ok_or_else(|| {
                        format!("{name} must be a whole number, or a size such as \"1 GiB\", not {value}")
                    })?;
                    read = read.and(&name, amount);
                }
            }
        }
        match read.others.len() {
            0..=MOST_COUNTABLES => Ok(read),
            _ => Err(format!("at most {MOST_COUNTABLES} countables can be named")),
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

/// A whole number, or a text such as "1 GiB".
fn amount(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_size(text),
        _ => None,
    }
}

/// A whole number.
pub(super) fn whole(name: &str, value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{name} must be a whole number, not {value}"))
}

/// The same of what is counted: no fraction of one.
fn countable(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => parse_amount(text),
        value => amount(value),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Resources, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let all =
            read(json!({"cores": 2, "memory": "1 GiB", "gpus": 1, "scratch": "2 KiB", "none": 0}));
        let all = all.unwrap();
        assert_eq!(all, Resources::of(2, 1 << 30).and("gpus", 1).and("scratch", 2048));
        assert_eq!(all.human(), "2 cores, 1 GiB memory, 1 gpu, 2048 scratch");
        let written = serde_json::to_value(&all).unwrap();
        assert_eq!(written, json!({"cores": 2, "memory": 1 << 30, "gpus": 1, "scratch": 2048}));
        assert_eq!(read(written).unwrap(), all);
        assert_eq!(read(json!({})).unwrap(), Resources::default());
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for (value, why) in [
            (json!({"gpus": -1}), "gpus must be a whole number"),
            (json!({"gpus": 1.5}), "gpus must be a whole number"),
            (json!({"gpus": "1.5"}), "gpus must be a whole number"),
            (json!({"licenses": "four"}), "licenses must be a whole number"),
            (json!({"licenses": null}), "licenses must be a whole number"),
            (json!({"cores": 1.5}), "cores must be a whole number, not 1.5"),
            (json!({"cores": "2"}), "cores must be a whole number, not \"2\""),
            (json!({"memory": -1}), "memory must be a size"),
            (json!({"memory": "1 XiB"}), "memory must be a size"),
            (json!({"Memory": 1}), "is no resource"),
            (json!({"": 1}), "is no resource"),
            (json!({"cpus": 1}), "is no resource"),
            (json!({"a b": 1}), "is no resource"),
        ] {
            let said = read(value.clone()).unwrap_err();
            assert!(said.contains(why), "{value}: {said}");
        }
        let many: Map<String, Value> = (0..17).map(|n| (format!("c{n}"), json!(1))).collect();
        assert!(Resources::read(many).unwrap_err().contains("at most 16"));
    }

    #[test]
    fn sums_and_differences() {
        let room = Resources::of(8, 100).and("gpus", 2);
        let job = Resources::of(2, 10).and("gpus", 1);
        assert!(job.fits(&room));
        assert_eq!(job.times_in(&room), 2);
        let left = room.minus(&job).minus(&job);
        assert_eq!(left, Resources::of(4, 80));
        assert!(!job.fits(&left));
        assert_eq!(left.plus(&job).plus(&job), room);
        assert!(!Resources::of(1, 0).and("licenses", 1).fits(&room));
    }
}
