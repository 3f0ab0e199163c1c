//! Logs for people, on standard error; standard output is for [`crate::event`] alone.
//!
//! Like events, lines go through a bounded queue to a thread of their own: a reader that
//! hangs costs lines, never a deadline.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for the reader of standard error.
const QUEUE: usize = 4096;

/// Starts logging. `RUST_LOG` chooses what is shown; without it, `info` and above. What is
/// queued is written when the guard is dropped.
#[must_use = "lines are lost when this is dropped"]
pub fn init() -> WorkerGuard {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let queue = NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true).thread_name("logs");
    let (writer, guard) = queue.finish(std::io::stderr());
    // A second call in one process finds the first one's subscriber in place.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).try_init();
    guard
}
