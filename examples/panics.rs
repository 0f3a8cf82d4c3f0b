//! A program of ours with a defect: what a panic tells, and whoever asked for it is told.
//!
//! Built like the others, and run by `tests/backtrace.rs`.

use corkboard::cgi::{self, Call, Method, Program, Response, Route};
use corkboard::error::Result;
use corkboard::model::access::{Need, Whose};

static PROGRAM: Program = Program {
    name: "panics",
    about: "ends by a defect",
    routes: &[Route {
        method: Method::Get,
        pattern: "defect",
        need: Need::Look,
        query: &[],
        body: false,
        help: "run into it",
        handler: answer,
    }],
    whose: |_| Ok(Whose::Own),
    stays: &[],
    specials: &[],
    aliases: &[],
    views: &[],
    briefs: &[],
    sections: &[],
};

fn answer(call: &Call) -> Result<Response> {
    let values = Vec::new();
    Ok(Response::text(format!("{}\n", defect(&values, call.request.path.len()))))
}

/// Looks for what is not there.
#[inline(never)]
fn defect(values: &[u64], index: usize) -> u64 {
    values[index]
}

fn main() {
    std::process::exit(cgi::run(&PROGRAM));
}
