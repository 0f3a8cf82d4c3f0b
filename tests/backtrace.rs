//! What a defect in a release program tells: to its owner where it was, to whoever asked that the
//! answer is none.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{TestRoot, feed};

/// `examples/panics.rs`, built like the release programs.
fn program() -> PathBuf {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--release", "--example", "panics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success());
    // Beside the directory of the programs that are tested: `target/…/debug/scheduler`.
    let tested = PathBuf::from(env!("CARGO_BIN_EXE_scheduler"));
    tested.parent().unwrap().parent().unwrap().join("release/examples/panics")
}

/// Where it was, and frames that only the program's own symbols name.
fn assert_backtrace(stderr: &str) {
    for part in ["index out of bounds", "panics.rs:", "panics::defect", "corkboard::cgi::run"] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[test]
fn a_panic_of_a_release_program_has_its_backtrace_and_an_answer() {
    let root = TestRoot::new("");
    let program = program();
    let command = || {
        let mut command = Command::new(&program);
        command.env_clear().env("CORKBOARD_ROOT", &root.dir).env("RUST_BACKTRACE", "1");
        command
    };
    let output = feed(command().arg("defect"), b"");
    assert_backtrace(&String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty() && !output.status.success(), "{output:?}");

    std::fs::write(root.dir.join("state/open"), "").unwrap();
    let output = feed(
        command()
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", "GET")
            .env("PATH_INFO", "/defect")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("HTTP_HOST", "localhost"),
        b"",
    );
    assert_backtrace(&String::from_utf8_lossy(&output.stderr));
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with("Status: 500 "), "{answer}");
    assert!(answer.contains("server's log") && !answer.contains("panics.rs"), "{answer}");
}
