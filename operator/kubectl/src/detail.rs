//! What `status` says of each standby below the table.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use regent_api::StandbyState;
use regent_api::group::{NO_STANDBY_READY, StandbyStatus};
use serde::Serialize;

use crate::output::plain;

/// What is worth telling of a standby beside its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The standby.
    pub site: String,
    /// What is not as it should be there. The group may be well without it.
    pub warning: Option<String>,
    /// The revision that is prepared there beside the one that is held ready.
    pub next_revision: Option<String>,
    /// What is in the way of that one.
    pub obstacle: Option<String>,
    /// What it says of its copies that is no reason to block.
    pub notices: Vec<String>,
    /// How many fields people changed there while it held the group.
    pub differences: usize,
}

impl Detail {
    /// None where the table says it all.
    pub fn of(standby: &StandbyStatus, holder: Option<&str>) -> Option<Self> {
        let is_plain = matches!(standby.state, StandbyState::Armed | StandbyState::Holding);
        let is_told = holder_problem(standby, holder).is_some();
        let detail = Self {
            site: standby.site.clone(),
            warning: (!is_plain && !is_told).then(|| said(standby)),
            next_revision: standby.next_revision.clone(),
            obstacle: standby.next_revision.as_ref().and(standby.message.as_deref()).map(plain),
            notices: standby.notices.iter().map(|n| plain(n)).collect(),
            differences: standby.differences.len(),
        };
        (detail != Self { site: standby.site.clone(), ..Self::default() }).then_some(detail)
    }

    /// As lines for people.
    pub fn lines(&self, key: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.warning.iter().map(|w| format!("  {w}")).collect();
        if let Some(next) = &self.next_revision {
            let short: String = plain(next).chars().take(12).collect();
            let why = self.obstacle.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            lines.push(format!("  {} prepares revision {short} beside the one that it holds ready{why}", self.site));
        }
        if !self.notices.is_empty() {
            lines.push(format!("  {} says:", self.site));
            lines.extend(self.notices.iter().map(|notice| format!("    {notice}")));
        }
        if self.differences > 0 {
            let count = self.differences;
            let site = &self.site;
            lines.push(format!(
                "  {site} was changed while it held the group ({count} fields): see `kubectl regent differences {key}`"
            ));
        }
        lines
    }
}

/// `france Blocked (NoClass): priority class "gold" is missing`.
fn said(standby: &StandbyStatus) -> String {
    let state = format!("{:?}", standby.state);
    let reason = standby.reason.as_deref().filter(|reason| *reason != state);
    let reason = reason.map(|reason| format!(" ({})", plain(reason))).unwrap_or_default();
    let message = standby.message.as_deref().map(|message| format!(": {}", plain(message))).unwrap_or_default();
    format!("{} {state}{reason}{message}", standby.site)
}

/// What is wrong at the holder: it has the lease, and not all pods of the group are ready.
pub fn holder_problem(standby: &StandbyStatus, holder: Option<&str>) -> Option<String> {
    let lacks_pods = standby.state == StandbyState::Holding && standby.armed_pods < standby.wanted_pods;
    let starts = standby.state == StandbyState::Starting || lacks_pods;
    (starts && holder == Some(&*standby.site)).then(|| {
        let (site, ready, wanted) = (&standby.site, standby.armed_pods, standby.wanted_pods);
        let message = standby.message.as_deref().map(plain);
        format!(
            "Starting: {site} has the lease; {}",
            message.unwrap_or_else(|| format!("{ready} of {wanted} pods are ready"))
        )
    })
}

/// What is wrong with the standbys together, beside what the conditions say already.
pub fn problems(standbys: &[StandbyStatus], holder: Option<&str>, conditions: &[Condition]) -> Vec<String> {
    let mut problems: Vec<String> = standbys.iter().filter_map(|s| holder_problem(s, holder)).collect();
    let is_ready =
        |s: &StandbyStatus| matches!(s.state, StandbyState::Armed | StandbyState::Holding | StandbyState::Starting);
    let is_said = conditions.iter().any(|c| c.status != "True" && c.reason == NO_STANDBY_READY);
    if !standbys.is_empty() && !standbys.iter().any(is_ready) && !is_said {
        problems.push(format!("{NO_STANDBY_READY}: no standby could take the group over"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn standby(site: &str, state: &str, more: Value) -> StandbyStatus {
        let mut value = json!({ "site": site, "state": state });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_holder_whose_pods_are_not_all_ready_is_a_problem_whatever_it_calls_itself() {
        for state in ["Starting", "Holding"] {
            let france = standby(
                "france",
                state,
                json!({ "armedPods": 1, "wantedPods": 3, "message": "1 of 3 pods are ready: shop-1 pulls" }),
            );
            let expected = "Starting: france has the lease; 1 of 3 pods are ready: shop-1 pulls";
            assert_eq!(problems(std::slice::from_ref(&france), Some("france"), &[]), [expected]);
            assert_eq!(Detail::of(&france, Some("france")), None, "told once");
        }
        let well = standby("france", "Holding", json!({ "armedPods": 3, "wantedPods": 3 }));
        assert!(problems(&[well], Some("france"), &[]).is_empty());
    }

    #[test]
    fn a_standby_that_is_not_ready_is_told_although_another_is_and_is_a_problem_only_alone() {
        let blocked =
            standby("france", "Blocked", json!({ "reason": "NoClass", "message": "class \"gold\" is missing" }));
        let armed = standby("germany", "Armed", json!({ "armedPods": 1, "wantedPods": 1 }));
        let told = Detail::of(&blocked, Some("ireland")).unwrap().lines("ireland/shop");
        assert_eq!(told, ["  france Blocked (NoClass): class \"gold\" is missing"]);
        assert_eq!(Detail::of(&armed, Some("ireland")), None);
        assert!(problems(&[blocked.clone(), armed], Some("ireland"), &[]).is_empty());
        assert_eq!(problems(std::slice::from_ref(&blocked), None, &[]).len(), 1);
        let condition: Condition = serde_json::from_value(json!({
            "type": "Ready", "status": "False", "reason": "NoStandbyReady", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        assert!(problems(&[blocked], None, &[condition]).is_empty(), "the condition says it");
    }

    #[test]
    fn notices_the_next_revision_and_differences_are_told_by_site() {
        let difference = json!({ "object": "Deployment shop/shop", "path": "/spec/replicas" });
        let more =
            json!({ "nextRevision": "0123456789abcdef", "notices": ["a", "b\u{1b}[2J"], "differences": [difference] });
        let lines = Detail::of(&standby("france", "Armed", more), None).unwrap().lines("ireland/shop");
        let expected = [
            "  france prepares revision 0123456789ab beside the one that it holds ready",
            "  france says:",
            "    a",
            "    b [2J",
            "  france was changed while it held the group (1 fields): see `kubectl regent differences ireland/shop`",
        ];
        assert_eq!(lines, expected);
    }
}
