//! A question to the admin listener of a service, as any client asks it.

use std::io::{Read, Write};
use std::net::TcpStream;

/// Status line, headers and body.
pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: finflow\r\nConnection: close\r\n\r\n").expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}
