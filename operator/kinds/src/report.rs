//! What a site says of a group: what it holds ready, or how it runs.

use regent_api::group::{Difference, StandbyState};

use crate::object::shortened;

/// The most notices of one report.
pub const MAX_NOTICES: usize = 32;
/// The most differences of one report.
pub const MAX_DIFFERENCES: usize = 64;
/// The longest notice, in bytes.
pub const MAX_TEXT: usize = 512;
/// The longest path or value of a difference, in bytes.
pub const MAX_VALUE: usize = 1024;
/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 2048;

/// What a site holds ready of a group, or how the group runs there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandbyReport {
    /// What it has prepared.
    pub state: StandbyState,
    /// The digest of the bundle that is held ready, or runs; empty: none.
    pub revision: String,
    /// The digest of a newer bundle that is being prepared.
    pub next: Option<String>,
    /// The epoch under which the group runs there, as TERM.SITE.
    pub epoch: Option<String>,
    /// Pods that are held ready, or ready.
    pub armed: u32,
    /// Pods that are wanted.
    pub wanted: u32,
    /// Why it isn't ready, in one word.
    pub reason: String,
    /// Why it isn't ready, and what to do.
    pub message: String,
    /// What is different or missing there, and no reason to block.
    pub notices: Vec<String>,
    /// What people changed there while it held the group.
    pub differences: Vec<Difference>,
}

/// Notices within the bounds that a status has: the last of too many says how many are left out.
pub fn bounded_notices<'a>(all: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut notices: Vec<String> = all.into_iter().map(|n| shortened(n, MAX_TEXT).to_owned()).collect();
    if notices.len() > MAX_NOTICES {
        let more = notices.len() - (MAX_NOTICES - 1);
        notices.truncate(MAX_NOTICES - 1);
        notices.push(format!("and {more} more, which are not shown"));
    }
    notices
}

impl StandbyReport {
    /// A report that says why nothing, or not enough, is held ready.
    pub fn of(state: StandbyState, reason: &str, message: String) -> Self {
        Self { state, reason: reason.to_owned(), message, ..Self::default() }
    }

    /// The report within the bounds that other sites accept.
    pub fn bounded(mut self) -> Self {
        self.message = shortened(&self.message, MAX_MESSAGE).to_owned();
        self.notices = bounded_notices(&self.notices);
        self.differences.truncate(MAX_DIFFERENCES);
        // A part of a value is none: nobody could carry it home.
        self.differences.retain(|d| d.path.len() <= MAX_VALUE);
        let is_long = |v: &Option<String>| v.as_ref().is_some_and(|v| v.len() > MAX_VALUE);
        for difference in self.differences.iter_mut().filter(|d| is_long(&d.home) || is_long(&d.here)) {
            (difference.home, difference.here) = (None, None);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_too_long_is_none_and_never_a_part_of_one() {
        let long = |n: usize| Some("x".repeat(n));
        let difference = |home, here| Difference { object: "o".into(), path: "/p".into(), home, here };
        let differences = vec![difference(long(9), long(MAX_VALUE + 1)), difference(long(9), long(MAX_VALUE))];
        let report = StandbyReport { differences, notices: vec!["ä".repeat(400); 40], ..StandbyReport::default() };
        let bounded = report.bounded();
        assert_eq!(bounded.differences[0], difference(None, None));
        assert_eq!(bounded.differences[1], difference(long(9), long(MAX_VALUE)));
        assert_eq!((bounded.notices.len(), bounded.notices[0].len()), (MAX_NOTICES, MAX_TEXT));
        assert_eq!(bounded.notices[MAX_NOTICES - 1], "and 9 more, which are not shown");
        assert_eq!(bounded_notices(&bounded.notices), bounded.notices, "read back, they say the same");
    }
}
