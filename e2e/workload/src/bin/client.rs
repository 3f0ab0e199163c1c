//! A customer outside: asks each site's address in turn and writes down what came of it.
//!
//! `client --out FILE --target SITE=IP:PORT [--target …] [--rate N] [--timeout-ms N]
//! [--stop-with-stdin]`. The rate counts requests per second over all targets; by default each
//! target is asked 24 times a second. A request that hangs delays no other. Runs until it is
//! killed, or, with `--stop-with-stdin`, until its standard input ends.

use regent_workload::request::{Outcome, ask};
use regent_workload::{boot_ns, push_json_string};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const USAGE: &str =
    "usage: client --out FILE --target SITE=IP:PORT [--target ...] [--rate N] [--timeout-ms N] [--stop-with-stdin]";
const RATE_PER_TARGET: u32 = 24;
const STACK_BYTES: usize = 128 * 1024;
/// After a pause of the whole machine longer than this the rhythm starts afresh.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

struct Settings {
    out: String,
    targets: Vec<(Arc<str>, SocketAddr)>,
    period: Duration,
    timeout: Duration,
    stop_with_stdin: bool,
}

fn settings(mut arguments: impl Iterator<Item = String>) -> Result<Settings, String> {
    let (mut out, mut targets, mut rate) = (None, Vec::new(), None);
    let (mut timeout_ms, mut stop_with_stdin) = (200, false);
    while let Some(name) = arguments.next() {
        if name == "--stop-with-stdin" {
            stop_with_stdin = true;
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--out" => out = Some(value),
            "--target" => targets.push(target(&value)?),
            "--rate" => rate = Some(number("--rate", &value)?),
            "--timeout-ms" => timeout_ms = number("--timeout-ms", &value)?,
            _ => return Err(format!("unknown option {name}; {USAGE}")),
        }
    }
    let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    if count == 0 {
        return Err(format!("no --target was given; {USAGE}"));
    }
    Ok(Settings {
        out: out.ok_or(USAGE)?,
        targets,
        period: Duration::from_secs(1) / rate.unwrap_or(RATE_PER_TARGET.saturating_mul(count)),
        timeout: Duration::from_millis(timeout_ms.into()),
        stop_with_stdin,
    })
}

fn target(value: &str) -> Result<(Arc<str>, SocketAddr), String> {
    value
        .split_once('=')
        .and_then(|(site, address)| Some((Arc::from(site), address.parse().ok()?)))
        .ok_or_else(|| format!("--target {value}: it must be SITE=IP:PORT"))
}

fn number(name: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(number) if (1..=10_000).contains(&number) => Ok(number),
        _ => Err(format!("{name} {value}: it must be a number from 1 to 10000")),
    }
}

fn record(mut file: &File, start_ns: u64, outcome: Outcome, site: &str) {
    let (end_ns, word) = (boot_ns(), outcome.word());
    let mut line = format!("{{\"start_ns\":{start_ns},\"end_ns\":{end_ns},\"outcome\":\"{word}\",\"site\":");
    push_json_string(&mut line, site);
    line.push_str("}\n");
    if let Err(error) = file.write_all(line.as_bytes()) {
        eprintln!("client: {error}: this request is not in the record");
    }
}

/// One request on a thread of its own; `None` when there is no thread for it.
fn start_request(
    file: &Arc<File>,
    (site, address): &(Arc<str>, SocketAddr),
    timeout: Duration,
) -> Option<JoinHandle<()>> {
    let (file, site, address) = (file.clone(), site.clone(), *address);
    let start_ns = boot_ns();
    let (file_here, site_here) = (file.clone(), site.clone());
    let request = move || record(&file, start_ns, ask(address, timeout), &site);
    let started = thread::Builder::new().stack_size(STACK_BYTES).spawn(request);
    if started.is_err() {
        record(&file_here, start_ns, Outcome::Error, &site_here);
    }
    started.ok()
}

fn run() -> Result<(), String> {
    let settings = settings(std::env::args().skip(1))?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&settings.out)
        .map_err(|e| format!("--out {}: {e}", settings.out))?;
    let file = Arc::new(file);
    let stop = Arc::new(AtomicBool::new(false));
    if settings.stop_with_stdin {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut rest = [0u8; 256];
            while matches!(std::io::stdin().read(&mut rest), Ok(n) if n > 0) {}
            stop.store(true, Ordering::SeqCst);
        });
    }
    let mut next = Instant::now();
    let mut outstanding: Vec<JoinHandle<()>> = Vec::new();
    for target in settings.targets.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        outstanding.retain(|request| !request.is_finished());
        outstanding.extend(start_request(&file, target, settings.timeout));
        next += settings.period;
        let now = Instant::now();
        if now.saturating_duration_since(next) > CATCH_UP_MAX {
            next = now;
        }
        thread::sleep(next.saturating_duration_since(now));
    }
    for request in outstanding {
        let _ = request.join();
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}
