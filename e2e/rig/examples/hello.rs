//! A small HTTP server and client, static, for the images of the rig's own tests.
//!
//! `hello serve PORT` answers with the host's name; `hello fetch ADDRESS` prints the
//! answer; `hello dial ADDRESS` only connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => serve(port.parse()?),
        ["fetch", address] => fetch(dial(address)?),
        ["dial", address] => dial(address).map(drop),
        _ => bail!("usage: hello serve PORT | fetch ADDRESS | dial ADDRESS"),
    }
}

fn serve(port: u16) -> Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    for stream in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut stream = stream?;
        // A probe that connects and goes away must not end the server.
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(answer.as_bytes());
    }
    Ok(())
}

fn dial(address: &str) -> Result<TcpStream> {
    let address: SocketAddr = address.parse().with_context(|| format!("address {address:?}"))?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn fetch(mut stream: TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    print!("{body}");
    Ok(())
}
