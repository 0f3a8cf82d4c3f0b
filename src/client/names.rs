//! Where a machine of some name is.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result, is_shortage};
use crate::held;

/// Most bytes of addresses that are read.
const LARGEST_ANSWER: usize = 4096;

/// Refuses a node's URI that could not be one.
pub fn check_uri(uri: &str) -> Result<()> {
    let rest = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://"));
    let sane = uri.len() <= 500
        && rest.is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with('/')
                && rest.bytes().all(|b| b.is_ascii_graphic() && !b"?#@\"'<>\\".contains(&b))
        })
        && uri.parse::<ureq::http::Uri>().is_ok()
        && rest
            .and_then(|rest| rest.split('/').next())
            .is_some_and(|host| place(host, 80).is_some());
    let like = "uri must be like http://node01.example:8080 or https://node01.example";
    if sane { Ok(()) } else { Err(Error::bad(like)) }
}

/// The server of a URI, and the path under which its programs lie: that of the URI, if it has one.
pub(crate) fn programs_of(uri: &str) -> (&str, &str) {
    let uri = uri.trim_end_matches('/');
    let host = uri.find("://").map_or(0, |scheme| scheme + "://".len());
    match uri[host..].find('/') {
        Some(path) => uri.split_at(host + path),
        None => (uri, "/cgi-bin"),
    }
}

/// The name and the port of `host[:port]`; an IPv6 address without its brackets.
fn place(host: &str, default_port: u16) -> Option<(&str, u16)> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (name, port.parse().ok().filter(|port| digits && *port > 0)?)
        }
        _ => (host, default_port),
    };
    let name = match name.strip_prefix('[') {
        Some(address) => {
            let address = address.strip_suffix(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            address
        }
        None => name,
    };
    let is_one = !name.is_empty() && (!name.contains([':', '[', ']']) || host.starts_with('['));
    is_one.then_some((name, port))
}

/// The addresses of `host[:port]`, in the order in which they should be tried; at least one.
///
/// A name is looked up by `getent`, the C library's own program: a static program cannot load what
/// the machine's name services need, would be a sixth larger, and could not end such a wait.
pub(crate) fn addresses(
    host: &str,
    default_port: u16,
    deadline: Instant,
) -> io::Result<Vec<SocketAddr>> {
    let wrong = || io::Error::new(ErrorKind::InvalidInput, "not a host, nor one with its port");
    let (name, port) = place(host, default_port).ok_or_else(wrong)?;
    let found = match name.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) if name.eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => look_up(name, deadline)?,
    };
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

fn look_up(name: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let unknown =
        || io::Error::new(ErrorKind::NotFound, format!("no address of {name:?} is known"));
    if name.is_empty() || name.starts_with('-') {
        return Err(unknown());
    }
    let mut command = Command::new("getent");
    command
        .args(["ahosts", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    held::as_before(&mut command);
    let mut child = command.spawn().map_err(|error| match is_shortage(&error) {
        true => error,
        false => io::Error::new(error.kind(), format!("cannot run getent: {error}")),
    })?;
    let told = child.stdout.take().map_or(Ok(Vec::new()), |out| read_until(out, deadline));
    let _ = child.kill(); // it has told all, or is late
    child.wait()?;
    let told = told?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    // Lines such as `192.0.2.1  STREAM name`; each address comes once for each kind of socket.
    for line in String::from_utf8_lossy(&told).lines() {
        let address = line.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    if addresses.is_empty() { Err(unknown()) } else { Ok(addresses) }
}

/// All that a child says on its standard output, or `TimedOut`.
fn read_until(mut out: ChildStdout, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut told = Vec::new();
    let mut buffer = [0; 1024];
    while told.len() < LARGEST_ANSWER {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) if Instant::now() >= deadline => {
                return Err(io::Error::new(ErrorKind::TimedOut, "timeout"));
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => match out.read(&mut buffer)? {
                0 => break,
                read => told.extend_from_slice(&buffer[..read]),
            },
        }
    }
    Ok(told)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(host: &str) -> io::Result<Vec<String>> {
        let found = addresses(host, 80, Instant::now() + Duration::from_secs(20))?;
        Ok(found.iter().map(SocketAddr::to_string).collect())
    }

    #[test]
    fn addresses_and_names_are_found() {
        assert_eq!(of("192.0.2.1").unwrap(), ["192.0.2.1:80"]);
        assert_eq!(of("192.0.2.1:8080").unwrap(), ["192.0.2.1:8080"]);
        assert_eq!(of("[::1]").unwrap(), ["[::1]:80"]);
        assert_eq!(of("[::1]:8080").unwrap(), ["[::1]:8080"]);
        assert_eq!(of("LocalHost:1").unwrap(), ["127.0.0.1:1", "[::1]:1"]);
        // Not one of the above to us, but every machine can tell.
        assert_eq!(
            look_up("127.0.0.2", Instant::now() + Duration::from_secs(20)).unwrap().len(),
            1
        );
        for wrong in ["", ":80", "host:", "host:99999", "-h", "no.such.name.invalid"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_uri_names_a_host_and_a_port_that_there_may_be() {
        let hosts = ["h", "h:1", "h:65535", "h:080", "192.0.2.1:80", "[::1]", "[2001:db8::1]:8080"];
        for host in hosts {
            assert!(check_uri(&format!("http://{host}")).is_ok(), "{host}");
            assert!(check_uri(&format!("https://{host}/a/b:c")).is_ok(), "{host}");
        }
        let wrong = [
            "h:99999", "h:65536", "h:0", "h:", "h:80x", "h:+80", ":80", "", "[::1", "[::1]x:3",
            "[::1]:", "::1", "h:1:2", "[h]",
        ];
        for host in wrong {
            assert!(check_uri(&format!("http://{host}")).is_err(), "{host}");
            assert!(check_uri(&format!("http://{host}/cgi-bin")).is_err(), "{host}");
        }
    }
}
