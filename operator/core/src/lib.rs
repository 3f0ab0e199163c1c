//! Every decision of Regent, as pure functions and state machines.
//!
//! Nothing in this crate does I/O, reads a clock, draws a random number or starts a
//! thread: time, identities and nonces are parameters. The operator, the agent, the
//! guard and the model tests run this same code.
//!
//! ```text
//!   input (message, tick, observation)  ->  core  ->  outputs (messages, persists, effects)
//! ```
//!
//! * [`ids`], [`time`], [`sign`], [`merkle`]: the vocabulary.
//! * [`charter`], [`plan`]: what the parties agreed, and what home wants for a group.
//! * [`message`]: requests, grants and certificates of the control lease.
//! * [`witness`]: one vote (L2 to L9, L12, L14).
//! * [`contender`]: a site's side of the lease: holder and candidate (L10 to L12).
//! * [`guard`]: a node's side of the lease: fence and gate.
//! * [`event`]: what every process reports of what it did, for evidence.

pub mod charter;
pub mod contender;
pub mod event;
#[cfg(test)]
mod fixture;
pub mod guard;
pub mod ids;
pub mod merkle;
pub mod message;
pub mod plan;
pub mod sign;
#[cfg(test)]
mod sim;
pub mod time;
pub mod witness;
