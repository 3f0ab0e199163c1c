//! Places the wall clock of audit logs on CLOCK_BOOTTIME.

use crate::event::Event;

/// Moments known on both clocks, by events that carry `detail.realtime_ns`.
#[derive(Debug, Clone)]
pub struct Clock(Vec<(i128, i128)>);

impl Clock {
    /// A clock from all events that know both times; `None` when there is none.
    pub fn new(events: &[Event]) -> Option<Clock> {
        let both = events.iter().filter_map(|e| Some((e.realtime_ns()?.into(), e.boot_ns.into())));
        let anchors: Vec<(i128, i128)> = both.collect();
        (!anchors.is_empty()).then_some(Clock(anchors))
    }

    /// CLOCK_BOOTTIME in nanoseconds at a moment of the wall clock, by the nearest known moment:
    /// the wall clock may have been set in between.
    pub fn boot_ns(&self, wall: jiff::Timestamp) -> i128 {
        let wall = wall.as_nanosecond();
        let nearest = self.0.iter().min_by_key(|(real, _)| (wall - real).abs());
        nearest.map_or(0, |(real, boot)| boot + (wall - real))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::event::{Actor, Kind};
    use jiff::Timestamp;

    fn anchor(boot_ns: u64, realtime_ns: u64) -> Event {
        let mut event = Event::now("ireland", Actor::Rig, Kind::Cut);
        event.boot_ns = boot_ns;
        event.detail.insert("realtime_ns".into(), realtime_ns.into());
        event
    }

    #[test]
    fn the_nearest_anchor_places_a_time() {
        // The wall clock was set back by 500 between the two.
        let clock = Clock::new(&[anchor(1_000, 90_000), anchor(2_000, 90_500)]).unwrap();
        assert_eq!(clock.boot_ns(Timestamp::from_nanosecond(90_100).unwrap()), 1_100);
        assert_eq!(clock.boot_ns(Timestamp::from_nanosecond(90_600).unwrap()), 2_100);
    }

    #[test]
    fn without_an_anchor_there_is_no_clock() {
        assert!(Clock::new(&[Event::now("ireland", Actor::Rig, Kind::Cut)]).is_none());
    }
}
