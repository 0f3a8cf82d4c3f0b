//! How long a supervisor waits for what.

use std::time::Duration;

/// Between two attempts at something that a full disk or a stubborn process prevents.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// A result waits at most so long for others to share its sync with.
pub(super) const SHARE_SYNC: Duration = Duration::from_millis(20);

/// A job that runs longer is reported as running; a shorter one just as stopped.
pub(super) const REPORT_RUNNING: Duration = SHARE_SYNC;

/// A job that runs longer, or a range, keeps nobody waiting who was claimed with it.
pub(super) const KEEP_CLAIMS: Duration = Duration::from_millis(100);

/// So often a supervisor looks for kills of which no signal has told it.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// So often it looks whether the head of what runs was heard of, where that matters: it sleeps by a clock that stands
/// while the machine sleeps.
pub(super) const LOOK_FOR_HEAD: Duration = Duration::from_secs(2);

/// A shutdown tells all processes to end within about this time, in no order.
pub(super) const SHUTDOWN_TELLS_ALL: Duration = Duration::from_millis(100);
