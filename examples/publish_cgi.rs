//! A CGI program that publishes its body as one file and answers: the floor of a durable request.
//!
//! The file is prepared in `tmp/` of `BENCH_DIR`, synced, renamed into `queue/` without replacing,
//! and the directory is synced: what any program must do that says "accepted" and means it.

use std::io::{Read, Write};
use std::path::PathBuf;

use corkboard::board::files;
use corkboard::error::{At, Error, Result};

fn main() {
    let answer = match publish() {
        Ok(name) => format!("Status: 201 Created\r\nContent-Type: text/plain\r\n\r\n{name}\n"),
        Err(error) => {
            let message = error.message;
            format!("Status: 500 Error\r\nContent-Type: text/plain\r\n\r\n{message}\n")
        }
    };
    let _ = std::io::stdout().write_all(answer.as_bytes()); // nobody is left to be told
}

fn publish() -> Result<String> {
    let dir = std::env::var_os("BENCH_DIR").ok_or_else(|| Error::bad("BENCH_DIR is not set"))?;
    let dir = PathBuf::from(dir);
    let length = std::env::var("CONTENT_LENGTH").ok().and_then(|text| text.parse().ok());
    let mut body = Vec::new();
    std::io::stdin().take(length.unwrap_or(0)).read_to_end(&mut body).at("standard input")?;
    let name = files::random_name()?;
    files::publish(&dir.join("tmp"), &dir.join("queue").join(&name), &body, false)?;
    Ok(name)
}
