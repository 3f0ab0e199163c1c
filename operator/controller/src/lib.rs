//! The operator: thin shells around `regent-core`.
//!
//! ```text
//!             Federation (gRPC, mutual TLS)            Kubernetes API
//!                  |          ^                         |        ^
//!                  v          |                         v        |
//!   +----------+ +-----------+ +----------+ +-------+ +-----------+ +--------+
//!   | witness  | | contender | | observer | | plans | | reconcile | | mirror |
//!   +----------+ +-----------+ +----------+ +-------+ +-----------+ +--------+
//!                  |  ^ nonces
//!     certificates v  |
//!                 hub (gRPC, TLS) <----> agents
//! ```
//!
//! A shell reads clocks, sockets and objects, feeds the core, and carries out what it
//! says. The path from a witness's answer to the hub touches no Kubernetes API.

pub mod app;
pub mod cache;
pub mod context;
pub mod federation;
pub mod hub;
pub mod leader;
pub mod lease;
pub mod mirror;
pub mod objects;
pub mod observer;
pub mod plans;
pub mod random;
pub mod reconcile;
pub mod releases;
pub mod standby;
pub mod views;
pub mod witness;
