//! What is presented to a root that is reached by HTTP, and by what it is believed: as the environment says it.

use std::env;

use crate::error::{Error, Result};

/// Where a root is reached, such as `http://head:8080`.
pub const URL: &str = "CORKBOARD_URL";

/// What is presented to it.
pub const TOKEN: &str = "CORKBOARD_TOKEN";

/// The file of the certificates by one of which it is believed; those of this machine if absent.
pub const CA: &str = "CORKBOARD_CA";

/// The file of the certificate that is shown to it; none if absent.
pub const CERT: &str = "CORKBOARD_CERT";

/// The file of that certificate's key; the same if absent.
pub const KEY: &str = "CORKBOARD_KEY";

/// What is presented to a root, and by what it is believed.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The token that is presented to it.
    pub token: Option<String>,
    /// The file of the certificates by one of which it is believed; those of this machine if absent.
    pub ca: Option<String>,
    /// The file of the certificate that it is shown; none if absent.
    pub cert: Option<String>,
    /// The file of that certificate's key; the same if absent.
    pub key: Option<String>,
}

impl Access {
    /// That of the environment: `CORKBOARD_TOKEN`, `CORKBOARD_CA`, `CORKBOARD_CERT`, `CORKBOARD_KEY`.
    /// Errors: one is not UTF-8.
    pub fn from_env() -> Result<Access> {
        Ok(Access { token: given(TOKEN)?, ca: given(CA)?, cert: given(CERT)?, key: given(KEY)? })
    }

    /// The address of a root that the environment names by `CORKBOARD_URL`. Errors: it is not UTF-8.
    pub fn url_from_env() -> Result<Option<String>> {
        given(URL)
    }
}

/// A variable, if it is there and has something in it.
fn given(name: &str) -> Result<Option<String>> {
    let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = value.into_string().map_err(|_| Error::bad(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}
