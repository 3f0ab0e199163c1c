//! A group's fencing token as it stands in evidence: `term.site`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An epoch: ordered by term, then by the site's number.
///
/// Evidence has a type of its own, apart from the one that Regent decides with: a judge that
/// shared code with the judged would share its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch {
    /// Grows with every change of holder.
    pub term: u64,
    /// Number of the site in the charter.
    pub site: u64,
}

/// A string that is no epoch.
#[derive(Debug, thiserror::Error)]
#[error("epoch {0:?} is not of the form TERM.SITE, two whole numbers such as 2.3")]
pub struct EpochError(String);

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Epoch, EpochError> {
        let parts = text.split_once('.');
        let numbers = parts.and_then(|(term, site)| Some((term.parse().ok()?, site.parse().ok()?)));
        let (term, site) = numbers.ok_or_else(|| EpochError(text.to_owned()))?;
        Ok(Epoch { term, site })
    }
}

impl TryFrom<String> for Epoch {
    type Error = EpochError;

    fn try_from(text: String) -> Result<Epoch, EpochError> {
        text.parse()
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> String {
        epoch.to_string()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.site)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_epoch_survives_its_text(term in any::<u64>(), site in any::<u64>()) {
            let epoch = Epoch { term, site };
            prop_assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        }

        #[test]
        fn the_term_decides_before_the_site(a in 0..9u64, b in 0..9u64, x in 0..9u64, y in 0..9u64) {
            let (left, right) = (Epoch { term: a, site: x }, Epoch { term: b, site: y });
            prop_assert_eq!(left.cmp(&right), (a, x).cmp(&(b, y)));
        }
    }

    #[test]
    fn ten_is_above_nine() {
        assert!("10.1".parse::<Epoch>().unwrap() > "9.4".parse::<Epoch>().unwrap());
    }

    #[test]
    fn what_is_no_epoch_is_refused_by_name() {
        for text in ["", "2", "2.", ".3", "2.3.4", "a.b", "-1.2"] {
            let error = text.parse::<Epoch>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
