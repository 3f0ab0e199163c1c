//! How long to wait before trying again.
//!
//! The only module that knows the `backoff` crate: its delay generator, without its
//! give-up time and without its randomness. Jitter is seeded, so that a simulation
//! repeats itself and two nodes differ.

use std::time::Duration;

use backoff::Clock;
use backoff::backoff::Backoff;
use backoff::exponential::ExponentialBackoff;

/// Tokio's clock, so that a paused or simulated time governs here too.
#[derive(Debug, Default)]
struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// Growing delays between a first and a longest one, for ever.
#[derive(Debug)]
pub struct RetryPolicy {
    delays: ExponentialBackoff<TokioClock>,
    seed: u64,
}

impl RetryPolicy {
    /// Delays that double from `first` to `longest`, each shortened by up to a half as
    /// `seed` has it.
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        let delays = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: longest,
            start_time: TokioClock.now(),
            max_elapsed_time: None,
            clock: TokioClock,
        };
        Self { delays, seed }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.delays.next_backoff().unwrap_or(self.delays.max_interval);
        full / 2 + (full / 2).mul_f64(self.draw())
    }

    /// An attempt succeeded: the next delay is the first one again.
    pub fn reset(&mut self) {
        self.delays.reset();
    }

    /// Waits for the next delay.
    pub async fn wait(&mut self) {
        let delay = self.next_delay();
        tokio::time::sleep(delay).await;
    }

    /// SplitMix64 (Steele, Lea, Flood, 2014), as a fraction below 1.
    fn draw(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 53 bits are what an f64 holds exactly.
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A seed from a name: nodes and sites spread, and each repeats itself (FNV-1a).
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_longest_and_never_end() {
        let mut policy = RetryPolicy::new(FIRST, LONGEST, 1);
        for i in 0..64u32 {
            let full = (FIRST * 2u32.pow(i.min(10))).min(LONGEST);
            let delay = policy.next_delay();
            assert!(delay >= full / 2 && delay <= full, "{i}: {delay:?} of {full:?}");
        }
        policy.reset();
        assert!(policy.next_delay() <= FIRST);
    }

    #[test]
    fn the_same_seed_waits_the_same_and_another_differs() {
        let run = |name: &str| {
            let mut p = RetryPolicy::new(FIRST, LONGEST, seed(name));
            (0..8).map(|_| p.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(run("node-1"), run("node-1"));
        assert_ne!(run("node-1"), run("node-2"));
    }
}
