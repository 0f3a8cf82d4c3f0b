//! The boards: the only code that knows paths, publishes, appends, moves, locks and numbers.
//!
//! - [`root`]: where a root is, and its tree with modes.
//! - [`files`]: the primitives, each with what a crash can leave behind; `story` appends, `sync_set`
//!   makes durable what is told together.
//! - [`lock`]: flock with a deadline.
//! - [`numbers`]: job numbers and the cluster's name.
//! - [`cards`]: the head's board, `state/scheduler`; `changes`: how its cards are stamped and moved.
//! - [`submission`] publishes one card, [`batches`] many at once (`batch_files`: their files).
//! - [`listing`]: which cards there are.
//! - [`audit`]: who changed what, and who was refused.
//! - [`attic`]: removing what need not be kept.
//! - [`leftovers`]: removing what lies beside the cards of jobs that are gone.
//! - [`walk`]: walks the board for `scheduler check`.
//! - `claims`: the request ids that clients chose.
//! - [`nodes`]: the node records of the head; [`addresses`]: where they lead.
//! - [`owners`]: whose a job is.
//! - [`places`]: how many requests stay at a time; [`waiting`]: how many jobs of a user wait.
//! - [`poller_lock`]: one poller at a time.
//! - [`runs`]: a node's board, `state/processor`.
//! - [`acceptance`]: how a job gets onto it.
//! - [`links`]: which processes its jobs have had. [`spoilt`]: what they have made of their own files.
//! - [`slots`]: what its supervisors have claimed, and the room they use.
//! - [`gpus`]: what was found out of this machine's GPUs.
//! - [`feed`]: a node's change feed; [`card_feed`]: the head's, written (`card_marks`: who is at it),
//!   [`card_news`]: read, [`card_tail`]: followed; `feed_file`: what both have in common.
//! - [`incoming`]: files that come with a request, as they arrive.
//! - [`steps`]: by how much the clock was put forward.
//! - [`unheard`]: attempts of which rounds from cron have heard nothing.
//! - [`uploads`]: those of a job, until it stopped.
//! - [`vault`]: `state/open`, tokens and secrets.
//! - [`head_contact`]: when it last heard of its head.
//! - [`worker_state`]: what a root keeps that is a worker. [`conf`]: settings that programs put there.
//! - [`watch`]: waiting for a change; `bell`: the same by a pipe.
//! - [`workers`]: what the head keeps of nodes that ask here; [`mail`]: their orders; [`say`]: what they answer;
//!   [`boxes`]: these as a check sees them.

pub mod acceptance;
pub mod addresses;
pub mod attic;
pub mod audit;
mod batch_files;
pub mod batches;
mod bell;
pub mod boxes;
pub mod card_feed;
mod card_marks;
pub mod card_news;
pub mod card_tail;
pub mod cards;
pub mod changes;
mod claims;
pub mod conf;
pub mod feed;
mod feed_file;
pub mod files;
pub mod gpus;
pub mod head_contact;
pub mod incoming;
pub mod leftovers;
pub mod links;
pub mod listing;
pub mod lock;
pub mod mail;
pub mod nodes;
pub mod numbers;
pub mod owners;
pub mod partitions;
pub mod pause;
pub mod places;
pub mod poller_lock;
pub mod progress;
pub mod reservations;
pub mod root;
pub mod runs;
pub mod say;
pub mod shares;
pub mod slots;
pub mod spoilt;
pub mod steps;
pub mod story;
pub mod submission;
pub mod sync_set;
pub mod unheard;
pub mod uploads;
pub mod vault;
pub mod waiting;
pub mod walk;
pub mod watch;
pub mod worker_state;
pub mod workers;
