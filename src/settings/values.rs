//! Values of settings, and of words like them: lists, sizes, addresses.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::names::{MOST_COUNTABLES, MOST_LABELS, check_countable, check_label, check_value};

/// Reads `name=value, name=value`, each name once.
fn pairs<'t>(list: &'t str, example: &str) -> Result<Vec<(&'t str, &'t str)>> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Error::bad(format!("\"{pair}\" is not name=value: it is a list such as {example}"))
        })?;
        let (name, value) = (name.trim(), value.trim());
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(Error::bad(format!("{name} is listed twice")));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// How much there is of what is counted: `licenses=4, scratch=200 GiB`.
pub(super) fn countables(list: &str) -> Result<BTreeMap<String, u64>> {
    let mut read = BTreeMap::new();
    for (name, value) in pairs(list, "licenses=4, scratch=200 GiB")? {
        if ["cores", "memory", "gpus"].contains(&name) {
            return Err(Error::bad(format!("countables: {name} has a setting of its own")));
        }
        check_countable(name).map_err(|why| Error::bad(format!("countables: {why}")))?;
        let wrong = || {
            Error::bad(format!(
                "countables: {name}: \"{value}\" is not a whole number, or a size such as 200 GiB"
            ))
        };
        read.insert(name.to_string(), parse_amount(value).ok_or_else(wrong)?);
    }
    match read.len() {
        0..MOST_COUNTABLES => Ok(read), // and gpus
        _ => Err(Error::bad(format!("countables: fewer than {MOST_COUNTABLES} can be named"))),
    }
}

/// What a node is like: `disk=ssd, zone=b`.
pub(super) fn labels(list: &str) -> Result<BTreeMap<String, String>> {
    let mut read = BTreeMap::new();
    for (label, value) in pairs(list, "disk=ssd, zone=b")? {
        let checked = check_label(label).and_then(|()| check_value(label, value));
        checked.map_err(|why| Error::bad(format!("labels: {why}")))?;
        read.insert(label.to_string(), value.to_string());
    }
    // Some are left to what the machine says of itself.
    match read.len() * 2 {
        0..=MOST_LABELS => Ok(read),
        _ => Err(Error::bad(format!("labels: at most {} can be set", MOST_LABELS / 2))),
    }
}

/// Whether a text begins as the URL of some server does.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split('/').next()).filter(|_| !text.contains(' '));
    host.is_some_and(|host| match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        _ => !host.is_empty(),
    })
}

/// Reads an amount of what is counted: a whole number, or a size. There is no half of a licence.
pub fn parse_amount(text: &str) -> Option<u64> {
    let has_unit = text.bytes().any(|byte| byte.is_ascii_alphabetic());
    parse_size(text).filter(|_| has_unit || !text.contains('.'))
}

/// Reads a size: a number of bytes, or "64 KiB", "1 GiB", "10 MB". "1G" is 1 GiB, as in `ls -h`.
pub fn parse_size(text: &str) -> Option<u64> {
    parse_size::Config::new().with_binary().parse_size(text).ok()
}
