//! Before this worker speaks to its head again, after a silence that was too long: what was not started in that time is
//! given back, so that nothing starts of which the head may have decided otherwise by now.

use std::thread;
use std::time::{Duration, Instant};

use crate::board::head_contact;
use crate::board::root::Root;
use crate::model::run_status::RunState;
use crate::processor::list::{self, Filter};
use crate::processor::sweep;

/// It is waited for no longer than so: supervisors that are busy give back what waits when they look for more.
const WITHIN: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Has supervisors give back what waits of heads that were not heard of in time.
pub(super) fn give_back(root: &Root) {
    let deadline = Instant::now() + WITHIN;
    while waits(root) && Instant::now() < deadline {
        let _ = sweep::sweep(root); // what is wrong is told where it is swept regularly
        thread::sleep(LOOK_EVERY);
    }
}

fn waits(root: &Root) -> bool {
    let Some(head) = head_contact::overdue(root) else { return false };
    let filter = Filter { state: Some(RunState::Queued), ..Filter::default() };
    let queued = list::list(root, &filter).unwrap_or_default();
    queued.iter().any(|(id, _)| id.nodejob().is_some_and(|id| id.cluster() == head))
}
