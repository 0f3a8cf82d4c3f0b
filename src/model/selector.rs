//! Which nodes a job, or a partition, may use: by their labels and their names.
//!
//! In JSON: `{"arch": "x86_64", "disk": {"in": ["ssd", "nvme"]}, "zone": {"not": "b"},
//! "fast": {"exists": true}, "gpu_memory": {"at_least": "8 GiB"}}`. All tests have to hold. A label that
//! a node has not got equals nothing: only `not`, and `exists: false`, hold there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::ids;
pub use crate::names::{MOST_LABELS, check_label, check_value};
use crate::settings::parse_size;

/// Labels of a node: names with values.
pub type Labels = BTreeMap<String, String>;

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    /// It is one of these.
    In(BTreeSet<String>),
    /// It is none of these.
    Not(BTreeSet<String>),
    /// It is there, or is not.
    Exists(bool),
    /// It is a number, or a size, and no less than this, in thousandths.
    AtLeast(u128),
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::Not(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists(there) => value.is_some() == *there,
            Test::AtLeast(least) => value.and_then(thousandths).is_some_and(|size| size >= *least),
        }
    }
}

/// What is asked of nodes; by itself it asks for nothing, and every node will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    labels: BTreeMap<String, Vec<Test>>,
    /// If they are named: it is one of these.
    names: Option<BTreeSet<String>>,
    exclude: BTreeSet<String>,
}

impl Selector {
    /// Reads tests of labels.
    ///
    /// Errors: what is no test, in words for whoever wrote it.
    pub fn of_labels(tests: &Map<String, Value>) -> Result<Selector, String> {
        let mut selector = Selector::default();
        if tests.len() > MOST_LABELS {
            return Err(format!("at most {MOST_LABELS} labels can be named"));
        }
        for (label, tests) in tests {
            check_label(label)?;
            selector.labels.insert(label.clone(), read_tests(label, tests)?);
        }
        Ok(selector)
    }

    /// Adds that a label be a number, and no less than so many thousandths.
    pub fn at_least(&mut self, label: &str, thousandths: u128) {
        self.labels.entry(label.to_string()).or_default().push(Test::AtLeast(thousandths));
    }

    /// Adds all that another one asks.
    pub fn and(&mut self, other: &Selector) {
        for (label, tests) in &other.labels {
            self.labels.entry(label.clone()).or_default().extend(tests.iter().cloned());
        }
        if let Some(names) = &other.names {
            self.name_only(names.clone());
        }
        self.exclude.extend(other.exclude.iter().cloned());
    }

    /// Adds names of nodes: a text, or a list of texts.
    ///
    /// Errors: what is neither, and what names no node.
    pub fn only(&mut self, names: &Value) -> Result<(), String> {
        let names = read_names("node", names)?;
        if names.is_empty() {
            return Err("node must name a node".into());
        }
        self.name_only(names);
        Ok(())
    }

    fn name_only(&mut self, mut names: BTreeSet<String>) {
        if let Some(before) = &self.names {
            names.retain(|name| before.contains(name));
        }
        self.names = Some(names);
    }

    /// Adds names of nodes that are not to be used.
    pub fn except(&mut self, names: &Value) -> Result<(), String> {
        self.exclude.extend(read_names("exclude", names)?);
        Ok(())
    }

    /// Whether every node will do.
    pub fn is_any(&self) -> bool {
        *self == Selector::default()
    }

    /// Whether a node of this name with these labels will do.
    pub fn takes(&self, name: &str, labels: &Labels) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(name))
            && !self.exclude.contains(name)
            && self.labels.iter().all(|(label, tests)| {
                let value = labels.get(label).map(String::as_str);
                tests.iter().all(|test| test.holds(value))
            })
    }

    /// Why such a node will not do, for a person; nothing where it does.
    pub fn objection(&self, name: &str, labels: &Labels) -> Option<String> {
        if self.names.as_ref().is_some_and(|names| !names.contains(name)) {
            return Some("it is not the node that is asked for".into());
        }
        if self.exclude.contains(name) {
            return Some("excluded".into());
        }
        let failed = self.labels.iter().find(|(label, tests)| {
            let value = labels.get(*label).map(String::as_str);
            tests.iter().any(|test| !test.holds(value))
        });
        failed.map(|(label, _)| match labels.get(label) {
            Some(value) => format!("label {label} is {value}"),
            None => format!("it has no label {label}"),
        })
    }

    /// As a person reads it: "node a or b, label arch = x86_64, label zone not b".
    pub fn human(&self) -> String {
        let join = |values: &BTreeSet<String>| {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            values.join(" or ")
        };
        let mut parts = Vec::new();
        match &self.names {
            Some(names) if names.is_empty() => parts.push("no node".into()),
            Some(names) => parts.push(format!("node {}", join(names))),
            None => {}
        }
        if !self.exclude.is_empty() {
            parts.push(format!("not node {}", join(&self.exclude)));
        }
        for (label, tests) in &self.labels {
            parts.extend(tests.iter().map(|test| match test {
                Test::In(values) => format!("label {label} = {}", join(values)),
                Test::Not(values) => format!("label {label} not {}", join(values)),
                Test::Exists(true) => format!("label {label}"),
                Test::Exists(false) => format!("no label {label}"),
                Test::AtLeast(least) if least % 1000 == 0 => {
                    format!("label {label} at least {}", least / 1000)
                }
                Test::AtLeast(least) => {
                    let text = format!("{}.{:03}", least / 1000, least % 1000);
                    format!("label {label} at least {}", text.trim_end_matches('0'))
                }
            }));
        }
        parts.join(", ")
    }
}

fn read_tests(label: &str, tests: &Value) -> Result<Vec<Test>, String> {
    let Value::Object(tests) = tests else {
        return Ok(vec![Test::In(BTreeSet::from([text(label, tests)?]))]);
    };
    if tests.is_empty() {
        return Err(format!("label {label}: nothing is asked of it"));
    }
    let mut read = Vec::new();
    for (operator, operand) in tests {
        read.push(match operator.as_str() {
            "in" => Test::In(texts(label, operand)?),
            "not" => Test::Not(texts(label, operand)?),
            "exists" => match operand {
                Value::Bool(there) => Test::Exists(*there),
                _ => return Err(format!("label {label}: exists must be true or false")),
            },
            "at_least" => {
                let least = match operand {
                    Value::Number(number) => thousandths(&number.to_string()),
                    Value::String(text) => thousandths(text),
                    _ => None,
                };
                let wrong = || format!("label {label}: at_least must be a number or a size, not {operand}");
                Test::AtLeast(least.ok_or_else(wrong)?)
            }
            _ => {
                return Err(format!(
                    "label {label}: there is no operator {operator:?}; known are in, not, exists, at_least"
                ));
            }
        });
    }
    Ok(read)
}

/// A value of a label; numbers and switches are as they are written.
fn text(label: &str, value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(switch) => switch.to_string(),
        _ => {
            return Err(format!(
                "label {label} must be a text, or tests such as {{\"in\": [\"a\", \"b\"]}}, not {value}"
            ));
        }
    };
    check_value(label, &text)?;
    Ok(text)
}

fn texts(label: &str, values: &Value) -> Result<BTreeSet<String>, String> {
    match values {
        Value::Array(values) if values.is_empty() => {
            Err(format!("label {label}: the list is empty"))
        }
        Value::Array(values) => values.iter().map(|value| text(label, value)).collect(),
        value => Ok(BTreeSet::from([text(label, value)?])),
    }
}

/// A number with at most three decimals, or a size such as "1 GiB".
fn thousandths(text: &str) -> Option<u128> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && digits(whole) && digits(decimals) && decimals.len() <= 3 {
        let whole: u64 = whole.parse().ok()?;
        let decimals: u64 = format!("{decimals:0<3}").parse().ok()?;
        return Some(u128::from(whole) * 1000 + u128::from(decimals));
    }
    parse_size(text).map(|size| u128::from(size) * 1000)
}

fn read_names(field: &str, names: &Value) -> Result<BTreeSet<String>, String> {
    let name = |value: &Value| match value.as_str().filter(|name| ids::is_valid(name)) {
        Some(name) => Ok(name.to_string()),
        None => Err(format!("{field} must be the name of a node, or a list of names, not {value}")),
    };
    match names {
        Value::Array(names) => names.iter().map(name).collect(),
        value => Ok(BTreeSet::from([name(value)?])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(tests: Value) -> Result<Selector, String> {
        Selector::of_labels(tests.as_object().unwrap())
    }

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect()
    }

    #[test]
    fn every_test_holds_where_it_should_and_nowhere_else() {
        let here = labels(&[
            ("arch", "x86_64"),
            ("disk", "ssd"),
            ("cores", "8"),
            ("mem", "16 GiB"),
            ("ability", "8.6"),
        ]);
        for (tests, holds) in [
            (json!({}), true),
            (json!({"arch": "x86_64"}), true),
            (json!({"arch": "arm64"}), false),
            (json!({"zone": "b"}), false),
            (json!({"disk": {"in": ["ssd", "nvme"]}}), true),
            (json!({"disk": {"in": ["hdd"]}}), false),
            (json!({"disk": {"not": "hdd"}}), true),
            (json!({"disk": {"not": ["hdd", "ssd"]}}), false),
            (json!({"zone": {"not": "b"}}), true),
            (json!({"disk": {"exists": true}}), true),
            (json!({"zone": {"exists": true}}), false),
            (json!({"zone": {"exists": false}}), true),
            (json!({"cores": 8}), true),
            (json!({"cores": {"at_least": 8}}), true),
            (json!({"cores": {"at_least": 9}}), false),
            (json!({"mem": {"at_least": "16 GiB"}}), true),
            (json!({"arch": {"at_least": 1}}), false),
            (json!({"ability": {"at_least": 8.6}}), true),
            (json!({"ability": {"at_least": 8.61}}), false),
            (json!({"ability": {"at_least": "8.5"}}), true),
            (json!({"disk": {"in": ["ssd"], "not": "ssd"}}), false),
        ] {
            let selector = read(tests.clone()).unwrap();
            assert_eq!(selector.takes("n", &here), holds, "{tests}");
            assert_eq!(selector.objection("n", &here).is_none(), holds, "{tests}");
        }
    }

    #[test]
    fn nodes_by_name() {
        let mut only = Selector::default();
        only.only(&json!("a")).unwrap();
        assert!(only.takes("a", &Labels::new()) && !only.takes("b", &Labels::new()));
        let mut except = Selector::default();
        except.except(&json!(["a", "b"])).unwrap();
        assert!(!except.takes("a", &Labels::new()) && except.takes("c", &Labels::new()));
        assert_eq!(except.objection("b", &Labels::new()).unwrap(), "excluded");
        assert_eq!(except.human(), "not node a or b");
        let mut both = Selector::default();
        both.only(&json!(["a", "b"])).unwrap();
        both.and(&except);
        assert!(!both.takes("a", &Labels::new()) && !both.takes("c", &Labels::new()));
        both.and(&only);
        assert_eq!(both.human(), "node a, not node a or b");
        let mut other = Selector::default();
        other.only(&json!("b")).unwrap();
        other.and(&only);
        assert!(!other.takes("a", &Labels::new()) && !other.takes("b", &Labels::new()));
        assert_eq!(other.human(), "no node");
        assert!(only.only(&json!(["../x"])).is_err() && only.only(&json!([])).is_err());
        assert!(only.except(&json!(3)).is_err());
    }

    #[test]
    fn what_is_no_test_is_refused() {
        for (tests, why) in [
            (json!({"disk": {"like": "s%"}}), "no operator \"like\""),
            (json!({"disk": {}}), "nothing is asked"),
            (json!({"disk": {"in": []}}), "the list is empty"),
            (json!({"disk": null}), "must be a text"),
            (json!({"disk": ["ssd"]}), "must be a text"),
            (json!({"disk": {"exists": "yes"}}), "true or false"),
            (json!({"disk": {"at_least": -1}}), "a number or a size"),
            (json!({"a b": 1}), "cannot be a label"),
            (json!({"disk": "a\nb"}), "control character"),
        ] {
            let said = read(tests.clone()).unwrap_err();
            assert!(said.contains(why), "{tests}: {said}");
        }
    }
}
