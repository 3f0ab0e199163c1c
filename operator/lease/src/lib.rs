//! The control lease, as pure state machines: who may run a group, and until when.
//!
//! Nothing here does I/O, reads a clock, draws a random number or starts a thread: time,
//! identities and nonces are parameters. The operator, the guard and the simulation run
//! this same code.
//!
//! ```text
//!   input (message, tick, observation)  ->  state machine  ->  outputs (messages, persists, effects)
//! ```
//!
//! * [`witness`]: one vote (L2 to L9, L12, L14).
//! * [`contender`]: a site's side of the lease: holder and candidate (L10 to L12).
//! * [`guard`]: a node's side of the lease: fence and gate.
//! * [`nodes`]: the list of nodes that may run a group (L12).
//! * [`adoption`]: a group's way from `Observed` to `Protected`.
//! * [`takeover`]: how far a change of holder is, and what comes next.
//! * [`deliver`]: from a certificate to what each node is shown of it.

pub mod adoption;
pub mod contender;
pub mod deliver;
pub mod guard;
pub mod nodes;
#[cfg(test)]
mod script;
pub mod takeover;
pub mod witness;
