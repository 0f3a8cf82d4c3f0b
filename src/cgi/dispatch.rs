//! From a request to its answer, the same however it came: the route, whether whoever asks may, whether
//! the root may be changed, the handler.

use super::audit;
use super::environment::Method;
use super::program::Program;
use super::request::Request;
use super::response::Response;
use super::route::{self, Call, Route};
use crate::auth::{self, Who};
use crate::board::root::Root;
use crate::error::{Error, Result};
use crate::held::Held;
use crate::model::access::{Need, Reach, Whose};

/// Why a request is not carried out.
pub(super) enum Refusal {
    /// It asks for what there is not, or for what whoever asks may not.
    Request(Error),
    /// The root may not be changed: that is for its owner to know, see [`Root::for_change`].
    Root(Error),
}

impl Refusal {
    /// The same for whoever may know all of it.
    pub(super) fn error(self) -> Error {
        match self {
            Refusal::Request(error) | Refusal::Root(error) => error,
        }
    }
}

/// A request that may be carried out.
pub(super) struct Admitted<'a> {
    program: &'static Program,
    route: &'static Route,
    call: Call<'a>,
    whose: Whose,
}

/// Finds the route of a request, and whether it may be carried out.
pub(super) fn admit<'a>(
    program: &'static Program,
    root: &'a Root,
    request: &'a Request,
    who: &'a Who,
) -> std::result::Result<Admitted<'a>, Refusal> {
    let found = route::find(program.routes, root, request, who);
    let (route, call) = found.map_err(Refusal::Request)?;
    let whose = may(program, &call, route.need).map_err(|error| {
        if audit::is_refusal(&error) || audit::is_told(route.need, request) {
            audit::tell(root, who, program.name, request, &Err(error.clone()));
        }
        Refusal::Request(error)
    })?;
    route.may_change(root).map_err(Refusal::Root)?;
    Ok(Admitted { program, route, call, whose })
}

/// Refuses what whoever asks may not do. Whose the thing is has to be read from its card: only where that
/// makes a difference.
fn may(program: &Program, call: &Call, need: Need) -> Result<Whose> {
    auth::allow(call.who, need)?;
    if call.who.reach(need) == Reach::All {
        return Ok(Whose::Others); // nobody has looked; whoever loses this reach is to lose the thing
    }
    let whose = (program.whose)(call)?;
    auth::allow_to(call.who, need, whose)?;
    Ok(whose)
}

impl Admitted<'_> {
    /// What whoever asks has been found to be allowed, and whose the thing is.
    pub(super) fn found(&self) -> (Need, Whose) {
        (self.route.need, self.whose)
    }

    /// Whether it is answered when something has happened, though it has no key that asks for that.
    pub(super) fn stays(&self) -> bool {
        self.program.stays.contains(&self.route.pattern)
    }

    /// Carries it out; what changes something is told in the audit. A handler, too, may refuse: what
    /// everybody may look at has parts that not everybody may see.
    ///
    /// Whoever leaves, or ends this program, does so before the change or after the line: never between.
    pub(super) fn answer(&self) -> Result<Response> {
        let request = self.call.request;
        let is_told = audit::is_told(self.route.need, request);
        // A person who has something looked through, and mended, may stop that at any time.
        let _held =
            (is_told && (request.method != Method::Get || !request.command)).then(Held::back);
        let answer = (self.route.handler)(&self.call);
        let is_refused = answer.as_ref().is_err_and(audit::is_refusal);
        let Call { root, who, .. } = self.call;
        if is_refused || is_told {
            audit::tell(root, who, self.program.name, request, &answer);
        }
        answer
    }
}
