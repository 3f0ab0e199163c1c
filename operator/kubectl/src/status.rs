//! `status`: groups, holders, epochs, time left, and what is wrong.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args as ClapArgs;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use regent_api::group::{Protection, StandbyStatus};
use regent_api::lease::Proof;
use regent_api::{ControlLease, FailoverGroup, LeaseLeft, Site};
use serde::Serialize;

use crate::Verdict;
use crate::detail::{self, Detail};
use crate::output::{Format, or_dash, table};

/// Arguments of `status`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only this group.
    group: Option<String>,
}

/// One line of the groups' table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRow {
    /// HOME/NAME.
    pub group: String,
    /// Observed or Protected.
    pub protection: Option<String>,
    /// The site that holds the lease, as far as this site knows.
    pub holder: Option<String>,
    /// Its epoch.
    pub epoch: Option<String>,
    /// Whether the holder's lease is `valid` or `over`, as far as this site can tell.
    pub lease: Option<String>,
    /// What is left of it, if the operator of this site could be asked.
    pub lease_left: Option<LeaseLeft>,
    /// Standbys with their states.
    pub standbys: Vec<String>,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// What is worth telling of single standbys.
    pub details: Vec<Detail>,
}

#[derive(Debug, Serialize)]
struct SiteRow {
    site: String,
    country: Option<String>,
    party: Option<String>,
    roles: Vec<String>,
    seen: String,
}

/// What is left of each lease; empty where no operator can be asked.
async fn leases_left(client: &Client) -> BTreeMap<String, LeaseLeft> {
    crate::views::ask(client, "leases").await.unwrap_or_default()
}

/// Collects the groups' rows, with what is `left` of their leases.
pub async fn groups(client: &Client, only: Option<&str>, left: &BTreeMap<String, LeaseLeft>) -> Result<Vec<GroupRow>> {
    let list = match only {
        Some(name) => vec![crate::group::find(client, name).await?],
        None => Api::<FailoverGroup>::all(client.clone()).list(&ListParams::default()).await?.items,
    };
    let leases = Api::<ControlLease>::all(client.clone()).list(&ListParams::default()).await?.items;
    list.iter().map(|group| row(group, &leases, left)).collect()
}

fn row(group: &FailoverGroup, leases: &[ControlLease], left: &BTreeMap<String, LeaseLeft>) -> Result<GroupRow> {
    let key = crate::group::key(group)?;
    let status = group.status.clone().unwrap_or_default();
    let lease = leases.iter().find(|l| l.spec.group == key).and_then(|l| l.status.clone()).unwrap_or_default();
    let view = lease.holder;
    let left = left.get(&key).cloned();
    let valid = left.as_ref().map(|l| l.left_ms > 0).or(view.as_ref().map(|v| v.valid));
    let holder = status.holder.clone().or_else(|| view.as_ref().map(|v| v.site.clone()));
    let over = holder.as_ref().filter(|_| valid == Some(false) && status.protection == Some(Protection::Protected));
    let lapsed = over.map(|site| {
        format!("LeaseOver: the lease of {site} is over and nobody runs the group; see `kubectl regent explain {key}`")
    });
    let by = holder.as_deref();
    let conditions = problems(&status.conditions).into_iter();
    // Home's own entry says how the group runs there, and nothing of who could take it over.
    let is_shown = |s: &&StandbyStatus| s.site != group.spec.home;
    let mut standbys: Vec<StandbyStatus> = status.standbys.iter().filter(is_shown).cloned().collect();
    standbys.sort_by_key(|s| group.spec.standbys.iter().position(|name| name == &s.site).unwrap_or(usize::MAX));
    let at_home = status.standbys.iter().find(|s| s.site == group.spec.home);
    let of_home = at_home.and_then(|home| detail::holder_problem(home, by));
    let of_standbys = detail::problems(&standbys, by, &status.conditions).into_iter().chain(of_home);
    Ok(GroupRow {
        group: key.clone(),
        protection: status.protection.map(|p| format!("{p:?}")),
        epoch: status.epoch.clone().or_else(|| view.as_ref().map(|v| v.epoch.clone())),
        lease: valid.map(|valid| if valid { "valid" } else { "over" }.to_owned()),
        standbys: if standbys.is_empty() {
            group.spec.standbys.clone()
        } else {
            standbys.iter().map(|s| format!("{} {:?}", s.site, s.state)).collect()
        },
        lease_left: left,
        problems: lapsed.into_iter().chain(conditions).chain(of_standbys).collect(),
        details: standbys.iter().filter_map(|s| Detail::of(s, by)).collect(),
        holder,
    })
}

/// What the conditions that are not True say, each thing once.
fn problems(conditions: &[Condition]) -> Vec<String> {
    let mut problems = Vec::new();
    for c in conditions.iter().filter(|c| c.status != "True") {
        let said = if c.message.is_empty() { c.reason.clone() } else { format!("{}: {}", c.reason, c.message) };
        if !problems.contains(&said) {
            problems.push(said);
        }
    }
    problems
}

/// Prints everything.
pub async fn run(args: &Args, client: &Client, format: Format) -> Result<Verdict> {
    let groups = groups(client, args.group.as_deref(), &leases_left(client).await).await?;
    let sites = sites(client).await?;
    let well = groups.iter().all(|g| g.problems.is_empty());
    if format == Format::Table {
        println!("{}\n\n{}", site_table(&sites), group_table(&groups));
        for group in groups.iter().filter(|g| !g.problems.is_empty() || !g.details.is_empty()) {
            println!("\n{}:", group.group);
            group.problems.iter().for_each(|p| println!("  {p}"));
            group.details.iter().flat_map(|d| d.lines(&group.group)).for_each(|line| println!("{line}"));
        }
    } else {
        let data = serde_json::json!({"sites": sites, "groups": groups});
        crate::output::print(format, &data, &[], Vec::new())?;
    }
    Ok(if well { Verdict::Well } else { Verdict::NotWell })
}

async fn sites(client: &Client) -> Result<Vec<SiteRow>> {
    let list = Api::<Site>::all(client.clone()).list(&ListParams::default()).await?.items;
    Ok(list
        .iter()
        .map(|site| {
            let status = site.status.clone().unwrap_or_default();
            let alive = status.observed_by.iter().filter(|s| s.alive).count();
            SiteRow {
                site: site.name_any(),
                country: status.country,
                party: status.party,
                roles: status.roles.iter().map(|r| format!("{r:?}")).collect(),
                seen: format!("by {alive} of {}", status.observed_by.len()),
            }
        })
        .collect())
}

fn site_table(sites: &[SiteRow]) -> String {
    let rows = sites.iter().map(|s| {
        vec![s.site.clone(), or_dash(s.country.clone()), or_dash(s.party.clone()), s.roles.join(","), s.seen.clone()]
    });
    table(&["SITE", "COUNTRY", "PARTY", "ROLES", "SEEN"], rows.collect())
}

/// `2.1s left`, `promised for 1.5s` by this site's witness, or whether it is over.
fn lease(group: &GroupRow) -> String {
    match &group.lease_left {
        Some(left) if left.left_ms > 0 => {
            let seconds = left.left_ms as f64 / 1000.0;
            match left.proof {
                Proof::Certificate => format!("{seconds:.1}s left"),
                Proof::Promise => format!("promised for {seconds:.1}s"),
            }
        }
        _ => or_dash(group.lease.clone()),
    }
}

/// The groups as a table.
pub fn group_table(groups: &[GroupRow]) -> String {
    let rows = groups.iter().map(|g| {
        let below = g.problems.len() + g.details.iter().filter(|d| d.warning.is_some()).count();
        let verdict = if below == 0 { "ok".to_owned() } else { format!("{below} below") };
        vec![
            g.group.clone(),
            or_dash(g.protection.clone()),
            or_dash(g.holder.clone()),
            or_dash(g.epoch.clone()),
            lease(g),
            g.standbys.join(", "),
            verdict,
        ]
    });
    let header = ["GROUP", "PROTECTION", "HOLDER", "EPOCH", "LEASE", "STANDBYS", "PROBLEMS"];
    table(&header, rows.collect())
}

#[cfg(test)]
mod tests {
    use regent_api::FailoverGroupSpec;
    use serde_json::json;

    use super::*;

    fn shown(valid: bool, left: Option<(u64, Proof)>) -> GroupRow {
        let spec: FailoverGroupSpec =
            serde_json::from_value(json!({ "home": "ireland", "namespaces": ["shop"], "standbys": ["france"] }))
                .unwrap();
        let mut group = FailoverGroup::new("shop", spec);
        let twice = json!({ "type": "A", "status": "False", "reason": "Why", "message": "what", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        group.status =
            Some(serde_json::from_value(json!({ "protection": "Protected", "conditions": [twice, twice] })).unwrap());
        let lease: ControlLease = serde_json::from_value(json!({
            "apiVersion": "regent.dev/v1alpha1", "kind": "ControlLease", "metadata": { "name": "ireland.shop" },
            "spec": { "group": "ireland/shop" },
            "status": { "holder": { "site": "ireland", "epoch": "1.1", "protection": "Protected", "valid": valid } },
        }))
        .unwrap();
        let left = left.map(|(left_ms, proof)| LeaseLeft { site: "ireland".into(), left_ms, proof });
        row(&group, &[lease], &left.into_iter().map(|l| ("ireland/shop".to_owned(), l)).collect()).unwrap()
    }

    #[test]
    fn what_the_operator_says_of_a_lease_now_goes_before_what_is_on_record() {
        let said = |valid, left| lease(&shown(valid, left));
        assert_eq!(said(true, None), "valid");
        assert_eq!(said(true, Some((2340, Proof::Certificate))), "2.3s left");
        assert_eq!(said(false, Some((1500, Proof::Promise))), "promised for 1.5s");
        assert_eq!(said(true, Some((0, Proof::Promise))), "over");
    }

    #[test]
    fn a_lease_that_is_over_is_a_problem_and_each_problem_is_told_once() {
        assert_eq!(shown(true, None).problems, ["Why: what"]);
        let over = shown(true, Some((0, Proof::Promise))).problems;
        assert!(
            over[0].contains("LeaseOver") && over[0].contains("explain ireland/shop") && over.len() == 2,
            "{over:?}"
        );
    }
}
