//! Seeded chance, and clocks that drift.

use regent_core::time::Moment;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for part in out.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        out
    }
}

/// A machine's two clocks: each runs at its own rate within ρ of real time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    booted: u64,
    boot_ppm: i64,
    raw_ppm: i64,
}

impl Clock {
    pub fn booted_at(t: u64, rng: &mut Rng, ppm: u64) -> Self {
        let mut rate = || rng.below(2 * ppm + 1) as i64 - ppm as i64;
        Self { booted: t, boot_ppm: rate(), raw_ppm: rate() }
    }

    fn scale(d: u64, ppm: i64) -> u64 {
        (i128::from(d) * i128::from(1_000_000 + ppm) / 1_000_000) as u64
    }

    /// What the clocks show at real time `t`. They were started a while before.
    pub fn read(&self, t: u64) -> Moment {
        let d = t - self.booted;
        Moment { boot_ns: Self::scale(d, self.boot_ppm), raw_ns: Self::scale(d, self.raw_ppm) }
    }

    /// The real time at which the first of both clocks shows `at`.
    pub fn when(&self, at: Moment) -> u64 {
        let back = |ns: u64, ppm: i64| (i128::from(ns) * 1_000_000 / i128::from(1_000_000 + ppm)) as u64 + 1;
        self.booted + back(at.boot_ns, self.boot_ppm).min(back(at.raw_ns, self.raw_ppm))
    }
}
