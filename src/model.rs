//! What the state files mean: requests, cards, outcomes, nodes. Pure: nothing here does I/O.

pub mod admission;
pub mod attempt;
pub mod card;
pub mod change;
pub mod draft;
pub mod event;
pub mod fold;
pub mod ids;
pub mod job_tasks;
pub mod kill;
pub mod line;
pub mod log;
pub mod newer;
pub mod node;
pub mod outcome;
pub mod progress;
pub mod proof;
pub mod range;
pub mod report;
pub mod request;
pub mod resources;
pub mod retry;
pub mod run_status;
pub mod state;
pub mod tasks;
pub mod waits;
