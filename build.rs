//! Leaves out of the release programs what only unwinding reads.
//!
//! They abort on a panic (`Cargo.toml`), yet rustc, its library and the C library all bring tables
//! that say how to unwind every function: a tenth of a program. What is lost is the backtrace of a
//! panic; its message and its place stay.

use std::path::Path;
use std::{env, fs, io};

/// Adds to what the linker does by itself. The C compiler's start files refer to their own tables.
const SCRIPT: &str = "\
SECTIONS {
    /DISCARD/ : {
        *(EXCLUDE_FILE(*crt*.o) .eh_frame)
        *(.gcc_except_table .gcc_except_table.*)
    }
}
INSERT AFTER .text;
";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // Tests unwind, and all other profiles are there to look into.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let out = env::var("OUT_DIR").map_err(io::Error::other)?;
        let script = Path::new(&out).join("no-unwinding.ld");
        fs::write(&script, SCRIPT)?;
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
    }
    Ok(())
}
