//! Links between sites and inside them: lost, late, doubled, reordered, cut.

use crate::clock::{MS, Rng};

/// How messages fare now.
#[derive(Debug, Clone, Default)]
pub struct Net {
    /// `cut[a][b]`: nothing from site a reaches site b.
    pub cut: [[bool; 5]; 5],
    pub loss_permille: u64,
    pub double_permille: u64,
    /// The longest delay, in milliseconds.
    pub delay_ms: u64,
    /// One message in a hundred is later still, by up to so much.
    pub straggler_ms: u64,
}

impl Net {
    pub fn calm() -> Self {
        Self { delay_ms: 20, ..Self::default() }
    }

    pub fn block(&mut self, from: usize, to: usize, on: bool) {
        self.cut[from][to] = on;
    }

    pub fn isolate(&mut self, site: usize) {
        for other in (0..5).filter(|o| *o != site) {
            self.cut[site][other] = true;
            self.cut[other][site] = true;
        }
    }

    /// Delays after which a message arrives: none, one or two.
    pub fn delays(&self, rng: &mut Rng, from: usize, to: usize) -> Vec<u64> {
        if self.cut[from][to] || rng.chance(self.loss_permille) {
            return Vec::new();
        }
        let copies = if rng.chance(self.double_permille) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(rng)).collect()
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let late = if rng.chance(10) { rng.below(self.straggler_ms + 1) } else { 0 };
        (rng.below(self.delay_ms + 1) + late) * MS + rng.below(MS)
    }

    /// Whether a message that is under way still arrives.
    pub fn arrives(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to]
    }
}
