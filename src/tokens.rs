#![allow(missing_docs)]
use crate::cgi::{Method::*, *};
pub const LIST: Route = Route {
    method: Get,
    pattern: "tokens",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "",
    handler: |_| todo!(),
};
pub const NEW: Route = Route {
    method: Post,
    pattern: "tokens/new",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "",
    handler: |_| todo!(),
};
pub const REMOVE: Route = Route {
    method: Post,
    pattern: "tokens/rm",
    need: Need::Shell,
    query: &[],
    body: false,
    help: "",
    handler: |_| todo!(),
};
