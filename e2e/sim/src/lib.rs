//! A federation in one thread: the real contenders, witnesses, guards, lists of nodes and
//! takeovers under a seeded schedule of faults, one step after the other.
//!
//! Every step is checked: no two sites execute the group at once (I1), nothing runs under a
//! lower epoch than what another site ran before (I2). After the last fault there must be a
//! lasting holder within 41 P.
//!
//! What is not simulated: API servers, kubelets and how pods get ready. Decisions are none of
//! the simulation's own: it calls the same pure rooms as the operator and the guard.

// A schedule that can't be set up is the simulation's own mistake, and ends it.
#![allow(clippy::unwrap_used)]

mod adopt;
mod check;
mod clock;
mod faults;
mod hub;
mod lists;
mod moves;
mod net;
mod node;
mod shift;
mod trace;
mod vote;
mod world;

pub use trace::{Counts, Trace};

use world::{Shape, World};

/// What a schedule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Faults of every kind.
    Any,
    /// Messages are lost and late.
    Lossy,
    /// Home is cut off.
    Cut,
    /// The group moves away and back.
    Planned,
    /// The group becomes Protected.
    Adopted,
    /// Home drops the standby that holds.
    Dropped,
    /// Home is cut off while not every standby is ready.
    Unready,
    /// As any, while plans and readiness change.
    Shifting,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Any, Self::Lossy, Self::Cut, Self::Planned, Self::Adopted, Self::Dropped, Self::Unready, Self::Shifting];

    fn shape(self, seed: u64) -> Shape {
        match self {
            Self::Any => Shape::any(seed),
            Self::Lossy => Shape::lossy(seed),
            Self::Cut => Shape::cut(seed),
            Self::Planned => Shape::planned(seed),
            Self::Adopted => Shape::adopted(seed),
            Self::Dropped => Shape::dropped(seed),
            Self::Unready => Shape::unready(seed),
            Self::Shifting => Shape::shifting(seed),
        }
    }
}

/// Signs with hashes on this thread from here on, if the crate was built for that.
pub fn sign_quickly() {
    #[cfg(feature = "hashed")]
    regent_core::sign::scheme::hash_on_this_thread();
}

/// How a schedule went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was violated, if anything was.
    pub violation: Option<String>,
    /// How often what happened.
    pub counts: Counts,
    /// Its lines.
    pub trace: Trace,
}

/// Runs one schedule. The same kind and seed always give the same outcome.
pub fn run(kind: Kind, seed: u64, trace: Trace) -> Outcome {
    let mut world = World::new(seed, kind.shape(seed), trace);
    let violation = world.run().err();
    let (counts, trace) = world.into_trace();
    Outcome { violation, counts, trace }
}
