//! `requested_resources` of a request, by our names and by Banyan's.

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use super::resources::{GPUS, Resources, whole};
use super::selector::Selector;

/// The label of a node that says how much memory each of its GPUs has, in bytes.
pub const GPU_MEMORY: &str = "gpu_memory";

/// The label of a node that says what its GPUs can do: their compute capability, such as 8.6.
pub const GPU_CAPABILITY: &str = "gpu_compute_capability";

/// Banyan's names of amounts, each with ours.
const AMOUNTS: &[(&str, &str)] = &[("cpu_memory_bytes", "memory"), ("gpu_count", GPUS)];

/// The amount that a name means: one and the same for all of whose values there can be but one.
pub fn meaning(name: &str) -> &str {
    match name {
        "cpu_cores" => "cores",
        "gpu_compute_capability_minor" => "gpu_compute_capability_major",
        _ => AMOUNTS.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours),
    }
}

/// What a job asks for: amounts, and what a node must be like to have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// How much of each.
    pub resources: Resources,
    /// What is asked of GPUs.
    pub selector: Selector,
}

impl<'de> Deserialize<'de> for Requested {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Requested, D::Error> {
        Requested::read(Map::deserialize(from)?).map_err(de::Error::custom)
    }
}

impl Requested {
    fn read(mut fields: Map<String, Value>) -> Result<Requested, String> {
        for (theirs, ours) in AMOUNTS {
            if let Some(value) = fields.shift_remove(*theirs) {
                rename(&mut fields, theirs, ours, value)?;
            }
        }
        if let Some(value) = fields.shift_remove("cpu_cores") {
            let count = cores(&value)?;
            rename(&mut fields, "cpu_cores", "cores", count)?;
        }
        let mut selector = Selector::default();
        if let Some(value) = fields.shift_remove("gpu_memory_bytes") {
            let bytes = whole("gpu_memory_bytes", &value)?;
            selector.at_least(GPU_MEMORY, u128::from(bytes) * 1000);
        }
        let major = fields.shift_remove("gpu_compute_capability_major");
        let minor = fields.shift_remove("gpu_compute_capability_minor");
        if let Some(major) = major {
            let minor =
                minor.map_or(Ok(0), |minor| whole("gpu_compute_capability_minor", &minor))?;
            let major = whole("gpu_compute_capability_major", &major)?;
            selector.at_least(
                GPU_CAPABILITY,
                u128::from(major) * 1000 + u128::from(minor.min(9)) * 100,
            );
        } else if minor.is_some() {
            return Err("gpu_compute_capability_minor needs gpu_compute_capability_major".into());
        }
        Ok(Requested { resources: Resources::read(fields)?, selector })
    }
}

fn rename(
    fields: &mut Map<String, Value>,
    theirs: &str,
    ours: &str,
    value: Value,
) -> Result<(), String> {
    match fields.insert(ours.into(), value) {
        None => Ok(()),
        Some(_) => Err(format!("give {ours} or {theirs}, not both")),
    }
}

/// Banyan's `{"count": 4, "percent": 50}`: how many, and how much of each. Cores are given whole, so the
/// share of each is what the job means to use of them, and is not divided.
fn cores(value: &Value) -> Result<Value, String> {
    let wrong =
        || format!("cpu_cores must be {{\"count\": CORES, \"percent\": 1 to 100}}, not {value}");
    let fields = value.as_object().ok_or_else(wrong)?;
    if fields.keys().any(|key| key != "count" && key != "percent") {
        return Err(wrong());
    }
    let percent = fields.get("percent").map_or(Some(100), Value::as_u64);
    if !percent.is_some_and(|percent| (1..=100).contains(&percent)) {
        return Err(wrong());
    }
    fields.get("count").filter(|count| count.is_u64()).cloned().ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::selector::Labels;
    use serde_json::json;

    fn read(value: Value) -> Result<Requested, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn banyans_names_mean_ours() {
        let theirs =
            read(json!({"cpu_memory_bytes": 4096, "cpu_cores": {"count": 2, "percent": 50},
            "gpu_count": 1, "gpu_memory_bytes": 1024, "gpu_compute_capability_major": 8,
            "gpu_compute_capability_minor": 6}));
        let theirs = theirs.unwrap();
        assert_eq!(theirs.resources, Resources::of(2, 4096).and(GPUS, 1));
        let node = |memory: &str, capability: &str| -> Labels {
            let labels = [(GPU_MEMORY, memory), (GPU_CAPABILITY, capability)];
            labels.map(|(label, value)| (label.to_string(), value.to_string())).into()
        };
        assert!(theirs.selector.takes("n", &node("1024", "8.6")));
        assert!(theirs.selector.takes("n", &node("2048", "12.0")));
        assert!(!theirs.selector.takes("n", &node("1023", "8.6")));
        assert!(!theirs.selector.takes("n", &node("1024", "8.5")));
        assert!(!theirs.selector.takes("n", &Labels::new()));
        let ours = read(json!({"cores": 2, "memory": "4 KiB", "gpus": 1})).unwrap();
        assert_eq!(ours.resources, theirs.resources);
    }

    #[test]
    fn what_says_a_thing_twice_or_wrong_is_refused() {
        for (value, why) in [
            (json!({"memory": 1, "cpu_memory_bytes": 1}), "give memory or cpu_memory_bytes"),
            (json!({"cores": 1, "cpu_cores": {"count": 1}}), "give cores or cpu_cores"),
            (json!({"cpu_cores": 2}), "cpu_cores must be"),
            (json!({"cpu_cores": {"count": 1, "percent": 0}}), "cpu_cores must be"),
            (json!({"cpu_cores": {"count": 1, "per": 0}}), "cpu_cores must be"),
            (json!({"gpu_count": -1}), "gpus must be"),
            (json!({"gpu_memory_bytes": "1 GiB"}), "gpu_memory_bytes must be"),
            (json!({"gpu_compute_capability_minor": 1}), "needs gpu_compute_capability_major"),
        ] {
            let said = read(value.clone()).unwrap_err();
            assert!(said.contains(why), "{value}: {said}");
        }
    }
}
