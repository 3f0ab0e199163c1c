//! `regent-operator`.
fn main() {}
