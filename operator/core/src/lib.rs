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
//! * [`event`]: what every process reports of what it did, for evidence.

pub mod charter;
pub mod event;
pub mod ids;
pub mod merkle;
pub mod message;
pub mod plan;
pub mod sign;
pub mod time;
