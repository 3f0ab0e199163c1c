//! Site to site: gRPC over mutual TLS with the identities that the charter names.
//!
//! [`client`] calls the other sites, [`server`] answers them. A call whose deadline
//! passes has an unknown outcome, so callers repeat only what may be repeated.

pub mod client;
pub mod server;
