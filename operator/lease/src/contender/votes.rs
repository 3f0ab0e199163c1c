//! What witnesses named as their votes, and which epoch follows from it (L10, L11).

use std::collections::BTreeMap;

use regent_core::ids::{Epoch, SiteName};
use regent_core::message::Vote;

use super::output::RoundId;

/// One liar's huge number must not lead a site where every honest witness refuses (L10).
const ABOVE_THE_NEXT: u64 = 15;

/// How far above its vote a witness lets a term leap (L4.5).
pub(super) const LEAP: u64 = crate::witness::MAX_TERM_LEAP;

/// For one group the last vote that each witness named.
#[derive(Debug, Clone, Default)]
pub(super) struct Votes {
    named: BTreeMap<SiteName, (RoundId, Vote)>,
}

/// The highest vote that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Top {
    /// No witness named any.
    None,
    /// This one.
    Vote(Vote),
    /// A vote above the cap; the cap is all that is believed of it.
    Capped(u64),
}

impl Votes {
    /// Takes a witness's word, unless a later one is known.
    pub(super) fn note(&mut self, witness: &SiteName, round: RoundId, vote: Vote) {
        match self.named.get(witness) {
            Some((known, _)) if *known > round => {}
            _ => {
                self.named.insert(witness.clone(), (round, vote));
            }
        }
    }

    /// What a witness named last.
    pub(super) fn of(&self, witness: &SiteName) -> Option<&Vote> {
        self.named.get(witness).map(|(_, vote)| vote)
    }

    /// Whether a witness named this epoch as a vote for `site`.
    pub(super) fn names(&self, site: &SiteName, epoch: Epoch) -> bool {
        self.named.values().any(|(_, vote)| &vote.site == site && vote.epoch == epoch)
    }

    /// How many witnesses name a vote for `site` that is not over.
    pub(super) fn for_site(&self, site: &SiteName, retired: Option<Epoch>) -> usize {
        self.named.values().filter(|(_, vote)| &vote.site == site && Some(vote.epoch) > retired).count()
    }

    /// The highest vote named, at most 15 terms above the `(f+1)`-th highest.
    pub(super) fn top(&self, f: usize) -> Top {
        let mut votes: Vec<&Vote> = self.named.values().map(|(_, vote)| vote).collect();
        votes.sort_by_key(|v| std::cmp::Reverse(v.epoch));
        let Some(highest) = votes.first() else {
            return Top::None;
        };
        let cap = votes.get(f).map_or(0, |v| v.epoch.term).saturating_add(ABOVE_THE_NEXT);
        if highest.epoch.term <= cap { Top::Vote((*highest).clone()) } else { Top::Capped(cap) }
    }

    /// The newest holder that at least one honest witness stands behind: `f` of them may
    /// invent what they say, so a site counts with its `(f+1)`-th highest vote.
    pub(super) fn believed(&self, f: usize) -> Option<Vote> {
        let mut by_site: BTreeMap<&SiteName, Vec<Epoch>> = BTreeMap::new();
        for (_, vote) in self.named.values() {
            by_site.entry(&vote.site).or_default().push(vote.epoch);
        }
        let backed = by_site.into_iter().filter_map(|(site, mut epochs)| {
            epochs.sort_by_key(|e| std::cmp::Reverse(*e));
            Some(Vote { site: site.clone(), epoch: *epochs.get(f)? })
        });
        backed.max_by_key(|vote| vote.epoch)
    }

    /// The epoch to ask for: exactly this site's own if no other is above it (another
    /// replica may hold it, or this one before its restart); else the next term.
    /// `floor` is an epoch of our own that is over, or the highest that we had.
    pub(super) fn next_epoch(
        &self,
        f: usize,
        own: (&SiteName, u32),
        retired: Option<Epoch>,
        floor: Option<Epoch>,
    ) -> Epoch {
        let (site, number) = own;
        let low = retired.max(floor);
        let top = match self.top(f) {
            Top::None => 0,
            Top::Capped(term) => term,
            Top::Vote(vote) => {
                let ours = &vote.site == site && vote.epoch.site == number;
                if ours && Some(vote.epoch) > retired && Some(vote.epoch) >= floor {
                    return vote.epoch;
                }
                vote.epoch.term
            }
        };
        let term = top.max(low.map_or(0, |e| e.term)).saturating_add(1);
        Epoch { term, site: number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(named: &[(&str, &str)]) -> Votes {
        let mut votes = Votes::default();
        for (i, (site, epoch)) in named.iter().enumerate() {
            let witness = format!("w{i}").parse().unwrap();
            votes.note(&witness, RoundId(0), Vote { site: site.parse().unwrap(), epoch: epoch.parse().unwrap() });
        }
        votes
    }

    fn next(votes: &Votes, retired: Option<&str>) -> String {
        let own = "ie".parse().unwrap();
        votes.next_epoch(1, (&own, 1), retired.map(|e| e.parse().unwrap()), None).to_string()
    }

    #[test]
    fn the_first_epoch_has_term_1_and_later_ones_the_highest_seen_plus_1() {
        assert_eq!(next(&votes(&[]), None), "1.1");
        assert_eq!(next(&votes(&[("fr", "3.2"), ("ie", "2.1"), ("fr", "3.2")]), None), "4.1");
        assert_eq!(next(&votes(&[("fr", "3.2"), ("de", "3.3")]), None), "4.1");
    }

    #[test]
    fn an_epoch_of_our_own_that_nobody_overtook_is_asked_for_again_unless_it_is_retired() {
        let held = votes(&[("ie", "3.1"), ("ie", "3.1"), ("fr", "2.2")]);
        assert_eq!(next(&held, None), "3.1");
        assert_eq!(next(&held, Some("3.1")), "4.1");
        assert_eq!(next(&votes(&[("ie", "3.1"), ("fr", "3.2")]), None), "4.1");
    }

    #[test]
    fn one_liar_leads_at_most_15_terms_away_from_what_the_others_name() {
        assert_eq!(next(&votes(&[("fr", "5.2"), ("fr", "5.2"), ("de", "1000000.3")]), None), "21.1");
        assert_eq!(next(&votes(&[("fr", "5.2"), ("fr", "5.2"), ("de", "20.3")]), None), "21.1");
        assert_eq!(next(&votes(&[("de", "1000000.3")]), None), "16.1");
        assert_eq!(next(&votes(&[("de", "30.3"), ("de", "30.3"), ("fr", "5.2")]), None), "31.1");
        // A capped number isn't believed to be ours either.
        assert_eq!(next(&votes(&[("ie", "5.1"), ("ie", "5.1"), ("ie", "999.1")]), None), "21.1");
    }

    #[test]
    fn f_lying_witnesses_name_no_holder() {
        let believed = |named: &[(&str, &str)]| votes(named).believed(1).map(|v| format!("{} {}", v.site, v.epoch));
        let ireland = Some("ie 1.1".to_owned());
        assert_eq!(believed(&[]), None);
        assert_eq!(believed(&[("ie", "1.1")]), None, "it may be the one that lies");
        assert_eq!(believed(&[("ie", "1.1"), ("ie", "1.1"), ("ie", "1.1"), ("fr", "900.2")]), ireland);
        assert_eq!(believed(&[("ie", "1.1"), ("fr", "2.2"), ("fr", "2.2"), ("fr", "2.2")]), Some("fr 2.2".to_owned()));
        // Between a vote that one witness is behind with and one that one is ahead with.
        assert_eq!(believed(&[("ie", "1.1"), ("ie", "1.1"), ("de", "2.3"), ("fr", "3.2")]), ireland);
        // A holder that raises its epoch stays the holder.
        assert_eq!(believed(&[("ie", "1.1"), ("ie", "4.1"), ("fr", "2.2")]), ireland);
    }

    #[test]
    fn a_late_answer_does_not_undo_a_newer_one() {
        let mut votes = Votes::default();
        let w = "w".parse().unwrap();
        let vote = |e: &str| Vote { site: "fr".parse().unwrap(), epoch: e.parse().unwrap() };
        votes.note(&w, RoundId(5), vote("4.2"));
        votes.note(&w, RoundId(3), vote("2.2"));
        assert_eq!(votes.of(&w), Some(&vote("4.2")));
    }
}
