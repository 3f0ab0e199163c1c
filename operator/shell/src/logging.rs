//! Logs for people, on standard error; standard output is for [`crate::event`] alone.

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` chooses what is shown; without it, `info` and above.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call in one process finds the first one's subscriber in place.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
