//! What things may be called: whatever has a file of its name, labels, countables.

/// Whether a text may be an id or a name: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`. Such a text is a
/// safe file name: no slash, no leading dot or dash, no blank, no control byte.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// Longest name, and longest value, of a label.
const LONGEST_LABEL: usize = 100;

/// Most labels that a node may have, or a request name.
pub const MOST_LABELS: usize = 64;

/// Longest name of a countable.
const LONGEST_COUNTABLE: usize = 40;

/// Most countables that are named at once.
pub const MOST_COUNTABLES: usize = 16;

/// Words that mean something else, or will, and name no countable.
const RESERVED: &[&str] = &["per", "nodes", "processes", "core", "cpus", "gpu"];

/// Refuses what cannot be the name of a label.
pub fn check_label(label: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let begins = label.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && label.chars().all(good) && label.len() <= LONGEST_LABEL {
        return Ok(());
    }
    let shown: String = label.chars().take(LONGEST_LABEL + 1).collect();
    Err(format!(
        "{shown:?} cannot be a label: 1 to {LONGEST_LABEL} of A-Z a-z 0-9 . _ / - beginning with a letter or digit"
    ))
}

/// Refuses what cannot be the value of a label.
pub fn check_value(label: &str, value: &str) -> Result<(), String> {
    if value.len() <= LONGEST_LABEL && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!(
        "label {label}: its value must have at most {LONGEST_LABEL} bytes, none of them a control character"
    ))
}

/// Refuses what cannot be the name of a countable.
pub fn check_countable(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_one = begins && name.chars().all(good) && name.len() <= LONGEST_COUNTABLE;
    if is_one && !RESERVED.contains(&name) {
        return Ok(());
    }
    let shown: String = name.chars().take(LONGEST_COUNTABLE + 1).collect();
    Err(format!(
        "{shown:?} is no resource: cores, memory, gpus, or another countable, named by a-z 0-9 _ beginning with a letter"
    ))
}
