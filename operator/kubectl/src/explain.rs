//! `explain`: each witness's view of a group, and which rule holds it where it is.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use kube::Client;
use regent_lease::witness::GroupView;
use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::output::{Format, or_dash, print};

/// Arguments of `explain`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The group.
    group: String,
}

/// What the operator of the current site learnt from one witness when it was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessAnswer {
    /// Its view of the group; none when it did not answer or does not know the group.
    pub view: Option<GroupView>,
    /// Why there is no view.
    pub error: Option<String>,
}

/// Prints a row for each witness and claimant.
pub async fn run(args: &Args, client: &Client, format: Format) -> Result<Verdict> {
    let group = crate::group::find(client, &args.group).await?;
    let question = format!("explain/{}", crate::group::key(&group)?);
    let answers: BTreeMap<String, WitnessAnswer> = crate::views::ask(client, &question).await.context(
        "ask the operator of this site; at a witness without pods, use the context of a site that runs the operator",
    )?;
    let mut rows = Vec::new();
    for (witness, answer) in &answers {
        match &answer.view {
            None => rows.push(vec![witness.clone(), "no answer".into(), answer.error.clone().unwrap_or_default()]),
            Some(view) => rows.push(row(witness, view)),
        }
    }
    let header = ["WITNESS", "VOTE", "PROMISE", "PROVEN", "LAPSES", "PLAN", "WOULD ANSWER"];
    print(format, &answers, &header, rows)?;
    let silent = answers.values().filter(|a| a.view.is_none()).count();
    Ok(if silent == 0 { Verdict::Well } else { Verdict::NotWell })
}

fn row(witness: &str, view: &GroupView) -> Vec<String> {
    let seconds = |ms: u64| format!("{:.1}s", ms as f64 / 1000.0);
    let claims = view.claimants.iter().map(|c| match &c.refusal {
        None => format!("{}: yes", c.site),
        Some(refusal) => format!("{}: {refusal:?}", c.site),
    });
    vec![
        witness.to_owned(),
        or_dash(view.vote.as_ref().map(|v| format!("{} to {}", v.epoch, v.site))),
        or_dash(view.promise.as_ref().map(|p| format!("{} for {}", p.site, seconds(p.left_ms)))),
        format!("{} ago", seconds(view.proven_ago_ms)),
        if view.lapses_in_ms == 0 { "lapsed".into() } else { format!("in {}", seconds(view.lapses_in_ms)) },
        or_dash(view.plan_version),
        claims.collect::<Vec<_>>().join(", "),
    ]
}
