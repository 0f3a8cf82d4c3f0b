//! Whose a run is, and what others see of it.

use crate::board::runs::Runs;
use crate::cgi::Call;
use crate::error::Result;
use crate::model::access::{Need, Reach, Whose};
use crate::model::ids::RunId;
use crate::model::request_fields::BY_FIELD;
use crate::model::run_status::RunStatus;

/// Whose a run is: the user's who had it run here, under ids of heads' form that head's; where it does not say
/// which, every head's. Whoever has its key speaks for it.
pub fn whose(call: &Call) -> Result<Whose> {
    whose_run(call, call.value(0))
}

/// The same of the run of this id.
pub(super) fn whose_run(call: &Call, id: &str) -> Result<Whose> {
    if call.who.run.as_deref() == Some(id) {
        return Ok(Whose::Own);
    }
    let Some(id) = RunId::parse(id) else { return Ok(Whose::Own) }; // there is none: said later
    if id.is_a_heads() {
        if !call.who.may_be_head {
            return Ok(Whose::Others);
        }
        // One that is not here may yet come, and one that cannot be read is to be ended for all that.
        let by = Runs::new(call.root).sent_by(&id).ok().flatten();
        return Ok(by.map_or(Whose::Own, |by| call.who.whose(Some(&by), None)));
    }
    // One that is not here is nobody's yet: it may come, as another user's, before it is looked for again.
    let request = Runs::new(call.root).request(&id)?;
    Ok(call.who.whose(request.get(BY_FIELD).and_then(|by| by.as_str()), None))
}

/// Whether whoever asks may see more of a run than everybody.
pub(super) fn sees(call: &Call, id: &str) -> bool {
    call.who.reach(Need::Read) == Reach::All
        || whose_run(call, id).is_ok_and(|whose| call.who.may(Need::Read, whose))
}

/// What whoever asks may see of a status.
pub(super) fn seen(call: &Call, status: RunStatus) -> RunStatus {
    let all = status.id.as_deref().is_some_and(|id| sees(call, id));
    if all { status } else { status.outside() }
}
