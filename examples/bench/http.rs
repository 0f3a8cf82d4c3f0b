//! A tiny HTTP client, and a load of known size.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A GET, ready to be sent.
pub fn get(path: &str) -> Vec<u8> {
    format!("GET /cgi-bin/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A POST of JSON, ready to be sent.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /cgi-bin/{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The same with a token.
pub fn bearing(token: &str, request: Vec<u8>) -> Vec<u8> {
    let end = request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let header = format!("Authorization: Bearer {}\r\n", token.trim());
    [&request[..end], header.as_bytes(), &request[end..]].concat()
}

/// Sends a request and returns the body of its answer, which must be a good one.
pub fn send(address: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::with_capacity(1024);
    stream.read_to_end(&mut answer)?;
    let good = answer.get(..10).is_some_and(|head| head.starts_with(b"HTTP/1.") && head[9] == b'2');
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    match end {
        Some(end) if good => Ok(answer.split_off(end + 4)),
        _ => {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
            Err(format!("answer is not good: {text:?}").into())
        }
    }
}

/// [`send`], for an answer in JSON.
pub fn json(address: SocketAddr, request: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(&send(address, request)?)?)
}

/// So many clients send this request again and again, `count` times in all; requests per second.
pub fn load(address: SocketAddr, clients: usize, count: usize, request: &[u8]) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while next.fetch_add(1, Ordering::Relaxed) < count {
                        send(address, request)?;
                    }
                    Ok(())
                })
            })
            .collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| "a client died")?)
    })?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
