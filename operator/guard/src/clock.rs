//! The two clocks of L1, and a timer that believes the faster of them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use regent_core::time::Moment;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Below this the timer is set for all that is left; above, for a little less, so that
/// it looks at both clocks again: they may run apart by some hundred parts per million.
const FINE: Duration = Duration::from_millis(5);

fn nanos(t: Timespec) -> u64 {
    let (sec, nsec) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// Both clocks, now.
pub fn now() -> Moment {
    Moment { boot_ns: nanos(clock_gettime(ClockId::Boottime)), raw_ns: nanos(clock_gettime(ClockId::MonotonicRaw)) }
}

/// The wall clock, nanoseconds since 1970: for people and audit logs, never for a decision.
pub fn realtime_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// Wakes at a moment, whichever of both clocks reaches it first.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// A timer on CLOCK_BOOTTIME, which goes on in a suspend. Needs a tokio runtime.
    pub fn new() -> std::io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: crate::sys::watched(fd)? })
    }

    /// Returns when `at` has passed for whoever must stop. Never, if there is none.
    pub async fn reached(&self, at: Option<Moment>) {
        let Some(at) = at else { return std::future::pending().await };
        loop {
            let left = at.left_for_stopping(now());
            if left.is_zero() {
                return;
            }
            self.wait(if left > FINE { left - left / 64 } else { left }).await;
        }
    }

    async fn wait(&self, left: Duration) {
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()).max(1),
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // A timer of valid parts can't be refused; if it were, this polls.
        if timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return tokio::task::yield_now().await;
        }
        if let Ok(mut ready) = self.timer.readable().await {
            let mut count = [0u8; 8];
            let _ = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_alarm_wakes_when_either_clock_has_passed_and_never_before() {
        let alarm = Alarm::new().unwrap();
        let start = now();
        let late = Duration::from_secs(3600);
        let cases = [
            Moment { boot_ns: start.after(Duration::from_millis(20)).boot_ns, raw_ns: start.after(late).raw_ns },
            Moment { boot_ns: start.after(late).boot_ns, raw_ns: start.after(Duration::from_millis(40)).raw_ns },
        ];
        for at in cases {
            alarm.reached(Some(at)).await;
            assert!(at.passed_for_stopping(now()));
        }
        tokio::select! {
            () = alarm.reached(None) => panic!("an alarm that was not set went off"),
            () = alarm.reached(Some(start)) => {}
        }
    }
}
