//! Two clocks, read by the shells and handed in (L1, I8).
//!
//! A deadline is kept on CLOCK_BOOTTIME and on CLOCK_MONOTONIC_RAW. Whoever must
//! *stop* takes it as passed when either clock says so; whoever must *wait*, only
//! when both do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One reading of both clocks, in nanoseconds since the boot of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Moment {
    /// CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// CLOCK_MONOTONIC_RAW.
    pub raw_ns: u64,
}

impl Moment {
    /// Both clocks, `d` later. Saturates at the end of time.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        let d = nanos(d);
        Self { boot_ns: self.boot_ns.saturating_add(d), raw_ns: self.raw_ns.saturating_add(d) }
    }

    /// Both clocks, `d` earlier. Saturates at the boot.
    #[must_use]
    pub fn before(self, d: Duration) -> Self {
        let d = nanos(d);
        Self { boot_ns: self.boot_ns.saturating_sub(d), raw_ns: self.raw_ns.saturating_sub(d) }
    }

    /// Whoever must stop at `self`: has either clock passed it?
    #[must_use]
    pub fn passed_for_stopping(self, now: Self) -> bool {
        now.boot_ns >= self.boot_ns || now.raw_ns >= self.raw_ns
    }

    /// Whoever must wait for `self`: have both clocks passed it?
    #[must_use]
    pub fn passed_for_waiting(self, now: Self) -> bool {
        now.boot_ns >= self.boot_ns && now.raw_ns >= self.raw_ns
    }

    /// What is left until `self` for whoever must stop: the shorter of both clocks.
    #[must_use]
    pub fn left_for_stopping(self, now: Self) -> Duration {
        let left = self.boot_ns.saturating_sub(now.boot_ns).min(self.raw_ns.saturating_sub(now.raw_ns));
        Duration::from_nanos(left)
    }

    /// What is left until `self` for whoever must wait: the longer of both clocks.
    #[must_use]
    pub fn left_for_waiting(self, now: Self) -> Duration {
        let left = self.boot_ns.saturating_sub(now.boot_ns).max(self.raw_ns.saturating_sub(now.raw_ns));
        Duration::from_nanos(left)
    }

    /// The later of two moments, clock by clock.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { boot_ns: self.boot_ns.max(other.boot_ns), raw_ns: self.raw_ns.max(other.raw_ns) }
    }

    /// The earlier of two moments, clock by clock.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { boot_ns: self.boot_ns.min(other.boot_ns), raw_ns: self.raw_ns.min(other.raw_ns) }
    }
}

/// A duration in whole nanoseconds; 584 years and more saturate.
pub fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopper_believes_the_faster_clock_and_a_waiter_the_slower() {
        let end = Moment { boot_ns: 100, raw_ns: 100 };
        let split = Moment { boot_ns: 120, raw_ns: 90 };
        assert!(end.passed_for_stopping(split));
        assert!(!end.passed_for_waiting(split));
        assert_eq!(end.left_for_stopping(split), Duration::ZERO);
        assert_eq!(end.left_for_waiting(split), Duration::from_nanos(10));
    }
}
