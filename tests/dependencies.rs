//! What the programs are built from has its reason: each crate of `Cargo.lock` has a row in
//! `docs/decisions.md`, and each that `Cargo.toml` names a comment that says what it is for.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// A crate by its name and its version.
type Crate = (String, String);

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The crates of `Cargo.lock`.
fn locked() -> BTreeSet<Crate> {
    let lock = text("Cargo.lock");
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|quoted| quoted.trim_matches('"').to_string())
    };
    let blocks = lock.split("[[package]]").skip(1);
    // Members of the workspace have no source.
    let foreign = blocks.filter(|block| value(block, "source").is_some());
    foreign.filter_map(|block| Some((value(block, "name")?, value(block, "version")?))).collect()
}

/// The crates that are built for this machine, those of build scripts and macros with them.
fn built() -> BTreeSet<Crate> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.strip_prefix('v')?.to_string()))
    };
    let all = lines.lines().filter_map(of_line);
    all.filter(|(name, _)| name != env!("CARGO_PKG_NAME")).collect()
}

/// The crates that the rows of a section name in their first column: `` | `name` 1.2, `other` 3 | ``.
fn named(page: &str, heading: &str) -> Vec<Crate> {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let section = &page[start + heading.len() + 2..];
    let section = section.find("\n#").map_or(section, |end| &section[..end]);
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let crates = cells.flat_map(|cell| cell.split(", "));
    let parsed = crates.map(|one| {
        let (name, version) = one.split_once("` ").unwrap_or_else(|| panic!("{one:?}"));
        (name.trim_start_matches('`').to_string(), version.trim().to_string())
    });
    parsed.collect()
}

/// Whether a row means this crate: its version may leave out the last numbers.
fn means(row: &Crate, locked: &Crate) -> bool {
    let rest = locked.1.strip_prefix(&row.1);
    row.0 == locked.0 && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+']))
}

/// Each of `crates` is meant by one of `rows`, and each row means one of them.
fn compare(crates: &BTreeSet<Crate>, rows: &[Crate], wrong: &mut Vec<String>) {
    for one in crates {
        match rows.iter().filter(|row| means(row, one)).count() {
            1 => {}
            count => wrong.push(format!("{} {} has {count} rows", one.0, one.1)),
        }
    }
    for row in rows.iter().filter(|row| !crates.iter().any(|one| means(row, one))) {
        wrong.push(format!("{} {} has a row and is not used", row.0, row.1));
    }
}

#[test]
fn every_crate_has_its_reason() {
    let page = text("docs/decisions.md");
    let (locked, built) = (locked(), built());
    assert!(!built.is_empty() && built.is_subset(&locked), "{built:?}");
    let ours = named(&page, "### What is used");
    let mut rows = ours.clone();
    rows.extend(named(&page, "### What comes with that"));
    let mut wrong = Vec::new();
    compare(&built, &rows, &mut wrong);
    let others: BTreeSet<Crate> = locked.difference(&built).cloned().collect();
    compare(&others, &named(&page, "### What other systems would need"), &mut wrong);
    assert!(wrong.is_empty(), "docs/decisions.md: {wrong:#?}");

    let manifest = text("Cargo.toml");
    let lines: Vec<&str> = manifest.lines().collect();
    let first = lines.iter().position(|line| *line == "[dependencies]").unwrap() + 1;
    let section = &lines[first..];
    let end = section.iter().position(|line| line.starts_with('[')).unwrap_or(section.len());
    let mut used = BTreeSet::new();
    for (index, line) in section[..end].iter().enumerate() {
        let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        assert!(index > 0 && section[index - 1].starts_with("# "), "{name}: what is it for?");
        used.insert(name.to_string());
    }
    let ours: BTreeSet<String> = ours.into_iter().map(|(name, _)| name).collect();
    assert_eq!(used, ours, "Cargo.toml, docs/decisions.md");
}
