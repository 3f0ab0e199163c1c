//! The copies that a standby makes of a bundle.

use regent_api::SiteSpec;
use regent_core::ids::GroupKey;
use serde_json::Value;

use crate::admit::admit;
use crate::bundle::Bundle;
use crate::derive::{Mode, Place, Rollout, derive};
use crate::stamp::stamp;

/// A bundle as this site takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Copies {
    /// Home's objects, as they are let in here.
    pub admitted: Vec<Value>,
    /// What differs from home, and is no reason to block.
    pub notices: Vec<String>,
}

impl Copies {
    /// What a site takes of a bundle; or why it takes nothing of it.
    pub fn of(bundle: &Bundle, tables: &SiteSpec) -> Result<Self, String> {
        let admitted = admit(&bundle.objects, tables);
        match admitted.blocked() {
            Some(why) => Err(why),
            None => Ok(Self { admitted: admitted.objects, notices: admitted.notices }),
        }
    }

    /// The copies while the gates are closed.
    pub fn held(&self, place: &Place<'_>, rollout: Rollout) -> Vec<Value> {
        self.derived(place, Mode::Held(rollout))
    }

    /// The copies as they would be if nobody had changed them, where the group runs.
    pub fn running(&self, place: &Place<'_>) -> Vec<Value> {
        self.derived(place, Mode::Running)
    }

    fn derived(&self, place: &Place<'_>, mode: Mode) -> Vec<Value> {
        let one = |object: &Value| {
            let mut copy = derive(object, place, mode);
            stamp(&mut copy);
            copy
        };
        self.admitted.iter().map(one).collect()
    }
}

/// Whom copies of a bundle are for.
pub fn place<'a>(bundle: &'a Bundle, group: &'a GroupKey, tables: &'a SiteSpec) -> Place<'a> {
    Place { group, tables, idle: &bundle.idle }
}
