//! Rules of docs/protocol.md at one witness, each in both directions.

mod bad_input;
mod claims;
mod epochs;
mod explain;
mod interlock;
mod lapse;
mod leaving;
mod line;
mod persist;
mod plans;
mod promise;
mod proof;
mod properties;
mod release;
mod restart;
mod stale;
mod support;
