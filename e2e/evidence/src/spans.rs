//! Stretches of time: where a site ran, and where two did.

/// Disjoint half-open intervals `[from, to)` in nanoseconds, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// The stretches that `moments` (any order) witness: moments no further apart than
    /// `bound_ns` belong together, and each lasts `least_ns` by itself, so that a single one
    /// inside another site's stretch still counts.
    pub fn of_moments(moments: impl IntoIterator<Item = u64>, bound_ns: u64, least_ns: u64) -> Spans {
        let mut moments: Vec<u64> = moments.into_iter().collect();
        moments.sort_unstable();
        let mut spans: Vec<(u64, u64)> = Vec::new();
        let mut previous = None;
        for at in moments {
            let end = at.saturating_add(least_ns);
            let joins = previous.is_some_and(|p| at - p <= bound_ns);
            match spans.last_mut() {
                Some(last) if joins || at <= last.1 => last.1 = last.1.max(end),
                _ => spans.push((at, end)),
            }
            previous = Some(at);
        }
        Spans(spans)
    }

    /// One interval; empty unless `from_ns < to_ns`.
    pub fn one(from_ns: u64, to_ns: u64) -> Spans {
        Spans(if from_ns < to_ns { vec![(from_ns, to_ns)] } else { Vec::new() })
    }

    /// The intervals.
    pub fn intervals(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Everything that is in one or the other.
    pub fn union(&self, other: &Spans) -> Spans {
        let mut all: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in all {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Spans(merged)
    }

    /// Everything that is in both.
    pub fn intersection(&self, other: &Spans) -> Spans {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
            let (from, to) = (a.max(c), b.min(d));
            if from < to {
                common.push((from, to));
            }
            if b <= d {
                left.next();
            } else {
                right.next();
            }
        }
        Spans(common)
    }

    /// Nanoseconds in all.
    pub fn total_ns(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }
}

/// The time during which at least two of `sites` ran.
pub fn overlap(sites: &[Spans]) -> Spans {
    let mut together = Spans::default();
    let mut any = Spans::default();
    for site in sites {
        together = together.union(&any.intersection(site));
        any = any.union(site);
    }
    together
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Spans> {
        proptest::collection::vec(0..400u64, 0..30).prop_map(|m| Spans::of_moments(m, 5, 2))
    }

    fn holds(spans: &Spans, at: u64) -> bool {
        spans.0.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    proptest! {
        #[test]
        fn union_and_intersection_agree_with_every_single_moment(a in spans(), b in spans()) {
            let (either, both) = (a.union(&b), a.intersection(&b));
            for at in 0..420 {
                prop_assert_eq!(holds(&either, at), holds(&a, at) || holds(&b, at));
                prop_assert_eq!(holds(&both, at), holds(&a, at) && holds(&b, at));
            }
        }

        #[test]
        fn overlap_is_where_two_of_any_number_run(sites in proptest::collection::vec(spans(), 0..4)) {
            let found = overlap(&sites);
            let want = (0..420).filter(|at| sites.iter().filter(|s| holds(s, *at)).count() > 1);
            prop_assert_eq!(found.total_ns(), want.count() as u64);
        }

        #[test]
        fn every_moment_is_in_its_stretch_and_stretches_are_apart(
            moments in proptest::collection::vec(0..400u64, 0..30)
        ) {
            let spans = Spans::of_moments(moments.clone(), 5, 1);
            for at in moments {
                prop_assert!(holds(&spans, at));
            }
            for pair in spans.0.windows(2) {
                prop_assert!(pair[1].0 - pair[0].1 >= 5);
            }
        }
    }

    #[test]
    fn a_single_line_inside_another_sites_run_is_an_overlap() {
        let home = Spans::of_moments([1_000], 250, 1);
        let partner = Spans::of_moments([900, 1_100], 250, 1);
        assert_eq!(overlap(&[home, partner]).total_ns(), 1);
    }

    #[test]
    fn runs_one_after_the_other_do_not_overlap() {
        let home = Spans::of_moments((0..100).map(|i| i * 50), 250, 1);
        let partner = Spans::of_moments((100..200).map(|i| i * 50), 250, 1);
        assert_eq!(overlap(&[home, partner]).total_ns(), 0);
    }

    #[test]
    fn a_longer_silence_than_the_bound_ends_a_run() {
        let spans = Spans::of_moments([0, 250, 501], 250, 1);
        assert_eq!(spans.intervals(), [(0, 251), (501, 502)]);
    }
}
