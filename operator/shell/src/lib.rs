//! What every process of Regent needs to touch the world, once.
//!
//! * [`clock`]: the two clocks of L1, and the wall clock for statements that live for days.
//! * [`event`]: facts as JSON lines on standard output, never waiting for their reader.
//! * [`logging`]: everything else, on standard error.
//! * [`retry`]: how long to wait before trying again.
//! * [`tls`]: who is at the other end.

pub mod clock;
pub mod event;
pub mod logging;
pub mod retry;
pub mod tls;
