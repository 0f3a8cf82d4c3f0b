//! What travels between a head and a node: of each exchange what is asked and what is answered, how it is
//! written beside how it is read. Both sides use this, and nothing else makes or takes apart what goes
//! from one to the other. Pure.
//!
//! | exchange | asked | answered |
//! |---|---|---|
//! | to run jobs | [`run::Requests`] | [`run::Accepted`] for one, [`run::Many`] of [`run::Entry`] for many |
//! | where jobs are | [`status::Statuses`] | a list of [`status::Entry`] |
//! | what changed | [`feed::Since`] | [`feed::FeedPage`] |
//! | to kill, or to forbid | [`kill::Kill`] | a [`RunStatus`](crate::model::run_status::RunStatus) |
//! | results are safe | [`ack::Ack`] | [`ack::Acknowledged`] |
//! | which jobs there are | [`list::List`] | [`list::lines`] of ids |
//! | what the node has | [`node::INFO`] | [`node::Node`], of which a head reads [`node::Info`] |
//! | a job's files | [`work::names_path`], [`work::file_path`] | [`work::Names`], the file |
//! | of a process: to start, to stop, to ask | [`process`] has all of its messages | |
//! | a node's orders | [`worker::Claim`], [`worker::News`] | [`worker::Orders`] |
//! | a job's log | [`log::path`] | the bytes, and [`log::OFFSET`] |
//!
//! What was refused, or is not known, is an error of a [kind](crate::error::Kind). By HTTP it travels with
//! a code, by [`codes`], and in words ([`failure::Failure`]); in a list it stands in the place of what was
//! asked for ([`failure::NoAnswer`]).
//!
//! Older and newer programs talk to each other: fields that are not known are passed over, but for those
//! of [`ack::Ack`] and of a job's request, which the node refuses.

pub mod ack;
pub mod codes;
pub mod failure;
pub mod feed;
pub mod kill;
pub mod list;
pub mod log;
pub mod node;
pub mod process;
pub mod run;
pub mod status;
pub mod work;
pub mod worker;
