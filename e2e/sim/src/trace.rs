//! What a schedule did: its lines, and how often what happened.

use std::iter::Sum;
use std::ops::AddAssign;

use regent_core::sign::Digest;

/// Where the lines of a schedule go.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
    prints: bool,
}

impl Trace {
    /// None are made.
    pub fn off() -> Self {
        Self::default()
    }

    /// They are kept, and printed as they come if `prints`.
    pub fn on(prints: bool) -> Self {
        Self { lines: Some(Vec::new()), prints }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    pub(crate) fn line(&mut self, line: String) {
        if self.prints {
            println!("{line}");
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// The same for the same seed, wherever it is run.
    pub fn digest(&self) -> Digest {
        Digest::of(self.lines.as_deref().unwrap_or_default().join("\n").as_bytes())
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often what happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counts {
            /// Each with its name.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Happenings, each followed by the check of every invariant.
    steps,
    /// Faults: cuts, losses, restarts, reboots, lost journals.
    faults,
    /// Requests that reached a witness.
    requests,
    /// First certificates of an epoch.
    epochs,
    /// Gates that opened.
    opened,
    /// Pods that were frozen.
    frozen,
    /// Pods that were killed.
    killed,
    /// Releases that were carried to their end by a replica.
    released,
    /// Planned moves whose successor has acquired the group.
    moved,
    /// Plans that home signed meanwhile.
    plans,
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}
