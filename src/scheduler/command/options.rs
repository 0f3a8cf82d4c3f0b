//! What the options of `jobs new` ask for: the job's request.

use std::env;
use std::io::{self, IsTerminal};

use serde_json::{Map, Value, json};

use crate::cgi::Given;
use crate::cgi::body::Body;
use crate::cgi::program::COMMAND;
use crate::error::{Error, Result};

/// What a command is given to pass on: whole, since the job's request holds it.
pub(super) fn standard_input(most: u64) -> Result<String> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(Error::bad("--stdin: standard input is a terminal; give it as in < FILE"));
    }
    let bytes = Body::Stdin.bytes(most)?;
    String::from_utf8(bytes).map_err(|_| {
        Error::bad("--stdin: what a job reads is text (UTF-8); other data goes with --file")
    })
}

/// Names that belong to the shell or to the attempt, not to what is exported.
fn is_exported(name: &str) -> bool {
    !matches!(name, "_" | "PWD" | "OLDPWD" | "SHLVL") && !name.starts_with("CORKBOARD_")
}

/// Where this command was called.
pub(super) fn here() -> Result<String> {
    env::current_dir()
        .ok()
        .and_then(|dir| dir.into_os_string().into_string().ok())
        .ok_or_else(|| Error::bad("the current directory has no name; give --dir"))
}

/// What the options ask for, but for what is read.
pub(super) fn request(words: &Given) -> Result<Map<String, Value>> {
    let mut map = Map::new();
    let text = |name: &str| words.value(name).map(str::to_string);
    let number = |name: &str| -> Result<Option<Value>> {
        text(name)
            .map(|word| {
                word.parse::<i64>()
                    .map(Value::from)
                    .map_err(|_| Error::bad(format!("--{name}: {word:?} is not a whole number")))
            })
            .transpose()
    };
    map.insert("command".into(), json!(words.values(COMMAND)));
    for (option, field) in [
        ("dir", "dir"),
        ("name", "name"),
        ("timeout", "timeout"),
        ("grace", "max_termination_time"),
        ("retry-delay", "retry_delay"),
        ("expires", "expires"),
        ("request-id", "request_id"),
        ("output", "output"),
        ("array", "array"),
        ("share", "share"),
        ("partition", "partition"),
        ("placement", "placement"),
    ] {
        if let Some(value) = text(option) {
            map.insert(field.into(), value.into());
        }
    }
    for (option, field) in [("retries", "max_retry_count"), ("priority", "priority")] {
        if let Some(value) = number(option)? {
            map.insert(field.into(), value);
        }
    }
    let mut resources = Map::new();
    if let Some(cores) = number("cores")? {
        resources.insert("cores".into(), cores);
    }
    if let Some(memory) = text("memory") {
        resources.insert("memory".into(), memory.into());
    }
    if let Some(gpus) = number("gpus")? {
        resources.insert("gpus".into(), gpus);
    }
    for (name, amount) in pairs(words, "resource", "NAME=N")? {
        let amount = amount.parse::<u64>().map_or_else(|_| amount.into(), Value::from);
        resources.insert(name, amount);
    }
    let constraints = pairs(words, "constraint", "LABEL=V")?;
    let mut tests: Map<String, Value> = Map::new();
    for (label, value) in constraints {
        if tests.insert(label.clone(), value.into()).is_some() {
            return Err(Error::bad(format!("--constraint: {label} is given twice")));
        }
    }
    if !tests.is_empty() {
        map.insert("constraints".into(), Value::Object(tests));
    }
    for name in ["node", "exclude"] {
        let names = words.values(name);
        if !names.is_empty() {
            map.insert(name.into(), json!(names));
        }
    }
    if words.flag("strict") {
        map.insert("strict".into(), true.into());
    }
    if !resources.is_empty() {
        map.insert("requested_resources".into(), Value::Object(resources));
    }
    let mut environment = Map::new();
    if words.flag("export") {
        // Names and values that are no text cannot be written into a request.
        let texts = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        environment.extend(
            texts.filter(|(name, _)| is_exported(name)).map(|(name, value)| (name, value.into())),
        );
    }
    for (name, value) in pairs(words, "env", "NAME=VALUE")? {
        environment.insert(name, value.into());
    }
    if !environment.is_empty() {
        map.insert("environment".into(), Value::Object(environment));
    }
    if words.flag("held") {
        map.insert("state".into(), "held".into());
    }
    if words.flag("retry-lost") {
        map.insert("retry_lost".into(), true.into());
    }
    Ok(map)
}

/// What is given of an option as names with values.
fn pairs(words: &Given, option: &str, form: &str) -> Result<Vec<(String, String)>> {
    let pair = |pair: &&str| {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::bad(format!("--{option}: {pair:?} is not {form}")))?;
        Ok((name.to_string(), value.to_string()))
    };
    words.values(option).iter().map(pair).collect()
}
