//! One request of the client: a fresh connection, one answer, one word for what came of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with status 200.
    Ok,
    /// Nobody listens there.
    Refused,
    /// No whole answer within the time-out.
    Timeout,
    /// The other side reset the connection.
    Reset,
    /// The connection ended before an answer.
    Closed,
    /// There is no route to the address.
    Unreachable,
    /// Answered with another status than 200.
    Status,
    /// Anything else.
    Error,
}

impl Outcome {
    /// The word that stands in client.jsonl.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Timeout => "timeout",
            Outcome::Reset => "reset",
            Outcome::Closed => "closed",
            Outcome::Unreachable => "unreachable",
            Outcome::Status => "status",
            Outcome::Error => "error",
        }
    }

    fn of_error(error: &io::Error) -> Outcome {
        match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Timeout,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Outcome::Reset,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
            _ => Outcome::Error,
        }
    }
}

/// Asks `address` for `/` over a fresh connection. All of it, connecting included, takes at most
/// about `timeout`.
pub fn ask(address: SocketAddr, timeout: Duration) -> Outcome {
    match answer(address, Instant::now() + timeout) {
        Ok(head) if head.is_empty() => Outcome::Closed,
        Ok(head) if is_ok(&head) => Outcome::Ok,
        Ok(_) => Outcome::Status,
        Err(error) => Outcome::of_error(&error),
    }
}

fn is_ok(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    line.starts_with(b"HTTP/1.") && line.split(|b| *b == b' ').nth(1) == Some(b"200")
}

/// The answer, read until the other side closes.
fn answer(address: SocketAddr, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(head),
            n => head.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or_else(|| io::Error::from(ErrorKind::TimedOut))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0u8; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        });
        address
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_200_is_ok_and_nothing_else_is() {
        assert_eq!(ask(server(b"HTTP/1.1 200 OK\r\n\r\nhello\n"), LONG), Outcome::Ok);
        let refusals: [&'static [u8]; 3] =
            [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 2000 Odd\r\n\r\n", b"200 OK\r\n\r\n"];
        for answer in refusals {
            assert_eq!(ask(server(answer), LONG), Outcome::Status);
        }
    }

    #[test]
    fn an_empty_answer_is_closed_and_a_free_port_refuses() {
        assert_eq!(ask(server(b""), LONG), Outcome::Closed);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(ask(address, LONG), Outcome::Refused);
    }

    #[test]
    fn a_server_that_never_answers_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(ask(address, Duration::from_millis(50)), Outcome::Timeout);
    }
}
