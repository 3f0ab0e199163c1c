//! Conditions, by the conventions of the Kubernetes API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition's value: True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It doesn't.
    False,
    /// Nobody can tell yet.
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }
}

/// Sets one condition. Its transition time changes with its value only: this is the one
/// place where it is written. Returns whether anything changed.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let old = conditions.iter().position(|c| c.type_ == kind);
    let since = old.and_then(|i| {
        let c = &conditions[i];
        (c.status == truth.as_str()).then(|| c.last_transition_time.clone())
    });
    let new = Condition {
        type_: kind.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match old {
        Some(i) if conditions[i] == new => false,
        Some(i) => {
            conditions[i] = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// A condition by its type.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether a condition is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_changes_with_the_value_only() {
        let mut conditions = Vec::new();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert!(set(&mut conditions, "Ready", Truth::False, "Waiting", "a", Some(1), at(1)));
        assert!(set(&mut conditions, "Ready", Truth::False, "Waiting", "b", Some(2), at(2)));
        assert_eq!(get(&conditions, "Ready").unwrap().last_transition_time, Time(at(1)));
        assert!(!set(&mut conditions, "Ready", Truth::False, "Waiting", "b", Some(2), at(3)));
        assert!(set(&mut conditions, "Ready", Truth::True, "Done", "c", Some(2), at(4)));
        assert_eq!(get(&conditions, "Ready").unwrap().last_transition_time, Time(at(4)));
        assert!(is_true(&conditions, "Ready"));
        assert_eq!(conditions.len(), 1);
    }
}
