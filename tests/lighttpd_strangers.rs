//! lighttpd as `scripts/up` starts it, and what a network brings: it agrees to nothing old or weak, and slow clients
//! take no room from others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use secure::text;
use stand_ins::Root;

#[test]
fn a_scan_finds_nothing_to_mend() {
    let root = Root::real("lighttpd-scan");
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "ask"]);
    let place = format!("127.0.0.1:{}", root.port());
    let output =
        Command::new("sslscan").args(["--no-colour", "--show-certificate", &place]).output();
    let said = text(&output.expect("sslscan is needed").stdout);
    println!("{said}");
    for old in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        let line =
            said.lines().find(|line| line.starts_with(old)).unwrap_or_else(|| panic!("{old}"));
        assert!(line.ends_with("disabled"), "{line}");
    }
    for part in [
        "TLSv1.2   enabled",
        "TLSv1.3   enabled",
        "Session renegotiation not supported",
        "TLSv1.2 not vulnerable to heartbleed",
        "TLSv1.3 not vulnerable to heartbleed",
    ] {
        assert!(said.contains(part), "{part:?} is not there");
    }
    assert!(!said.contains("Compression enabled") && !said.contains("Insecure"));
    let ciphers: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"))
        .map(|line| line.split_whitespace().nth(4).unwrap())
        .collect();
    assert!(ciphers.len() >= 6, "{ciphers:?}");
    for cipher in ciphers {
        let sound = cipher.starts_with("TLS_AES_")
            || cipher.starts_with("TLS_CHACHA20_")
            || cipher.starts_with("ECDHE-ECDSA-")
                && (cipher.contains("GCM") || cipher.contains("CHACHA20"));
        assert!(sound, "{cipher}");
    }
    for weak in
        ["RSA Key Strength:    1024", "sha1WithRSA", "md5WithRSA", "secp192", "sect", "Anonymous"]
    {
        assert!(!said.contains(weak), "{weak}");
    }
    // A client of old.
    for version in ["1.0", "1.1"] {
        let said = root.curl(
            &["--tls-max", version, "--tlsv1.0", "--ciphers", "DEFAULT@SECLEVEL=0"],
            "/scheduler/jobs",
        );
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            said.body.contains("alert protocol version")
                || said.body.contains("unsupported protocol"),
            "{said:?}"
        );
    }
}

/// How many slow clients there are.
const SLOW: usize = 500;

/// Until when: no test goes on for ever.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn many_slow_clients_leave_room_for_others() {
    for tls in [false, true] {
        let root = Root::real(if tls { "lighttpd-slow-tls" } else { "lighttpd-slow" });
        let more: &[&str] = if tls { &["--tls", "--client-certs", "ask"] } else { &[] };
        root.up_ok(&[&["--server", "lighttpd"], more].concat());
        let begun = Instant::now();
        // Half of them dribble a head; the others have said what they will send, and dribble that. Over
        // TLS all dribble the beginning of a handshake.
        let mut slow: Vec<(TcpStream, Vec<u8>)> = (0..SLOW)
            .map(|number| {
                let mut stream = TcpStream::connect(("127.0.0.1", root.port())).unwrap();
                let head = match (tls, number % 2) {
                    (true, _) => [&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3][..], &[b'x'; 200]].concat(),
                    (_, 0) => b"GET /cgi-bin/scheduler/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".to_vec(),
                    _ => {
                        let head = "POST /cgi-bin/scheduler/jobs/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
                        stream.write_all(head.as_bytes()).unwrap();
                        vec![b' '; 200]
                    }
                };
                (stream, head)
            })
            .collect();
        let mut slowest = Duration::ZERO;
        for round in 0..8 {
            for (stream, text) in &mut slow {
                let _ = stream.write(&text[round..=round]); // some were answered, and are gone
            }
            // The machine may be at something else: of three that ask at least one is not held up by that.
            let one = || {
                let asked = Instant::now();
                root.curl_admin(&[], "/scheduler/jobs").expect(200);
                asked.elapsed()
            };
            slowest = slowest.max((0..3).map(|_| one()).min().unwrap());
            assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
            std::thread::sleep(Duration::from_millis(700)); // so slow they are
        }
        println!("tls {tls}: slowest {slowest:?}");
        assert!(slowest < Duration::from_secs(1), "tls {tls}: {slowest:?}");
        let said = root.scheduler(&["jobs", "new", "--wait", "--", "echo", "hello"]);
        assert_eq!(said, "hello\n");
        drop(slow);
        root.check();
    }
}
