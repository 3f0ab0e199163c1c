//! What was tried, and so what must have happened.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// The site that runs the group is cut off for good: a standby takes over.
    Cut,
    /// It is cut off for less than a takeover needs: a pause and nothing else.
    Blip,
    /// Every process of the site is killed: a standby takes over.
    Crash,
    /// A takeover is asked for: the site releases, the other takes over.
    Planned,
    /// A takeover, mostly a planned one, and back again.
    Failback,
    /// Something fails that must pause nothing.
    Steady,
    /// The site is cut off and nobody may take over: the group stands still.
    Held,
}

/// All scenarios, in the order in which they are explained.
pub const ALL: [Scenario; 7] = [
    Scenario::Cut,
    Scenario::Blip,
    Scenario::Crash,
    Scenario::Planned,
    Scenario::Failback,
    Scenario::Steady,
    Scenario::Held,
];

impl Scenario {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Scenario::Cut => "cut",
            Scenario::Blip => "blip",
            Scenario::Crash => "crash",
            Scenario::Planned => "planned",
            Scenario::Failback => "failback",
            Scenario::Steady => "steady",
            Scenario::Held => "held",
        }
    }

    /// How many changes of holder must follow from its faults.
    pub fn changes(self) -> usize {
        match self {
            Scenario::Cut | Scenario::Crash | Scenario::Planned => 1,
            Scenario::Failback => 2,
            Scenario::Blip | Scenario::Steady | Scenario::Held => 0,
        }
    }

    /// True when the lease must end on every node that ran the group.
    pub fn stops(self) -> bool {
        self != Scenario::Steady
    }
}

/// A word that names no scenario.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no scenario: use one of cut, blip, crash, planned, failback, steady, held")]
pub struct ScenarioError(String);

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Scenario, ScenarioError> {
        let found = ALL.into_iter().find(|s| s.word() == text);
        found.ok_or_else(|| ScenarioError(text.to_owned()))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_read_from_its_own_word() {
        for scenario in ALL {
            assert_eq!(scenario.word().parse::<Scenario>().unwrap(), scenario);
            let json = serde_json::to_string(&scenario).unwrap();
            assert_eq!(json, format!("\"{scenario}\""));
        }
        assert!("cuts".parse::<Scenario>().unwrap_err().to_string().contains("blip"));
    }
}
