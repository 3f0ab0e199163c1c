//! The node's part that talks to the network.
//!
//! ```text
//!   regent-guard <--guard.sock--> regent-agent ==stream==> hub (each replica of the operator)
//!     nonces  ------------------------>|------------------>
//!     certificates <-------------------|<------------------
//!     pods -------------------> report |------------------>
//!                     API server: own Node's status
//! ```
//!
//! The agent decides nothing and is believed in nothing. It carries fresh nonces up and
//! certificates down, and tells how its node is. Whoever breaks into it can withhold a
//! certificate, but start nothing: power over the node is the guard's, which verifies
//! everything itself.
//!
//! What it needs to come back with every other part gone is in its state folder: its
//! certificate, its key and the addresses of its hubs.

pub mod config;
pub mod enroll;
pub mod guard;
pub mod hubs;
pub mod node;
pub mod report;
pub mod run;
pub mod state;
pub mod stream;
