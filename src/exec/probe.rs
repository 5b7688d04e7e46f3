//! Asks a port of the loopback whether it answers. Unaware of services and of who owns the port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long connecting to the loopback may take.
const CONNECT: Duration = Duration::from_millis(500);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest time between two looks at whether the answer is still wanted.
const SLICE: Duration = Duration::from_millis(50);
/// What is read of an answer at most.
const LONGEST: usize = 64 * 1024;

/// Whether the port accepts a connection. The error says why not.
pub(super) fn tcp(port: u16) -> Result<(), String> {
    connect(port).map(drop)
}

/// Whether `GET path` is answered with a status of 200 to 299. Gives up when `unwanted` says so. The error says why not.
pub(super) fn http(port: u16, path: &str, unwanted: &dyn Fn() -> bool) -> Result<(), String> {
    let mut stream = connect(port)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: flow\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let failed = |e: std::io::Error| format!("no answer: {e}");
    stream.set_read_timeout(Some(SLICE)).map_err(failed)?;
    stream.set_write_timeout(Some(CONNECT)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let deadline = Instant::now() + ANSWER;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // To the end where that is near: some servers complain about a client that leaves early.
    while answer.len() < LONGEST {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                if status(&answer).is_some() || unwanted() || Instant::now() >= deadline {
                    break;
                }
            }
            Err(e) if answer.is_empty() => return Err(failed(e)),
            Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    match status(&answer) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None if answer.is_empty() => Err("it accepts connections but does not answer".to_owned()),
        None => Err("what answers does not speak HTTP".to_owned()),
    }
}

fn connect(port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, CONNECT).map_err(|e| format!("no connection to {address}: {e}"))
}

/// The status code of an answer whose first line is complete.
fn status(answer: &[u8]) -> Option<u16> {
    let line = &answer[..answer.iter().position(|byte| *byte == b'\n')?];
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ask(answer: &'static str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (http(port, "health", &|| false), server.join().unwrap())
    }

    #[test]
    fn only_2xx_is_ready() {
        let (answer, request) = ask("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(answer, Ok(()));
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"));
        assert_eq!(ask("HTTP/1.0 503 Loading\r\n\r\n").0, Err("status 503".to_owned()));
        assert!(ask("hello\n").0.unwrap_err().contains("HTTP"));
        assert!(ask("").0.unwrap_err().contains("does not answer"));
    }

    #[test]
    fn nobody_there() {
        let port = super::super::port::free_port().unwrap();
        assert!(tcp(port).unwrap_err().contains("no connection to 127.0.0.1"));
        assert!(http(port, "/", &|| false).is_err());
    }
}
