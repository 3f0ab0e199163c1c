//! regent-gate: holds a pod until the node's guard lets it run.
//!
//! `regent-gate wait` lies in the pod's own volume beside `gate.sock` and runs as the
//! pod's first init container, in the pod's own image, as any user. It ends with
//! status 0 when the guard says `open`, and never for any other reason: whatever goes
//! wrong, it goes on asking.
//!
//! `regent-gate try` ends with status 0 at once. At a standby it runs before the gate with
//! the image, environment and volumes of each container that will run after it: what stands
//! in such a container's way is then said by the kubelet while home still runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// Between two attempts while no guard listens (it is back within 100 ms).
const RETRY: Duration = Duration::from_millis(5);
/// The same, after a while.
const RETRY_LATER: Duration = Duration::from_millis(50);
/// How long a wait may last before a person is told what for.
const PATIENCE: Duration = Duration::from_secs(3);

const USAGE: &str = "usage: regent-gate wait (beside gate.sock: waits until this node's guard lets the pod run)
       regent-gate try (ends at once: whoever started it has the container's image, environment and volumes)";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|a| a.to_str()) {
        Some("wait") if arguments.len() == 1 => {}
        Some("try") if arguments.len() == 1 => return ExitCode::SUCCESS,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    regent_guard::sys::exit_on_term();
    if let Err(error) = std::env::current_exe().and_then(|path| enter(&path)) {
        eprintln!("regent-gate: can't reach the folder of its own program: {error}; /proc must be mounted");
        return ExitCode::from(2);
    }
    let mut waited = Duration::ZERO;
    let mut told = false;
    loop {
        match ask(&mut waited, &mut told) {
            Ok(true) => return ExitCode::SUCCESS,
            Ok(false) | Err(_) => {
                let pause = if waited < PATIENCE { RETRY } else { RETRY_LATER };
                sleep(pause);
                waited += pause;
                tell(waited, &mut told, "no guard answers on this node");
            }
        }
    }
}

/// A relative name fits into a socket's address wherever the volume is.
fn enter(program: &Path) -> std::io::Result<()> {
    std::env::set_current_dir(program.parent().map(PathBuf::from).unwrap_or_default())
}

/// Asks one guard: whether it said `open`.
fn ask(waited: &mut Duration, told: &mut bool) -> std::io::Result<bool> {
    let stream = UnixStream::connect("gate.sock")?;
    if !*told {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut line = String::new();
    let mut reader = BufReader::new(&stream);
    loop {
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(line.starts_with("open ") && line.ends_with('\n')),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                *waited += PATIENCE;
                tell(*waited, told, "its group has no certificate for this node, as is normal at a standby");
                stream.set_read_timeout(None)?;
            }
            Err(e) => return Err(e),
        }
    }
}

fn tell(waited: Duration, told: &mut bool, why: &str) {
    if waited >= PATIENCE && !*told {
        let mut out = std::io::stdout();
        let _ =
            writeln!(out, "regent-gate: pod held before its start: {why}. It starts when the guard opens the gate.");
        *told = true;
    }
}
