//! The poller: places jobs on nodes, takes in what nodes report, looks after what waits.
//!
//! What the engine knows, each with an invariant of its own:
//! - [`engine`]: all of it together.
//! - [`index`], [`on_node`]: what it knows of the board without looking: what waits, what nodes have.
//! - `roster`: the nodes: what is registered, and what was seen since.
//! - `rules`: the partitions, by whose rules jobs are placed.
//! - [`link`], `line`, `ear`, `desk`, `silent`, `backoff`, `lookups`: the line to one node: who listens to
//!   it, what is ordered of it, and finding out whether those that do not answer do now, and where
//!   those are that have a name.
//! - `lines`: the lines to all nodes.
//! - `presence`, `silence`: which nodes answer, and since when others have not.
//! - `outbox`: results of which nodes are to be told that they are safe.
//! - `strays`: runs of jobs whose cards cannot be read.
//! - `looks`: what looking at the board may spare.
//! - `doubts`: reports that do not count.
//! - [`gather`]: ends of tasks, recorded together.
//! - [`pace`]: how much may be sent ahead.
//! - `sweeps`, `beside`: whether what died on this machine is being recovered; other threads beside all
//!   else.
//! - `fairness`: what users have had.
//! - `reserved`: what was said of what nodes are kept for.
//! - `voice`: what it says, and what went wrong.
//! - `wake`: what wakes it.
//!
//! What it does:
//! - [`round`]: one round after another: wake-ups in, transitions and orders out.
//! - `hearing`, `scan`, `transitions`, `placing`, `dialogue`, `answers`, `membership`: what a round is
//!   made of: taking in what came, looking at the board, changing cards, placing them, talking to
//!   nodes, what they say of attempts, knowing which there are.
//! - `unsure`, `killing`: what a node may have and would not have; what is to end there.
//! - `belief`: which of a node's reports count.
//! - `reserving`: keeps nodes for the first jobs that fit nowhere, and says so.
//! - `sharing`: counts what users have had, and writes it down.
//! - `sweeping`: has recovered what died on this machine.
//! - `orphans`: attempts of jobs whose cards cannot be read.
//! - [`notice`]: wake-ups from the board's directories and from signals.
//! - [`step`]: shows transitions before they are made.
//! - [`cleanup`]: what the head's board keeps, and for how long.
//! - [`program`]: the program's options; one at work, others standing by.

mod answers;
mod backoff;
mod belief;
mod beside;
pub mod cleanup;
mod desk;
mod dialogue;
mod doubts;
mod ear;
pub mod engine;
mod fairness;
pub mod gather;
mod hearing;
pub mod index;
mod killing;
mod line;
mod lines;
pub mod link;
mod looks;
mod lookups;
mod membership;
pub mod notice;
pub mod on_node;
mod orphans;
mod outbox;
pub mod pace;
mod placing;
mod presence;
pub mod program;
mod reserved;
mod reserving;
mod roster;
pub mod round;
mod rules;
mod scan;
mod sharing;
mod silence;
mod silent;
pub mod step;
mod strays;
mod sweeping;
mod sweeps;
mod transitions;
mod unfetched;
mod unsure;
mod voice;
pub mod wake;
