//! Facts, as JSON lines on standard output.
//!
//! A container's standard output is a pipe whose reader may hang with the rest of the
//! node. Whoever keeps deadlines must not wait for it: events go through a bounded
//! queue to a thread of their own, and are dropped and counted when it is full.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use regent_core::event::{Actor, Event, names};
use regent_core::ids::SiteName;

use crate::clock;

/// Events that may wait for the reader of standard output.
const QUEUE: usize = 4096;
const STACK_BYTES: usize = 64 << 10;

enum Line {
    Event(String),
    Flush(SyncSender<()>),
}

static WRITER: OnceLock<Option<SyncSender<Line>>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

fn write_all(lines: Receiver<Line>) {
    let mut out = std::io::stdout();
    for line in lines {
        match line {
            Line::Event(text) => {
                // Without a reader there is nobody to tell.
                let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            }
            Line::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

fn writer() -> Option<&'static SyncSender<Line>> {
    let start = || {
        let (tx, rx) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("events".into()).stack_size(STACK_BYTES);
        thread.spawn(move || write_all(rx)).ok().map(|_| tx)
    };
    WRITER.get_or_init(start).as_ref()
}

/// Says a fact. Never blocks; when 4096 facts wait already, this one is dropped and counted.
pub fn emit(event: &Event) {
    let Ok(mut line) = serde_json::to_string(event) else { return };
    line.push('\n');
    let sent = writer().is_some_and(|w| w.try_send(Line::Event(line)).is_ok());
    if !sent {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many facts were dropped because nobody reads standard output.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until what was said is written, for at most a second: before an exit.
pub fn flush() {
    let (tx, rx) = sync_channel(1);
    if writer().is_some_and(|w| w.try_send(Line::Flush(tx)).is_ok()) {
        let _ = rx.recv_timeout(Duration::from_secs(1));
    }
}

/// Says that this process began; places its wall clock on the machine's CLOCK_BOOTTIME.
pub fn started(site: &SiteName, actor: Actor, node: Option<&str>, version: &str) {
    let realtime_ns = clock::realtime_ns();
    emit(&Event {
        boot_ns: clock::now().boot_ns,
        site: site.clone(),
        actor,
        event: names::STARTED.to_owned(),
        group: None,
        epoch: None,
        node: node.map(str::to_owned),
        detail: serde_json::json!({ "realtime_ns": realtime_ns, "version": version, "pid": std::process::id() }),
    });
}
