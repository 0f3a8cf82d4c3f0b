//! What shows that a run is the attempt that a head sent: a digest of the attempt's key.
//!
//! A node's report carries it. Only the head could make the key, and only the node that was sent
//! the attempt has it; the key itself never travels back.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

/// What the key of an attempt begins with.
pub const KEY_PREFIX: &str = "cbkey_";

/// The variable of a run's environment in which its key is.
pub const KEY_VARIABLE: &str = "CORKBOARD_TOKEN";

/// What a report says of a run that was given no key: it is no head's.
pub const NONE: &str = "none";

/// Whether this has the form of a proof.
pub fn is_one(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text == NONE || text.len() == 32 && text.bytes().all(is_digit)
}

/// The digest of a key: 128 bits of its SHA-256, in hexadecimal.
pub fn of_key(key: &str) -> String {
    base16ct::lower::encode_string(&Sha256::digest(key.as_bytes())[..16])
}

/// The proof of a run with this in its environment for a key.
pub fn of_run(key: Option<&str>) -> String {
    match key {
        // Anything else may be a secret of its user, and short enough to be guessed.
        Some(key) if key.starts_with(KEY_PREFIX) => of_key(key),
        _ => NONE.to_string(),
    }
}

/// The proof of a run, by its request; `None` where that cannot be read, or says that nothing will
/// ever run under its id. No more of the request is looked at.
pub fn of_request(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        environment: Environment,
        refused: Option<IgnoredAny>,
    }
    #[derive(Default, Deserialize)]
    struct Environment {
        #[serde(rename = "CORKBOARD_TOKEN")]
        key: Option<String>,
    }
    let request: Request = serde_json::from_slice(bytes).ok()?;
    request.refused.is_none().then(|| of_run(request.environment.key.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_made_of_the_key_alone() {
        let key = "cbkey_c-7.1_00";
        let of = |text: &str| of_request(text.as_bytes());
        let proof = of_key(key);
        assert_eq!(proof.len(), 32);
        assert!(is_one(&proof) && is_one(NONE));
        assert!(!is_one(&proof.to_uppercase()) && !is_one(&proof[1..]) && !is_one(""));
        let request =
            r#"{"command":"x","environment":{"A":"b","CORKBOARD_TOKEN":"cbkey_c-7.1_00"}}"#;
        assert_eq!(of(request), Some(proof.clone()));
        assert_ne!(of(&request.replace("_00", "_01")), Some(proof));
        for other in [
            r#"{"command":"x"}"#,
            r#"{"environment":{"CORKBOARD_TOKEN":"my password"}}"#,
            r#"{"environment":{"TOKEN":"cbkey_c-7.1_00"}}"#,
        ] {
            assert_eq!(of(other).as_deref(), Some(NONE), "{other}");
        }
        for none in ["", "{", r#"{"environment":7}"#, r#"{"refused":{"by":"x"}}"#] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
