//! What all parts of Regent speak of: names, time, signatures, and what they sign.
//!
//! Nothing in this crate does I/O, reads a clock, draws a random number or starts a
//! thread: time, identities and nonces are parameters. `regent-lease` decides with these
//! words, and every process exchanges them.
//!
//! * [`ids`], [`time`], [`sign`], [`merkle`]: the vocabulary.
//! * [`charter`], [`plan`]: what the parties agreed, and what home wants for a group.
//! * [`message`]: requests, grants and certificates of the control lease.
//! * [`instruction`]: what a hub has a guard do.
//! * [`quantity`]: numbers as Kubernetes writes them.
//! * [`event`]: what every process reports of what it did, for evidence.

pub mod charter;
pub mod event;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod ids;
pub mod instruction;
pub mod merkle;
pub mod message;
pub mod plan;
pub mod quantity;
pub mod sign;
pub mod time;
