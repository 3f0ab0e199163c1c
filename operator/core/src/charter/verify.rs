//! Everything that can be wrong with a charter's text, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Charter, Party, SiteEntry};
use crate::ids::{PartyName, SiteName};
use crate::plan::is_country;

/// The most parties of a charter.
pub const MAX_PARTIES: usize = 256;
/// The most sites of a charter.
pub const MAX_SITES: usize = 256;
/// The most witnesses of a charter.
pub const MAX_WITNESSES: usize = 64;
const MAX_ADDRESSES: usize = 16;
const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=60_000;
const DRIFT_PPM: std::ops::RangeInclusive<u32> = 1..=50_000;
const GROUP_CHANGES: std::ops::RangeInclusive<u32> = 1..=256;
const PARTY_CHANGES: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// One mistake in a charter: the object, the field and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CharterError {
    /// The name can't name a Kubernetes object.
    #[error("charter {0:?}: name is not a DNS label; use at most 63 lower-case letters, digits and '-'")]
    Name(String),
    /// Versions start at 1.
    #[error("charter {0}: version is 0; versions start at 1")]
    NoVersion(String),
    /// A list is empty, or longer than any real one.
    #[error("charter {charter}: {field} has {found} entries; list 1 to {limit}")]
    Length {
        /// The charter.
        charter: String,
        /// Which list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A number is out of its bounds.
    #[error("charter {charter}: {field} is {found}; choose {low} to {high}")]
    Bounds {
        /// The charter.
        charter: String,
        /// Which field, with its unit.
        field: &'static str,
        /// What it says.
        found: u64,
        /// The least that is allowed.
        low: u64,
        /// The most that is allowed.
        high: u64,
    },
    /// A name, number, key or address is used twice.
    #[error("charter {charter}: {field} {value} belongs to both {first} and {second}; give each its own")]
    Twice {
        /// The charter.
        charter: String,
        /// Which field.
        field: &'static str,
        /// The value.
        value: String,
        /// One owner.
        first: String,
        /// The other.
        second: String,
    },
    /// A site is run by a party that does not exist.
    #[error("site {site}: party {party} is not one of the charter's parties; add it or name another")]
    UnknownParty {
        /// The site.
        site: SiteName,
        /// The party.
        party: PartyName,
    },
    /// A witness that is no site.
    #[error(
        "charter {charter}: witness {witness} is not one of the charter's sites; add the site or remove it from witnesses"
    )]
    UnknownWitness {
        /// The charter.
        charter: String,
        /// The witness.
        witness: SiteName,
    },
    /// Not a country code.
    #[error("{object}: {field} {value:?} is not an ISO 3166-1 alpha-2 code; write two capital letters, such as FR")]
    Country {
        /// The site or party.
        object: String,
        /// Which field.
        field: &'static str,
        /// The text.
        value: String,
    },
    /// Not `IP:PORT`.
    #[error(
        "site {site}: address {address:?} is not IP:PORT; write the address itself, such as 192.0.2.7:7443, since no name is looked up"
    )]
    Address {
        /// The site.
        site: SiteName,
        /// The text.
        address: String,
    },
    /// Not a certificate.
    #[error(
        "site {site}: tlsAnchor is no PEM certificate; paste the site's CA, from BEGIN CERTIFICATE to END CERTIFICATE"
    )]
    Anchor {
        /// The site.
        site: SiteName,
    },
    /// Fewer witnesses than `3f + 1`.
    #[error(
        "charter {charter}: {n} witnesses don't tolerate faultyWitnesses {f}; list at least {needed}, or lower faultyWitnesses"
    )]
    TooFewWitnesses {
        /// The charter.
        charter: String,
        /// How many it has.
        n: usize,
        /// How many may be faulty.
        f: u32,
        /// `3f + 1`.
        needed: u64,
    },
    /// A party alone could break the quorum's promise (I3).
    #[error(
        "charter {charter}: party {party} runs {found} witnesses ({}), more than faultyWitnesses {f}; give some to other parties",
        list(witnesses)
    )]
    PartyTooStrong {
        /// The charter.
        charter: String,
        /// The party.
        party: PartyName,
        /// How many witnesses it runs.
        found: usize,
        /// Which.
        witnesses: Vec<SiteName>,
        /// How many may be faulty.
        f: u32,
    },
    /// A country could compel more than `f` witnesses (I3).
    #[error(
        "charter {charter}: country {country} can compel the parties of {found} witnesses ({}) by seat or control, more than faultyWitnesses {f}; choose parties of other countries",
        list(witnesses)
    )]
    CountryTooStrong {
        /// The charter.
        charter: String,
        /// The country.
        country: String,
        /// How many witnesses it can compel.
        found: usize,
        /// Which.
        witnesses: Vec<SiteName>,
        /// How many may be faulty.
        f: u32,
    },
}

fn list(names: &[SiteName]) -> String {
    names.iter().map(SiteName::as_str).collect::<Vec<_>>().join(", ")
}

impl Charter {
    /// Every mistake in the text; none: it may be signed.
    pub fn errors(&self) -> Vec<CharterError> {
        let mut errors = Vec::new();
        if self.name.parse::<SiteName>().is_err() {
            errors.push(CharterError::Name(self.name.clone()));
        }
        if self.version == 0 {
            errors.push(CharterError::NoVersion(self.name.clone()));
        }
        self.check_numbers(&mut errors);
        self.check_uniqueness(&mut errors);
        self.parties.iter().for_each(|p| check_party(p, &mut errors));
        self.sites.iter().for_each(|s| self.check_site(s, &mut errors));
        self.check_witnesses(&mut errors);
        errors
    }

    fn check_numbers(&self, errors: &mut Vec<CharterError>) {
        let charter = || self.name.clone();
        let lists = [
            ("parties", self.parties.len(), MAX_PARTIES),
            ("sites", self.sites.len(), MAX_SITES),
            ("witnesses", self.witnesses.len(), MAX_WITNESSES),
        ];
        for (field, found, limit) in lists {
            if found == 0 || found > limit {
                errors.push(CharterError::Length { charter: charter(), field, found, limit });
            }
        }
        let parties = u64::try_from(self.parties.len()).unwrap_or(u64::MAX);
        // Nobody changes the charter alone (I3).
        let threshold = ("threshold (different parties)", u64::from(self.threshold), 2, parties.max(2));
        let f = ("faultyWitnesses", u64::from(self.faulty_witnesses), 1, (MAX_WITNESSES as u64 - 1) / 3);
        let lease = ("leaseDurationMs (milliseconds)", self.lease_duration_ms, *LEASE_MS.start(), *LEASE_MS.end());
        let narrow = |field, found: u32, range: std::ops::RangeInclusive<u32>| {
            (field, u64::from(found), u64::from(*range.start()), u64::from(*range.end()))
        };
        let numbers = [
            threshold,
            f,
            lease,
            narrow("clockDriftPpm (parts per million)", self.clock_drift_ppm, DRIFT_PPM),
            narrow("interlock.changesPerGroupHour", self.interlock.changes_per_group_hour, GROUP_CHANGES),
            narrow("interlock.changesPerPartyHour", self.interlock.changes_per_party_hour, PARTY_CHANGES),
        ];
        for (field, found, low, high) in numbers {
            if !(low..=high).contains(&found) {
                errors.push(CharterError::Bounds { charter: charter(), field, found, low, high });
            }
        }
    }

    fn check_uniqueness(&self, errors: &mut Vec<CharterError>) {
        let mut twice = |field, owned: Vec<(String, String)>| {
            let mut owners: BTreeMap<String, String> = BTreeMap::new();
            for (value, second) in owned {
                if let Some(first) = owners.get(&value) {
                    let (charter, first) = (self.name.clone(), first.clone());
                    errors.push(CharterError::Twice { charter, field, value, first, second });
                } else {
                    owners.insert(value, second);
                }
            }
        };
        let party = |(at, p): (usize, &Party)| (p.name.to_string(), format!("parties[{at}]"));
        twice("party name", self.parties.iter().enumerate().map(party).collect());
        let key = |p: &Party| (p.key.to_string(), format!("party {}", p.name));
        twice("key", self.parties.iter().map(key).collect());
        let site = |(at, s): (usize, &SiteEntry)| (s.name.to_string(), format!("sites[{at}]"));
        twice("site name", self.sites.iter().enumerate().map(site).collect());
        let of_sites = |value: fn(&SiteEntry) -> Vec<String>| {
            let owned =
                |s: &SiteEntry| value(s).into_iter().map(|v| (v, format!("site {}", s.name))).collect::<Vec<_>>();
            self.sites.iter().flat_map(owned).collect::<Vec<_>>()
        };
        twice("number", of_sites(|s| vec![s.number.to_string()]));
        twice("key", of_sites(|s| vec![s.key.to_string()]));
        twice("address", of_sites(|s| s.addresses.clone()));
        let witness = |(at, w): (usize, &SiteName)| (w.to_string(), format!("witnesses[{at}]"));
        twice("witness", self.witnesses.iter().enumerate().map(witness).collect());
    }

    fn check_site(&self, site: &SiteEntry, errors: &mut Vec<CharterError>) {
        if self.party(&site.party).is_none() {
            errors.push(CharterError::UnknownParty { site: site.name.clone(), party: site.party.clone() });
        }
        check_country(format!("site {}", site.name), "country", &site.country, errors);
        if site.addresses.is_empty() || site.addresses.len() > MAX_ADDRESSES {
            let (charter, found) = (format!("{}, site {}", self.name, site.name), site.addresses.len());
            errors.push(CharterError::Length { charter, field: "addresses", found, limit: MAX_ADDRESSES });
        }
        for address in &site.addresses {
            if !address.parse::<SocketAddr>().is_ok_and(|a| a.port() != 0 && !a.ip().is_unspecified()) {
                errors.push(CharterError::Address { site: site.name.clone(), address: address.clone() });
            }
        }
        let begins = site.tls_anchor.trim_start().starts_with("-----BEGIN CERTIFICATE-----");
        if !begins || !site.tls_anchor.trim_end().ends_with("-----END CERTIFICATE-----") {
            errors.push(CharterError::Anchor { site: site.name.clone() });
        }
    }

    fn check_witnesses(&self, errors: &mut Vec<CharterError>) {
        let (charter, f) = (|| self.name.clone(), self.faulty_witnesses);
        let needed = 3 * u64::from(f) + 1;
        let distinct: BTreeSet<&SiteName> = self.witnesses.iter().collect();
        if u64::try_from(distinct.len()).unwrap_or(u64::MAX) < needed {
            errors.push(CharterError::TooFewWitnesses { charter: charter(), n: distinct.len(), f, needed });
        }
        let mut of_party: BTreeMap<&PartyName, Vec<SiteName>> = BTreeMap::new();
        let mut of_country: BTreeMap<&str, Vec<SiteName>> = BTreeMap::new();
        for name in distinct {
            let Some(site) = self.site(name) else {
                errors.push(CharterError::UnknownWitness { charter: charter(), witness: name.clone() });
                continue;
            };
            of_party.entry(&site.party).or_default().push(name.clone());
            let Some(party) = self.party(&site.party) else { continue };
            // A seat and a parent in one country compel once.
            for country in BTreeSet::from([party.country.as_str(), party.control.as_str()]) {
                of_country.entry(country).or_default().push(name.clone());
            }
        }
        let too_many = |found: usize| u64::try_from(found).unwrap_or(u64::MAX) > u64::from(f);
        for (party, witnesses) in of_party {
            let (found, party) = (witnesses.len(), party.clone());
            if too_many(found) {
                errors.push(CharterError::PartyTooStrong { charter: charter(), party, found, witnesses, f });
            }
        }
        for (country, witnesses) in of_country {
            let (found, country) = (witnesses.len(), country.to_owned());
            if too_many(found) {
                errors.push(CharterError::CountryTooStrong { charter: charter(), country, found, witnesses, f });
            }
        }
    }
}

fn check_party(party: &Party, errors: &mut Vec<CharterError>) {
    let object = || format!("party {}", party.name);
    check_country(object(), "country", &party.country, errors);
    check_country(object(), "control", &party.control, errors);
}

fn check_country(object: String, field: &'static str, value: &str, errors: &mut Vec<CharterError>) {
    if !is_country(value) {
        errors.push(CharterError::Country { object, field, value: value.to_owned() });
    }
}
