//! From a request to its answer, the same however it came: the route, whether whoever asks may, whether
//! the root may be changed, the handler.

use super::program::Program;
use super::request::Request;
use super::response::Response;
use super::route::{self, Call, Need, Route};
use crate::auth::{self, Who};
use crate::board::root::Root;
use crate::error::{Error, Result};

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
    route: &'static Route,
    call: Call<'a>,
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
    auth::allow(who, route.need).map_err(Refusal::Request)?;
    route.may_change(root).map_err(Refusal::Root)?;
    Ok(Admitted { route, call })
}

impl Admitted<'_> {
    /// What whoever asks has been found to be allowed.
    pub(super) fn need(&self) -> Need {
        self.route.need
    }

    /// Carries it out.
    pub(super) fn answer(&self) -> Result<Response> {
        (self.route.handler)(&self.call)
    }
}
