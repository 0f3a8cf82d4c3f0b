//! Where a request comes from, and which machine it means. Pure, but for the look at the headers.

use std::env;
use std::net::{IpAddr, Ipv6Addr};

/// A host with or without a port, as `Host` names it and as servers write a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A name in lower case, or an address; an IPv6 address without its brackets.
    name: String,
    port: Option<u16>,
}

impl Place {
    /// Exactly `name`, `name:port`, `[v6]` or `[v6]:port`; nothing else is read as one of these.
    pub(super) fn parse(text: &str) -> Option<Place> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (address.parse::<Ipv6Addr>().ok()?.to_string(), port)
            }
            None => {
                let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (name.to_ascii_lowercase(), port)
            }
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Place { name, port })
    }

    /// Whether it names this machine to itself.
    pub(super) fn is_loopback(&self) -> bool {
        self.name == "localhost" || self.name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// Whether a known place admits it: one without a port does with any, one with a port with this
    /// alone.
    pub(super) fn is_admitted_by(&self, known: &Place) -> bool {
        self.name == known.name && known.port.is_none_or(|port| self.port == Some(port))
    }
}

/// Whether a peer is on this machine. busybox writes `127.0.0.1`, `[::1]`, `[::ffff:127.0.0.1]`,
/// each with a port or without; lighttpd also `::1`.
pub(super) fn is_loopback_peer(text: &str) -> bool {
    let place = Place::parse(text).map(|place| place.name);
    let address = text.parse().ok().or_else(|| place?.parse().ok());
    address.is_some_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Headers by which somebody in between says that a request is another's.
const FORWARDED: &[&str] = &[
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_REAL_IP",
    "HTTP_X_CLIENT_IP",
    "HTTP_X_CLUSTER_CLIENT_IP",
    "HTTP_X_ORIGINAL_FORWARDED_FOR",
    "HTTP_TRUE_CLIENT_IP",
    "HTTP_CF_CONNECTING_IP",
];

/// Whether a proxy has passed the request on, as far as it says so: then the peer is the proxy, and
/// who asks is anybody.
pub(super) fn is_forwarded() -> bool {
    env::vars_os().any(|(name, _)| {
        let name = name.to_string_lossy();
        FORWARDED.contains(&&*name) || name.starts_with("HTTP_X_FORWARDED")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_peers() {
        for peer in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "::1", "127.0.0.1:4242"] {
            assert!(is_loopback_peer(peer), "{peer}");
        }
        for peer in [
            "",
            "10.0.0.1",
            "[::ffff:10.0.0.1]",
            "127.0.0.1.evil",
            "localhost",
            "[::1]evil",
            "[::1].evil",
            "[::1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:1:2",
        ] {
            assert!(!is_loopback_peer(peer), "{peer}");
        }
    }

    #[test]
    fn a_host_is_this_machine_only_if_it_is_spelt_so() {
        let is_loopback = |host: &str| Place::parse(host).is_some_and(|place| place.is_loopback());
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:80",
            "127.9.8.7",
            "[::1]:80",
            "[::1]",
            "[0:0::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.",
            "localhost.evil.example",
            "localhost.:80",
            "127.0.0.1.",
            "127.0.0.1.evil.example:80",
            "127.1",
            "0177.0.0.1",
            "2130706433",
            "[::1].evil",
            "[::1]evil",
            "[::1]:",
            "[::1]:x",
            "[::1%lo]",
            "[::1%25lo]:80",
            "[localhost]",
            "[127.0.0.1]",
            "[::1",
            "::1",
            "localhost:",
            "localhost:x",
            "localhost:80x",
            "localhost:+80",
            "localhost:80:80",
            "localhost:65536",
            "user@localhost",
            "user:80@localhost",
            "localhost@evil.example",
            "localhost, evil.example",
            "localhost evil.example",
            "localhost/",
            "localhost#x",
            " localhost",
            "evil.example, localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_place_without_a_port_admits_any() {
        let admits = |known: &str, host: &str| match (Place::parse(known), Place::parse(host)) {
            (Some(known), Some(host)) => host.is_admitted_by(&known),
            _ => false,
        };
        for (known, host) in [
            ("head.example", "head.example"),
            ("head.example", "HEAD.example:8080"),
            ("head.example:8080", "head.example:8080"),
            ("[2001:db8::1]", "[2001:DB8:0::1]:80"),
        ] {
            assert!(admits(known, host), "{known} {host}");
        }
        for (known, host) in [
            ("head.example:8080", "head.example"),
            ("head.example:8080", "head.example:80"),
            ("head.example", "head.example."),
            ("head.example", "evil.head.example"),
            ("head.example", ""),
        ] {
            assert!(!admits(known, host), "{known} {host}");
        }
    }
}
