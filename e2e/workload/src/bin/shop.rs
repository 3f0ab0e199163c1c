//! The service that the demo protects.
//!
//! Serves HTTP (`/` answers "site pod seq epoch", `/healthz` answers "ok"), appends a line to its
//! journal every 50 ms and sends the same line as a datagram to a sink. It handles no signal.
//!
//! Environment: SITE (or NODE, as SITE-NUMBER), GROUP, POD, POD_UID, JOURNAL_DIR, SINK (IP:PORT);
//! optional LISTEN (default 0.0.0.0:8080) and EPOCH_FILE (default /regent/epoch; may be absent).

use regent_workload::boot_ns;
use regent_workload::journal::Journal;
use regent_workload::line::Writer;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

const PERIOD: Duration = Duration::from_millis(50);
const CONNECTIONS_MAX: usize = 256;
const REQUEST_BYTES_MAX: usize = 8192;
const STACK_BYTES: usize = 64 * 1024;

struct Settings {
    writer: Writer,
    journal_dir: PathBuf,
    sink: SocketAddr,
    listen: SocketAddr,
    epoch_file: PathBuf,
}

impl Settings {
    fn from_env() -> Result<Settings, String> {
        Ok(Settings {
            writer: Writer {
                site: site()?,
                group: required("GROUP")?,
                pod: required("POD")?,
                uid: required("POD_UID")?,
            },
            journal_dir: required("JOURNAL_DIR")?.into(),
            sink: address("SINK", &required("SINK")?)?,
            listen: address("LISTEN", &optional("LISTEN", "0.0.0.0:8080"))?,
            epoch_file: optional("EPOCH_FILE", "/regent/epoch").into(),
        })
    }
}

/// SITE, or else the name of NODE without its number: a mirrored manifest names no site.
fn site() -> Result<String, String> {
    required("SITE").or_else(|_| {
        let node = required("NODE").map_err(|e| format!("{e}, or SITE"))?;
        Ok(node.rsplit_once('-').map_or(node.clone(), |(site, _)| site.to_owned()))
    })
}

fn required(name: &str) -> Result<String, String> {
    env::var(name)
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("environment variable {name} is not set: set it in the pod's env"))
}

fn optional(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn address(name: &str, value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("environment variable {name} is {value:?}: it must be IP:PORT"))
}

/// What the HTTP side tells of the line that was written last.
#[derive(Default)]
struct Latest {
    seq: u64,
    epoch: Option<String>,
}

fn read_epoch(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let epoch = text.trim();
    (!epoch.is_empty()).then(|| epoch.to_owned())
}

/// Writes a line each period, for ever. After a pause it goes on at once and makes nothing up.
fn write_lines(settings: &Settings, latest: &Mutex<Latest>) -> Result<(), String> {
    let writer = &settings.writer;
    let mut journal = Journal::open(&settings.journal_dir, &writer.site, &writer.pod)
        .map_err(|e| format!("journal in {}: {e}", settings.journal_dir.display()))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|e| format!("UDP socket: {e}"))?;
    let mut next = Instant::now();
    loop {
        let epoch = read_epoch(&settings.epoch_file);
        let seq = journal.next_seq();
        let line = writer.line(boot_ns(), seq, epoch.as_deref());
        journal.append(&line).map_err(|e| format!("journal in {}: {e}", settings.journal_dir.display()))?;
        // A datagram that can't leave is what a cut network looks like: the journal goes on.
        let _ = socket.send_to(line.as_bytes(), settings.sink);
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = Latest { seq, epoch };
        next = (next + PERIOD).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn serve(listener: &TcpListener, writer: &Arc<Writer>, latest: &Arc<Mutex<Latest>>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (writer, latest, done) = (writer.clone(), latest.clone(), open.clone());
        let answer = move || {
            let _ = answer(stream, &writer, &latest);
            done.fetch_sub(1, Ordering::SeqCst);
        };
        if thread::Builder::new().stack_size(STACK_BYTES).spawn(answer).is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn answer(mut stream: TcpStream, writer: &Writer, latest: &Mutex<Latest>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    // The whole head is read: closing with unread bytes would reset the client's connection.
    let mut head = Vec::new();
    let mut buffer = [0u8; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut buffer)?;
        if n == 0 || head.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..n).unwrap_or_default());
    }
    let path = head.split(|b| *b == b' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        b"/" => ("200 OK", page(writer, latest)),
        b"/healthz" => ("200 OK", "ok\n".to_owned()),
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    let length = body.len();
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(reply.as_bytes())
}

fn page(writer: &Writer, latest: &Mutex<Latest>) -> String {
    let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    let epoch = latest.epoch.as_deref().unwrap_or("-");
    format!("{} {} {} {epoch}\n", writer.site, writer.pod, latest.seq)
}

fn run() -> Result<(), String> {
    let settings = Settings::from_env()?;
    let listener = TcpListener::bind(settings.listen).map_err(|e| format!("listen on {}: {e}", settings.listen))?;
    let latest = Arc::new(Mutex::new(Latest::default()));
    let (writer, seen) = (Arc::new(settings.writer.clone()), latest.clone());
    thread::spawn(move || serve(&listener, &writer, &seen));
    write_lines(&settings, &latest)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}
