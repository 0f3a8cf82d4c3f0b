//! What a request says of itself before anything of it is read: its method, and the variables that a
//! server gives a CGI program.

use std::env;

/// The methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; never changes anything.
    Get,
    /// Does something; the only one with a body under busybox httpd.
    Post,
    /// Changes a thing.
    Patch,
    /// Removes a thing.
    Delete,
}

impl Method {
    /// Reads a method's name; HEAD is a GET whose body is not sent.
    pub fn parse(name: &str) -> Option<Method> {
        match name.to_ascii_uppercase().as_str() {
            "GET" | "HEAD" => Some(Method::Get),
            "POST" => Some(Method::Post),
            "PATCH" => Some(Method::Patch),
            "DELETE" => Some(Method::Delete),
            _ => None,
        }
    }

    /// The method's name.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// A variable of the environment. One that is not text is not absent: what of it cannot be read is
/// no letter that anything here is compared with.
pub fn var(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
