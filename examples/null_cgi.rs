//! A CGI program that answers one line: the floor of any request.

use std::io::Write;

fn main() {
    let answer = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nnothing\n";
    let _ = std::io::stdout().write_all(answer); // nobody is left to be told
}
