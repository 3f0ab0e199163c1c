//! The clocks of this machine (L1).

use regent_core::time::Moment;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanoseconds(t: Timespec) -> u64 {
    let seconds = u64::try_from(t.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Both clocks that deadlines are kept on, now.
pub fn now() -> Moment {
    Moment {
        boot_ns: nanoseconds(clock_gettime(ClockId::Boottime)),
        raw_ns: nanoseconds(clock_gettime(ClockId::MonotonicRaw)),
    }
}

/// The wall clock, in nanoseconds since 1970. Only for statements that live for days and
/// for evidence; no lease depends on it (I8).
pub fn realtime_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// The identity of this boot of the machine.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_forward() {
        let first = now();
        let second = now();
        assert!(second.boot_ns >= first.boot_ns && second.raw_ns >= first.raw_ns && first.raw_ns > 0);
    }
}
