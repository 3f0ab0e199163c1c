//! A federation, a node's kubelet and its cgroups, made by a test for a real guard.

// Each test file uses a part; helpers may panic as tests do.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod federation;
pub mod node;

use std::time::Duration;

use regent_core::time::Moment;

/// Waits for a fact; what is not true after half a minute never will be.
pub async fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = fact() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never came true: {what}");
}

/// Waits until a moment has passed on both clocks.
pub async fn until(boot_ns: u64) {
    eventually("a moment", || (now().boot_ns > boot_ns).then_some(())).await;
}

pub fn now() -> Moment {
    regent_guard::clock::now()
}
