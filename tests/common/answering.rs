//! Servers that answer as they like, in place of a node's.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A server that does this with each request, until its listener is dropped with the process.
pub fn stand_in(answer: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    stand_in_for(move |_, stream| answer(stream))
}

/// The same where it counts what is asked: the answer is told the first line of the request.
pub fn stand_in_for(answer: impl Fn(&str, TcpStream) + Send + Sync + Clone + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let request = String::from_utf8_lossy(&request);
                answer(request.lines().next().unwrap_or_default(), stream);
            });
        }
    });
    port
}

/// An answer that ends with its connection.
pub const WITHOUT_LENGTH: &[u8] =
    b"HTTP/1.1 200 OK\r\n\r\n{\"resources\":{\"cores\":1,\"memory\":1}}";
