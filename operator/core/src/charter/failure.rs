//! What still works when sites fail together.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Charter;
use crate::ids::{PartyName, SiteName};

/// The most sets of sites that one analysis lists.
const MAX_SETS: usize = 20_000;

/// Why these sites might fail at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Any reason at all.
    Together,
    /// One party runs them all.
    Party(PartyName),
    /// They are in one country.
    Country(String),
    /// Their parties have their seat or their control in one country.
    Jurisdiction(String),
}

/// A set of sites that may fail together, and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which sites are gone, or refuse.
    pub failed: Vec<SiteName>,
    /// Why these.
    pub cause: Cause,
    /// How many witnesses are left.
    pub witnesses_left: usize,
    /// Whether home can still renew its lease.
    pub renewal: bool,
    /// The standbys that can still take over once home's lease has lapsed.
    pub takeover: Vec<SiteName>,
}

/// All sets, for groups of one home with these standbys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// The home.
    pub home: SiteName,
    /// `n`.
    pub witnesses: usize,
    /// `f`.
    pub faulty_witnesses: u32,
    /// `q`.
    pub quorum: usize,
    /// Every set of up to this many sites is listed.
    pub set_size: usize,
    /// Each set once; those of one party, country or jurisdiction beyond `set_size` too.
    pub outcomes: Vec<Outcome>,
}

impl Charter {
    /// What still works for groups of `home` with `standbys` after each set of up to
    /// `set_size` sites, and all sites of each party, country and jurisdiction, have
    /// failed. Sets that would be too many to list are left out from the largest size
    /// down; [`Analysis::set_size`] says how far the list goes.
    pub fn analyse(&self, home: &SiteName, standbys: &[SiteName], set_size: usize) -> Analysis {
        let sites: Vec<&SiteName> = self.sites.iter().map(|s| &s.name).collect();
        let mut set_size = set_size.min(sites.len());
        while set_size > 0 && count_of_sets(sites.len(), set_size) > MAX_SETS {
            set_size -= 1;
        }
        let mut outcomes = Vec::new();
        let mut seen = BTreeSet::new();
        for size in 0..=set_size {
            for set in sets_of(&sites, size) {
                outcomes.push(self.outcome(home, standbys, &set, Cause::Together));
                seen.insert(set);
            }
        }
        for (cause, set) in self.common_causes() {
            if let Some(listed) = outcomes.iter_mut().find(|o| same(&o.failed, &set) && o.cause == Cause::Together) {
                listed.cause = cause;
            } else if seen.insert(set.clone()) {
                outcomes.push(self.outcome(home, standbys, &set, cause));
            }
        }
        Analysis {
            home: home.clone(),
            witnesses: self.witness_count(),
            faulty_witnesses: self.faulty_witnesses,
            quorum: self.quorum(),
            set_size,
            outcomes,
        }
    }

    fn outcome(&self, home: &SiteName, standbys: &[SiteName], failed: &BTreeSet<&SiteName>, cause: Cause) -> Outcome {
        let witnesses_left = self.witnesses.iter().filter(|w| !failed.contains(w)).count();
        let has_quorum = witnesses_left >= self.quorum();
        let able = standbys.iter().filter(|s| has_quorum && *s != home && !failed.contains(s));
        Outcome {
            failed: failed.iter().map(|s| (*s).clone()).collect(),
            cause,
            witnesses_left,
            renewal: has_quorum && !failed.contains(home),
            takeover: able.cloned().collect(),
        }
    }

    /// The sites that one party, one country or one jurisdiction can take down at once.
    fn common_causes(&self) -> Vec<(Cause, BTreeSet<&SiteName>)> {
        let sites_where = |test: &dyn Fn(&super::SiteEntry) -> bool| {
            self.sites.iter().filter(|s| test(s)).map(|s| &s.name).collect::<BTreeSet<_>>()
        };
        let compels = |country: &str, site: &super::SiteEntry| {
            self.party(&site.party).is_some_and(|p| p.country == country || p.control == country)
        };
        let countries: BTreeSet<&String> = self.sites.iter().map(|s| &s.country).collect();
        let laws: BTreeSet<&String> = self.parties.iter().flat_map(|p| [&p.country, &p.control]).collect();
        let parties = self
            .parties
            .iter()
            .map(|p| (Cause::Party(p.name.clone()), sites_where(&|s: &super::SiteEntry| s.party == p.name)));
        let countries = countries
            .into_iter()
            .map(|c| (Cause::Country(c.clone()), sites_where(&|s: &super::SiteEntry| &s.country == c)));
        let laws = laws
            .into_iter()
            .map(|c| (Cause::Jurisdiction(c.clone()), sites_where(&|s: &super::SiteEntry| compels(c, s))));
        parties.chain(countries).chain(laws).filter(|(_, set)| !set.is_empty()).collect()
    }
}

fn same(failed: &[SiteName], set: &BTreeSet<&SiteName>) -> bool {
    failed.len() == set.len() && failed.iter().all(|s| set.contains(s))
}

/// How many sets of at most `size` of `n` there are; saturates.
fn count_of_sets(n: usize, size: usize) -> usize {
    let mut of_size = 1usize;
    let mut total = 1usize;
    for k in 1..=size {
        // n over k, from n over (k - 1): exact, since the product is divisible by k.
        of_size = of_size.saturating_mul(n - k + 1) / k;
        total = total.saturating_add(of_size);
    }
    total
}

/// The sets of exactly `size` sites, in the charter's order.
fn sets_of<'a>(sites: &[&'a SiteName], size: usize) -> Vec<BTreeSet<&'a SiteName>> {
    if size == 0 {
        return vec![BTreeSet::new()];
    }
    let mut sets = Vec::new();
    for (at, site) in sites.iter().enumerate() {
        for mut set in sets_of(&sites[at + 1..], size - 1) {
            set.insert(*site);
            sets.push(set);
        }
    }
    sets
}
