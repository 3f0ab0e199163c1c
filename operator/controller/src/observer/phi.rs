//! How suspicious a silence is: the φ-accrual failure detector (Hayashibara, Défago,
//! Yared, Katayama: "The φ Accrual Failure Detector", SRDS 2004), with the logistic
//! approximation of the normal distribution that Akka and Cassandra use.
//!
//! φ = 1 means: a silence this long happens once in ten times; φ = 8, once in 10⁸.
//! It explains, warns and ranks. It decides nothing.

use std::collections::VecDeque;
use std::time::Duration;

use regent_core::time::Moment;

/// Arrivals that are remembered: enough for a stable mean, little enough to follow a change.
const WINDOW: usize = 100;
/// Intervals are jittered by scheduling at least this much, in seconds.
const MIN_DEVIATION_S: f64 = 0.1;
/// Above this a site counts as not alive.
pub const SUSPECT: f64 = 8.0;
/// φ is cut here: beyond it the floating point has no digits left.
const MAX_PHI: f64 = 300.0;

/// Arrivals of one site's heartbeats.
#[derive(Debug, Clone)]
pub struct Detector {
    intervals: VecDeque<f64>,
    last: Option<Moment>,
    expected: Duration,
}

impl Detector {
    /// A detector that has heard nothing yet and expects a heartbeat each `expected`.
    pub fn new(expected: Duration) -> Self {
        Self { intervals: VecDeque::with_capacity(WINDOW), last: None, expected }
    }

    /// A heartbeat was answered.
    pub fn heard(&mut self, now: Moment) {
        if let Some(last) = self.last {
            let interval = seconds(last, now);
            // The first beat after an outage says nothing about the rhythm of a healthy site.
            if interval < 10.0 * self.expected.as_secs_f64() {
                if self.intervals.len() == WINDOW {
                    self.intervals.pop_front();
                }
                self.intervals.push_back(interval);
            }
        }
        self.last = Some(now);
    }

    /// When a heartbeat was heard last.
    pub fn last(&self) -> Option<Moment> {
        self.last
    }

    /// φ now; a site that was never heard is suspected without limit.
    pub fn phi(&self, now: Moment) -> f64 {
        let Some(last) = self.last else { return MAX_PHI };
        let (mean, deviation) = self.rhythm();
        let y = (seconds(last, now) - mean) / deviation;
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        let later = if y > 0.0 { e / (1.0 + e) } else { 1.0 - 1.0 / (1.0 + e) };
        (-later.log10()).clamp(0.0, MAX_PHI)
    }

    /// Whether the silence is short enough to be chance.
    pub fn is_alive(&self, now: Moment) -> bool {
        self.phi(now) < SUSPECT
    }

    fn rhythm(&self) -> (f64, f64) {
        let expected = self.expected.as_secs_f64();
        if self.intervals.is_empty() {
            return (expected, (expected / 4.0).max(MIN_DEVIATION_S));
        }
        let n = self.intervals.len() as f64;
        let mean = self.intervals.iter().sum::<f64>() / n;
        let variance = self.intervals.iter().map(|i| (i - mean) * (i - mean)).sum::<f64>() / n;
        (mean, variance.sqrt().max(MIN_DEVIATION_S))
    }
}

fn seconds(from: Moment, to: Moment) -> f64 {
    to.boot_ns.saturating_sub(from.boot_ns) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::default().after(Duration::from_millis(ms))
    }

    fn regular() -> Detector {
        let mut d = Detector::new(Duration::from_secs(1));
        for i in 0..50 {
            d.heard(at(1000 * i + (i % 3) * 20));
        }
        d
    }

    #[test]
    fn a_regular_site_is_alive_and_suspicion_only_grows_with_silence() {
        let d = regular();
        let last = 49_000 + 20;
        assert!(d.phi(at(last + 500)) < 0.1);
        assert!(d.is_alive(at(last + 1100)));
        let phis: Vec<f64> = (0..40).map(|i| d.phi(at(last + 250 * i))).collect();
        assert!(phis.windows(2).all(|w| w[0] <= w[1]), "{phis:?}");
        assert!(!d.is_alive(at(last + 3000)));
    }

    #[test]
    fn an_irregular_site_is_suspected_later_than_a_regular_one() {
        let mut d = Detector::new(Duration::from_secs(1));
        let mut t = 0;
        for i in 0..50 {
            t += if i % 2 == 0 { 300 } else { 1700 };
            d.heard(at(t));
        }
        assert!(d.phi(at(t + 2200)) < regular().phi(at(49_020 + 2200)));
    }

    #[test]
    fn a_site_that_was_never_heard_is_not_alive_and_one_beat_makes_it_so() {
        let mut d = Detector::new(Duration::from_secs(1));
        assert!(!d.is_alive(at(0)));
        d.heard(at(10));
        assert!(d.is_alive(at(900)));
    }

    #[test]
    fn an_outage_does_not_teach_patience() {
        let mut d = regular();
        let before = d.phi(at(49_020 + 2500));
        d.heard(at(600_000));
        assert!((d.phi(at(600_000 + 2500)) - before).abs() < before * 0.2);
    }
}
