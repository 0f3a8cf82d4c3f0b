//! What may use what: the code stands on floors, and a file reaches to those below its own alone. Two
//! files of one floor may use each other's names, but not in a circle.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lowest first; what shares a line stands side by side and may use each other.
const FLOORS: [&[&str]; 13] = [
    &[
        "clock",
        "descriptors",
        "edge",
        "error",
        "held",
        "names",
        "settings",
        "startup",
        "strategy",
        "user",
    ],
    &["model"],
    &["wire"],
    &["placement"],
    &["board"],
    &["client"],
    // The door asks who comes, and who comes is read from what stands at the door.
    &["auth", "cgi"],
    &["check", "tables", "tokens"],
    &["driver", "processor"],
    &["attempts"],
    &["nodemgr", "poller", "scheduler", "worker"],
    &["untrusted"],
    &["bin"],
];

/// Modules by their names, such as `board::cards`, with what they use.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn files(dir: &Path, found: &mut Vec<(String, String)>, src: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found, src);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(src).unwrap().with_extension("");
            let name = name.to_str().unwrap().replace('/', "::");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// All paths of a use tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d`, `a::c::e`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, group)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_string()];
    };
    let group = group.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(paths).map(|path| format!("{}{path}", before.trim())).collect()
}

/// The paths in the `use` lines of a file, but for its tests, and all others that begin at the root.
fn used(text: &str) -> Vec<String> {
    let text = text.split("\nmod tests {").next().unwrap();
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with("//") {
            continue;
        }
        let bare = line.strip_prefix("pub ").unwrap_or(line);
        let bare = bare.strip_prefix("pub(super) ").unwrap_or(bare);
        if let Some(tree) = bare.strip_prefix("use ") {
            let mut tree = tree.to_string();
            while !tree.ends_with(';') {
                tree.push_str(lines.next().unwrap().trim());
            }
            found.extend(paths(tree.trim_end_matches(';')));
        } else {
            let path = |rest: &str| {
                rest.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c))
                    .next()
                    .map(str::to_string)
            };
            let inline = line.match_indices("crate::").filter_map(|(at, _)| path(&line[at..]));
            found.extend(inline);
        }
    }
    found
}

fn uses() -> Uses {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all, &src);
    let names: BTreeSet<String> = all.iter().map(|(name, _)| name.clone()).collect();
    let mut uses = Uses::new();
    for (name, text) in &all {
        let mut found = BTreeSet::new();
        for path in used(text) {
            let mut from: Vec<&str> = name.split("::").collect();
            let mut parts: Vec<&str> = path.split("::").filter(|part| !part.is_empty()).collect();
            match parts.first().copied() {
                Some("crate" | "corkboard") => from.clear(),
                Some("self") => {}
                Some("super") => {
                    while parts.first() == Some(&"super") {
                        from.pop();
                        parts.remove(0);
                    }
                    parts.insert(0, "super");
                }
                _ => continue,
            }
            from.extend(&parts[1..]);
            // The longest beginning that is a file.
            let mut lengths = (1..=from.len()).rev();
            let file = lengths.find_map(|n| names.get(&from[..n].join("::")));
            found.extend(file.filter(|file| *file != name).cloned());
        }
        uses.insert(name.clone(), found);
    }
    uses
}

fn folder(name: &str) -> &str {
    name.split("::").next().unwrap()
}

#[test]
fn a_file_uses_what_stands_on_its_floor_or_below() {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&folder(name)));
    let mut wrong = Vec::new();
    for (name, used) in uses() {
        if name == "lib" {
            continue;
        }
        let own = floor(&name).unwrap_or_else(|| panic!("src/{name}.rs stands on no floor"));
        for other in used {
            let its = floor(&other).unwrap_or_else(|| panic!("src/{other}.rs stands on no floor"));
            if its > own {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether a file comes back to itself by what it uses within its floor.
fn is_in_a_circle(uses: &Uses, name: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![name]);
    while let Some(at) = next.pop() {
        for other in uses.get(at).into_iter().flatten() {
            if other == name {
                return true;
            }
            if seen.insert(other) {
                next.push(other);
            }
        }
    }
    false
}

#[test]
fn files_use_each_other_in_no_circle() {
    let uses = uses();
    let in_circles: Vec<_> = uses.keys().filter(|name| is_in_a_circle(&uses, name)).collect();
    assert!(in_circles.is_empty(), "these use each other in a circle: {in_circles:?}");
}

#[test]
fn the_uses_of_a_file_are_read_as_the_compiler_reads_them() {
    let text =
        "use super::a::{self, b::{C, D as E},\n    f};\n// crate::no\nfn x() { crate::g::h(1) }\n";
    let found = used(text);
    assert_eq!(
        found,
        ["super::a::self", "super::a::b::C", "super::a::b::D", "super::a::f", "crate::g::h"]
    );
}
