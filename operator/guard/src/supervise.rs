//! The supervisor: process 1 of the guard's container, which has the guard running again
//! within 100 ms after whatever befalls it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// A guard that gives no sign of life for so long is hung.
const HUNG: Duration = Duration::from_millis(600);
/// A guard that lived shorter than this is started again after a pause, not at once:
/// whatever kills guards must not take all of a node's processor.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The pause after a violent death.
const PAUSE_KILLED: Duration = Duration::from_millis(50);
/// The pause after a guard has said that it can't go on.
const PAUSE_GAVE_UP: Duration = Duration::from_secs(1);
/// How long a guard that was told to end may take.
const GRACE: Duration = Duration::from_secs(2);
/// The status of a guard that can't start as it is configured: nothing is gained by trying again.
pub const MISCONFIGURED: u8 = 2;

/// Keeps `regent-guard serve ARGUMENTS` running until told to end. Returns its last status.
///
/// # Errors
/// When processes can't be started or waited for.
pub async fn supervise(arguments: &[String]) -> io::Result<ExitStatus> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        // The socket outlives the guard: one that is told to end must not take us for dead.
        let (mut child, heart) = start(arguments)?;
        let born = Instant::now();
        let status = tokio::select! {
            ended = watch(&mut child, &heart) => ended?,
            _ = terminate.recv() => return end(child).await,
            _ = interrupt.recv() => return end(child).await,
        };
        if status.code() == Some(i32::from(MISCONFIGURED)) {
            return Ok(status);
        }
        tracing::error!(%status, "the guard has ended; starting it again");
        if born.elapsed() < SHORT_LIFE {
            sleep(if status.code().is_some() { PAUSE_GAVE_UP } else { PAUSE_KILLED }).await;
        }
    }
}

/// Starts a guard whose standard input is a socket on which it gives signs of life.
fn start(arguments: &[String]) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["serve", "--supervised"])
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

/// Returns when the guard is dead, which it is made to be when it is hung or stopped.
async fn watch(child: &mut Child, heart: &UnixStream) -> io::Result<ExitStatus> {
    let mut changed = signal(SignalKind::child())?;
    loop {
        if let Some(status) = reap(child)? {
            return Ok(status);
        }
        tokio::select! {
            _ = changed.recv() => {}
            alive = timeout(HUNG, beat(heart)) => match alive {
                Ok(true) => {}
                // Its end of the socket is closed: it is dead or about to be.
                Ok(false) => drop(timeout(HUNG, changed.recv()).await),
                Err(_) => {
                    tracing::error!("the guard is hung; killing it");
                    child.kill()?;
                }
            }
        }
    }
}

/// Waits for a sign of life. Whether one came.
async fn beat(heart: &UnixStream) -> bool {
    let mut signs = [0u8; 64];
    loop {
        if heart.readable().await.is_err() {
            return false;
        }
        match heart.try_read(&mut signs) {
            Ok(n) => return n > 0,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

/// Waits for whatever has ended, as process 1 must, and kills a guard that was stopped.
fn reap(child: &Child) -> io::Result<Option<ExitStatus>> {
    let guard = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        match waitpid(None, WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if Some(pid) == guard => {
                if status.stopped() {
                    tracing::error!("the guard was stopped; killing it");
                    kill_process(pid, Signal::KILL)?;
                } else if let Some(ended) = ended(status) {
                    return Ok(Some(ended));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(rustix::io::Errno::CHILD) => return Err(io::Error::other("the guard is nobody's child")),
            Err(e) => return Err(e.into()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<ExitStatus> {
    (status.exited() || status.signaled()).then(|| ExitStatus::from_raw(status.as_raw()))
}

/// Has the guard end, and with it this process: its pods go on until their deadlines.
async fn end(mut child: Child) -> io::Result<ExitStatus> {
    let mut changed = signal(SignalKind::child())?;
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let until = Instant::now() + GRACE;
    loop {
        if let Some(status) = reap(&child)? {
            return Ok(status);
        }
        let left = until.saturating_duration_since(Instant::now());
        if timeout(left, changed.recv()).await.is_err() {
            child.kill()?;
        }
    }
}
