//! Receives the shop's datagrams inside a site's own network and writes down when each arrived.
//!
//! `sink --listen IP:PORT --out FILE`. Runs until it is killed; every line is one write.

use regent_workload::{boot_ns, line::as_received};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::UdpSocket;
use std::process::ExitCode;

const USAGE: &str = "usage: sink --listen IP:PORT --out FILE";
/// Longer than any line that a shop writes, in bytes.
const DATAGRAM_BYTES_MAX: usize = 4096;

fn run() -> Result<(), String> {
    let (mut listen, mut out) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--listen" => listen = Some(value),
            "--out" => out = Some(value),
            _ => return Err(format!("unknown option {name}; {USAGE}")),
        }
    }
    let (listen, out) = (listen.ok_or(USAGE)?, out.ok_or(USAGE)?);
    let socket = UdpSocket::bind(&listen).map_err(|e| format!("--listen {listen}: {e}"))?;
    let mut file = OpenOptions::new().append(true).create(true).open(&out).map_err(|e| format!("--out {out}: {e}"))?;
    let mut buffer = [0u8; DATAGRAM_BYTES_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).map_err(|e| format!("--listen {listen}: {e}"))?;
        let received_ns = boot_ns();
        match as_received(buffer.get(..length).unwrap_or_default(), received_ns) {
            Some(line) => file.write_all(line.as_bytes()).map_err(|e| format!("--out {out}: {e}"))?,
            None => eprintln!("sink: {length} bytes from {from} are no line of a shop"),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sink: {error}");
            ExitCode::FAILURE
        }
    }
}
