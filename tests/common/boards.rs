//! The trees of released layouts that lie in `tests/boards`, brought into roots of tests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::TestRoot;

/// What those trees say where the node is: as long as any other port that a test has.
const PORT: &str = "127.0.0.1:54321";

/// Where the trees of this layout lie.
fn kept(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/boards").join(layout)
}

/// What the programs of that layout said of its trees.
pub fn answers(layout: &str) -> Value {
    let text = fs::read_to_string(kept(layout).join("answers.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Brings the tree of this name into a root: modes, second names and links as they were. With a
/// port the node that it knows is there.
pub fn restore(layout: &str, tree: &str, root: &TestRoot, port: Option<u16>) {
    let kept = kept(layout);
    let place = |name: &str| {
        let (found, rest) = name.split_once('/').unwrap();
        (found == tree).then(|| root.path(rest))
    };
    copy(&kept.join(tree), &root.dir, port);
    let manifest = fs::read_to_string(kept.join("manifest")).unwrap();
    for line in manifest.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let Some(path) = place(words[0]) else { continue };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match words[1..] {
            ["=", first] => fs::hard_link(place(first).unwrap(), path).unwrap(),
            ["->", target] => symlink(target, path).unwrap(),
            [mode] => mode_of(&path, u32::from_str_radix(mode, 8).unwrap()),
            _ => panic!("{line}"),
        }
    }
}

fn mode_of(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(from: &Path, to: &Path, port: Option<u16>) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir_all(&to).unwrap();
            let secret = ["tokens", "secrets", "nodes"].iter().any(|name| to.ends_with(name));
            mode_of(&to, if secret { 0o700 } else { 0o750 });
            copy(&from, &to, port);
            continue;
        }
        let mut bytes = fs::read(&from).unwrap();
        if let (Some(port), Ok(text)) = (port, std::str::from_utf8(&bytes)) {
            bytes = text.replace(PORT, &format!("127.0.0.1:{port}")).into_bytes();
        }
        fs::write(&to, bytes).unwrap();
        mode_of(&to, 0o640);
    }
}
