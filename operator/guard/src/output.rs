//! Events and logs, written by a thread of their own.
//!
//! A container's output ends in a pipe that containerd reads. When containerd hangs the
//! pipe fills, and whoever writes to it hangs too; a guard must not (I12). So lines are
//! queued, and those that find the queue full are counted and lost.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use regent_core::event::Event;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for a reader of the container's output.
const QUEUE: usize = 4096;

enum Line {
    /// For standard output.
    Event(Vec<u8>),
    /// For standard error.
    Log(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Where a guard writes; clones write to the same place.
#[derive(Clone)]
pub struct Output {
    queue: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl Output {
    /// Starts the thread that writes.
    pub fn start() -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new().name("output".into()).spawn(move || write(&lines, &counted))?;
        Ok(Self { queue, lost })
    }

    /// Reports a fact: one JSON object a line on standard output.
    pub fn event(&self, event: &Event) {
        if let Ok(mut line) = serde_json::to_vec(event) {
            line.push(b'\n');
            self.send(Line::Event(line));
        }
    }

    /// Waits, but not for long, until what was queued is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Line::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_millis(200));
        }
    }

    fn send(&self, line: Line) {
        if self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(lines: &Receiver<Line>, lost: &AtomicU64) {
    // Nobody is left to be told when the container's output is gone.
    while let Ok(line) = lines.recv() {
        let gone = lost.swap(0, Ordering::Relaxed);
        if gone > 0 {
            let _ = writeln!(io::stderr(), "{gone} lines were lost while nobody read this container's output");
        }
        match line {
            Line::Event(text) => {
                let mut out = io::stdout().lock();
                let _ = out.write_all(&text).and_then(|()| out.flush());
            }
            Line::Log(text) => drop(io::stderr().write_all(&text)),
            Line::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Collects one log record and queues it when it is complete.
pub struct LogLine {
    text: Vec<u8>,
    output: Output,
}

impl Write for LogLine {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(part);
        Ok(part.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            self.output.send(Line::Log(text));
        }
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = LogLine;
    fn make_writer(&'a self) -> LogLine {
        LogLine { text: Vec::new(), output: self.clone() }
    }
}
