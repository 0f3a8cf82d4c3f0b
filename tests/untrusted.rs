//! What fuzzing was given and found, read again: `scripts/fuzz` adds to it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use corkboard::untrusted::READERS;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[test]
fn whatever_was_kept_is_read() {
    for (name, read) in READERS {
        let all = corpus(name);
        assert!(all.len() >= 3, "{name}: {} inputs", all.len());
        for (path, bytes) in all {
            println!("{path}"); // the last is the one
            read(&bytes);
            // And cut off, and with a byte changed, anywhere.
            for at in 0..bytes.len().min(300) {
                read(&bytes[..at]);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                read(&changed);
            }
        }
    }
}

#[test]
fn each_reader_is_fuzzed() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let fuzzed = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let fuzzed: Vec<&str> = fuzzed.filter_map(|line| line.strip_suffix(".rs\"")).collect();
    let names: Vec<&str> = READERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(fuzzed, names);
}
