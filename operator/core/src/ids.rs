//! Names and numbers, checked when they are made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name or number was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not an RFC 1123 label.
    #[error(
        "{what} {value:?} is not a DNS label: use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
    )]
    NotALabel {
        /// Which kind of name.
        what: &'static str,
        /// The refused text.
        value: String,
    },
    /// Not `home/name`.
    #[error("group key {0:?} is not HOME/NAME, such as ireland/shop")]
    NotAGroupKey(String),
    /// Not `term.site`.
    #[error("epoch {0:?} is not TERM.SITE, such as 3.2")]
    NotAnEpoch(String),
}

fn is_label(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= 63 && edge(first) && edge(last) && bytes.iter().all(|&b| inner(b))
        }
        _ => false,
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                if is_label(s) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(IdError::NotALabel { what: $what, value: s.to_owned() })
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label!(
    /// A site: one Kubernetes cluster, in one country, run by one party.
    SiteName,
    "site"
);
label!(
    /// A legal entity.
    PartyName,
    "party"
);
label!(
    /// The name of a `FailoverGroup`, unique at its home only.
    GroupName,
    "group"
);

/// A Kubernetes Node by name (an RFC 1123 subdomain; Kubernetes has checked it).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub String);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A group everywhere: its home site and its name there (L17). Written `home/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupKey {
    /// The site where the group belongs.
    pub home: SiteName,
    /// Its name there.
    pub name: GroupName,
}

impl FromStr for GroupKey {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let (home, name) = s.split_once('/').ok_or_else(|| IdError::NotAGroupKey(s.to_owned()))?;
        Ok(Self { home: home.parse()?, name: name.parse()? })
    }
}
impl TryFrom<String> for GroupKey {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<GroupKey> for String {
    fn from(k: GroupKey) -> String {
        k.to_string()
    }
}
impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.home, self.name)
    }
}

/// The fencing token of a group: ordered by term, then by site number, so that two
/// sites can never make the same one. Written `term.site`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch {
    /// Grows with every change of holder.
    pub term: u64,
    /// The charter's number of the site that made it.
    pub site: u32,
}

impl FromStr for Epoch {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let parsed = s.split_once('.').and_then(|(t, n)| Some(Self { term: t.parse().ok()?, site: n.parse().ok()? }));
        parsed.ok_or_else(|| IdError::NotAnEpoch(s.to_owned()))
    }
}
impl TryFrom<String> for Epoch {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<Epoch> for String {
    fn from(e: Epoch) -> String {
        e.to_string()
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_order_by_term_then_site() {
        let e = |s: &str| s.parse::<Epoch>().unwrap();
        assert!(e("2.1") > e("1.9"));
        assert!(e("2.2") > e("2.1"));
        assert!(e("10.1") > e("9.9"));
        assert_eq!(e("10.1").to_string(), "10.1");
    }

    #[test]
    fn a_name_that_kubernetes_would_refuse_is_refused_with_the_remedy() {
        for bad in ["", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
            let error = bad.parse::<SiteName>().unwrap_err().to_string();
            assert!(error.contains("lower-case"), "{error}");
        }
        assert!("ireland/shop".parse::<GroupKey>().is_ok());
        assert!("ireland".parse::<GroupKey>().is_err());
        assert!("3".parse::<Epoch>().is_err());
    }
}
