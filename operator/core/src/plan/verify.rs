//! What makes a plan acceptable, to the operator that signs it and to every witness.

use std::collections::BTreeSet;

use super::{Plan, Protection};
use crate::charter::Charter;
use crate::ids::{GroupKey, SiteName};
use crate::sign::{Envelope, SignError};

/// The longest plan, in bytes of its signed payload.
pub const MAX_PLAN_BYTES: usize = 64 << 10;
/// The most standbys of one plan.
pub const MAX_STANDBYS: usize = 32;
/// The most countries of one plan.
pub const MAX_COUNTRIES: usize = 300;
const MAX_TAKEOVER_AFTER_MS: u64 = 24 * 3_600_000;
const MAX_THAW_LIMIT_MS: u64 = 3_600_000;

/// Why a plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Larger than any real plan.
    #[error(
        "plan of {bytes} bytes with {signatures} signatures is too large: at most {MAX_PLAN_BYTES} bytes, one signature of home and one of each standby"
    )]
    TooLarge {
        /// Bytes of its payload.
        bytes: usize,
        /// Signatures on its envelope.
        signatures: usize,
    },
    /// Home's signature is missing or wrong, or the payload is no plan.
    #[error("plan: {0}")]
    Sign(#[from] SignError),
    /// The charter does not name the group's home.
    #[error("plan of group {group}: home {home} is not a site of charter version {charter}; name one that is", home = group.home)]
    UnknownHome {
        /// The group.
        group: GroupKey,
        /// The charter's version.
        charter: u64,
    },
    /// Versions start at 1.
    #[error("plan of group {0}: version is 0; versions start at 1")]
    NoVersion(GroupKey),
    /// A standby that the charter does not name.
    #[error(
        "plan of group {group}: standby {standby} is not a site of the charter; remove it or add the site to the charter"
    )]
    UnknownStandby {
        /// The group.
        group: GroupKey,
        /// The standby.
        standby: SiteName,
    },
    /// Home is listed as its own standby.
    #[error("plan of group {group}: standby {} is its home; list other sites only", group.home)]
    StandbyIsHome {
        /// The group.
        group: GroupKey,
    },
    /// A standby is listed twice.
    #[error("plan of group {group}: standby {standby} is listed twice; give each standby one rank")]
    StandbyTwice {
        /// The group.
        group: GroupKey,
        /// The standby.
        standby: SiteName,
    },
    /// More than [`MAX_STANDBYS`] or [`MAX_COUNTRIES`].
    #[error("plan of group {group}: {found} {field} are too many; list at most {limit}")]
    TooMany {
        /// The group.
        group: GroupKey,
        /// Which list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Not a country code.
    #[error(
        "plan of group {group}: country {country:?} is not an ISO 3166-1 alpha-2 code; write two capital letters, such as FR"
    )]
    NotACountry {
        /// The group.
        group: GroupKey,
        /// The text.
        country: String,
    },
    /// The rule forbids the group's own home.
    #[error("plan of group {group}: home {} is in {country}, where the group may not run; add {country} to countries or move the group's home", group.home)]
    HomeOutside {
        /// The group.
        group: GroupKey,
        /// Home's country.
        country: String,
    },
    /// The rule forbids a standby (I5).
    #[error(
        "plan of group {group}: standby {standby} is in {country}, where the group may not run; remove the standby or add {country} to countries"
    )]
    StandbyOutside {
        /// The group.
        group: GroupKey,
        /// The standby.
        standby: SiteName,
        /// Its country.
        country: String,
    },
    /// A timing that can't be meant.
    #[error("plan of group {group}: {field} of {found_ms} ms is out of bounds; choose at most {limit_ms} ms")]
    Timing {
        /// The group.
        group: GroupKey,
        /// Which field.
        field: &'static str,
        /// What it says.
        found_ms: u64,
        /// What is allowed.
        limit_ms: u64,
    },
    /// Protection falls slowly (I9): nothing takes it off at once.
    #[error(
        "plan of group {group}: version {offered} takes protection off while version {held} protects; keep protection Protected"
    )]
    Unprotects {
        /// The group.
        group: GroupKey,
        /// The version that is held.
        held: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// Two different plans with one version.
    #[error(
        "plan of group {group}: another plan with version {version} is registered already; give the change a higher version"
    )]
    SameVersion {
        /// The group.
        group: GroupKey,
        /// The version.
        version: u64,
    },
    /// Older than what is held.
    #[error(
        "plan of group {group}: version {offered} is older than the registered version {held}; fetch the newest plan"
    )]
    Older {
        /// The group.
        group: GroupKey,
        /// The version that is held.
        held: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// The witness holds as many groups of this home as it may.
    #[error("plan of group {group}: home {} has {limit} groups here already; spread further groups over other homes", group.home)]
    TooManyGroups {
        /// The group.
        group: GroupKey,
        /// What is allowed.
        limit: usize,
    },
}

impl PlanError {
    /// Whether the plan is well formed but names a standby where the group may not run.
    /// Its signer must mend that; a witness takes the plan and bars the standby (L4.1),
    /// so that a narrower rule acts at once.
    pub fn only_bars_a_standby(&self) -> bool {
        matches!(self, Self::StandbyOutside { .. })
    }
}

/// The officially assigned codes of ISO 3166-1 alpha-2, with a space between any two.
pub const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS \
    BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE \
    EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM \
    HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC \
    LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW \
    SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO \
    TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Whether a text is an ISO 3166-1 alpha-2 code. `UK` is none: the United Kingdom is `GB`.
pub fn is_country(text: &str) -> bool {
    COUNTRIES.split(' ').any(|code| code == text)
}

impl Plan {
    /// Everything that is wrong with a plan under a charter, at once.
    pub fn errors(&self, charter: &Charter) -> Vec<PlanError> {
        let group = || self.group.clone();
        let mut errors = Vec::new();
        if self.version == 0 {
            errors.push(PlanError::NoVersion(group()));
        }
        if charter.site(&self.group.home).is_none() {
            errors.push(PlanError::UnknownHome { group: group(), charter: charter.version });
        }
        self.standby_errors(charter, &mut errors);
        self.country_errors(charter, &mut errors);
        let timings = [
            ("takeoverAfterMs", self.takeover_after_ms, MAX_TAKEOVER_AFTER_MS),
            ("thawLimitMs", self.thaw_limit_ms, MAX_THAW_LIMIT_MS),
        ];
        for (field, found_ms, limit_ms) in timings {
            if found_ms > limit_ms {
                errors.push(PlanError::Timing { group: group(), field, found_ms, limit_ms });
            }
        }
        errors
    }

    fn standby_errors(&self, charter: &Charter, errors: &mut Vec<PlanError>) {
        let group = || self.group.clone();
        if self.standbys.len() > MAX_STANDBYS {
            let found = self.standbys.len();
            errors.push(PlanError::TooMany { group: group(), field: "standbys", found, limit: MAX_STANDBYS });
        }
        let mut seen = BTreeSet::new();
        for standby in &self.standbys {
            if standby == &self.group.home {
                errors.push(PlanError::StandbyIsHome { group: group() });
            } else if !seen.insert(standby) {
                errors.push(PlanError::StandbyTwice { group: group(), standby: standby.clone() });
            } else if charter.site(standby).is_none() {
                errors.push(PlanError::UnknownStandby { group: group(), standby: standby.clone() });
            }
        }
    }

    fn country_errors(&self, charter: &Charter, errors: &mut Vec<PlanError>) {
        let group = || self.group.clone();
        if self.countries.len() > MAX_COUNTRIES {
            let found = self.countries.len();
            errors.push(PlanError::TooMany { group: group(), field: "countries", found, limit: MAX_COUNTRIES });
        }
        for country in self.countries.iter().filter(|c| !is_country(c)) {
            errors.push(PlanError::NotACountry { group: group(), country: country.clone() });
        }
        if let Some(home) = charter.site(&self.group.home).filter(|s| !self.allows_country(&s.country)) {
            errors.push(PlanError::HomeOutside { group: group(), country: home.country.clone() });
        }
        for standby in self.standbys.iter().filter(|s| *s != &self.group.home) {
            if let Some(site) = charter.site(standby).filter(|s| !self.allows_country(&s.country)) {
                let country = site.country.clone();
                errors.push(PlanError::StandbyOutside { group: group(), standby: standby.clone(), country });
            }
        }
    }

    /// Whether the group may run in a country (I5).
    pub fn allows_country(&self, country: &str) -> bool {
        self.countries.is_empty() || self.countries.iter().any(|c| c == country)
    }
}

/// A plan that home signed, and which of its standbys countersigned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPlan {
    plan: Plan,
    envelope: Envelope,
    countersigned: BTreeSet<SiteName>,
}

impl VerifiedPlan {
    /// Verifies home's signature and the plan's form. Signatures that are neither home's
    /// nor a standby's valid countersignature are dropped from what is kept.
    pub fn open(envelope: &Envelope, charter: &Charter) -> Result<Self, PlanError> {
        let (bytes, signatures) = (envelope.payload.len(), envelope.signatures.len());
        if bytes > MAX_PLAN_BYTES || signatures > MAX_STANDBYS + 1 {
            return Err(PlanError::TooLarge { bytes, signatures });
        }
        let claimed: Plan = envelope.peek()?;
        let home = charter
            .site(&claimed.group.home)
            .ok_or_else(|| PlanError::UnknownHome { group: claimed.group.clone(), charter: charter.version })?;
        let plan: Plan = envelope.open(home.name.as_str(), &home.key)?;
        if let Some(error) = plan.errors(charter).into_iter().find(|e| !e.only_bars_a_standby()) {
            return Err(error);
        }
        let mut kept = Envelope { signatures: Vec::new(), ..envelope.clone() };
        let mut countersigned = BTreeSet::new();
        for signer in std::iter::once(&plan.group.home).chain(&plan.standbys) {
            let Some(entry) = charter.site(signer) else {
                continue;
            };
            let valid = envelope.valid_signature(signer.as_str(), &entry.key);
            kept.signatures.extend(valid.cloned());
            if valid.is_some() && signer != &plan.group.home {
                countersigned.insert(signer.clone());
            }
        }
        Ok(Self { plan, envelope: kept, countersigned })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The signed bytes with every signature that counts.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The standbys that countersigned: the others are no standbys to a witness.
    pub fn countersigned(&self) -> &BTreeSet<SiteName> {
        &self.countersigned
    }

    /// The rank of a claimant: countersigned standbys by their place, home behind them.
    pub fn rank(&self, site: &SiteName) -> Option<usize> {
        self.plan.rank(site).filter(|_| site == &self.plan.group.home || self.countersigned.contains(site))
    }

    /// Whether the group may run at a site (I5). The charter says where the site is.
    pub fn is_lawful(&self, site: &SiteName, charter: &Charter) -> bool {
        charter.site(site).is_some_and(|s| self.plan.allows_country(&s.country))
    }

    /// What to hold after `offered` arrived where `held` is: `None` if nothing changes.
    /// A higher version replaces a lower one; one version's countersignatures add up.
    pub fn supersede(held: Option<&Self>, offered: Self) -> Result<Option<Self>, PlanError> {
        let group = || offered.plan.group.clone();
        let version = offered.plan.version;
        // Taking protection off has a cooling-off period of its own (I9).
        if offered.plan.protection == Protection::Retiring {
            let held = held.map_or(0, |h| h.plan.version);
            return Err(PlanError::Unprotects { group: group(), held, offered: version });
        }
        let Some(held) = held else {
            return Ok(Some(offered));
        };
        let held_version = held.plan.version;
        if version < held_version {
            return Err(PlanError::Older { group: group(), held: held_version, offered: version });
        }
        if version > held_version {
            if held.plan.protection == Protection::Protected && offered.plan.protection != Protection::Protected {
                return Err(PlanError::Unprotects { group: group(), held: held_version, offered: version });
            }
            return Ok(Some(offered));
        }
        if held.envelope.digest() != offered.envelope.digest() {
            return Err(PlanError::SameVersion { group: group(), version });
        }
        let mut merged = held.clone();
        for signature in offered.envelope.signatures {
            if !merged.envelope.signatures.iter().any(|s| s.keyid == signature.keyid) {
                merged.envelope.signatures.push(signature);
            }
        }
        merged.countersigned.extend(offered.countersigned);
        Ok((&merged != held).then_some(merged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_is_one_of_the_assigned_codes_and_nothing_else() {
        let codes: BTreeSet<&str> = COUNTRIES.split(' ').collect();
        assert_eq!(codes.len(), 249);
        assert!(codes.iter().all(|c| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase())));
        assert!(codes.into_iter().all(is_country));
        for wrong in ["UK", "EU", "XX", "fr", "FRA", "F", "", " ", "D ", "AD AE"] {
            assert!(!is_country(wrong), "{wrong:?}");
        }
    }
}
