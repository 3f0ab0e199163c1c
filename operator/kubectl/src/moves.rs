//! `takeover` and `failback`: planned moves, with the holder's help.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use regent_api::takeover::{Phase, TakeoverType};
use regent_api::{FailoverGroup, Takeover, TakeoverSpec};

use crate::Verdict;
use crate::group::{confirm, find};
use crate::init::parse_duration;

/// Arguments of `takeover`.
#[derive(Debug, ClapArgs)]
pub struct TakeoverArgs {
    /// The group.
    group: String,
    /// The site that is to take it over.
    #[arg(long)]
    to: String,
    #[command(flatten)]
    how: How,
}

/// Arguments of `failback`.
#[derive(Debug, ClapArgs)]
pub struct FailbackArgs {
    /// The group.
    group: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, ClapArgs)]
struct How {
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Wait this long until the move is complete; 0s returns at once.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
}

/// Moves a group to a standby.
pub async fn takeover(args: &TakeoverArgs, client: &Client) -> Result<Verdict> {
    let group = find(client, &args.group).await?;
    let known = group.spec.standbys.contains(&args.to) || group.spec.home == args.to;
    if !known {
        bail!(
            "--to {}: not a site of {}; its home is {}, its standbys are {}",
            args.to,
            crate::group::key(&group)?,
            group.spec.home,
            group.spec.standbys.join(", ")
        );
    }
    start(client, &group, &args.to, &args.how).await
}

/// Moves a group to its home.
pub async fn failback(args: &FailbackArgs, client: &Client) -> Result<Verdict> {
    let group = find(client, &args.group).await?;
    let home = group.spec.home.clone();
    start(client, &group, &home, &args.how).await
}

async fn start(client: &Client, group: &FailoverGroup, to: &str, how: &How) -> Result<Verdict> {
    let key = crate::group::key(group)?;
    let holder = group.status.as_ref().and_then(|s| s.holder.clone());
    let Some(holder) = holder else {
        bail!("{key} has no holder now, so there is nothing to move; see `kubectl regent explain {}`", group.name_any())
    };
    if holder == to {
        println!("{key} is at {to} already");
        return Ok(Verdict::Well);
    }
    confirm(&format!("{key} will stop at {holder} and start at {to}: a short outage."), how.yes)?;
    let spec = TakeoverSpec {
        group: key.clone(),
        to: to.to_owned(),
        kind: TakeoverType::Planned,
        reason: how.reason.clone(),
        approve: false,
    };
    let mut takeover = Takeover::new("", spec);
    takeover.metadata.name = None;
    takeover.metadata.generate_name = Some(format!("{}-to-{to}-", group.name_any()));
    let api = Api::<Takeover>::all(client.clone());
    let made = api.create(&PostParams::default(), &takeover).await.context("create the Takeover")?;
    let name = made.name_any();
    println!("takeover {name} created: {key} from {holder} to {to}");
    if how.wait.is_zero() {
        return Ok(Verdict::Well);
    }
    let waiting = follow(&api, &name);
    match tokio::time::timeout(how.wait, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => bail!(
            "takeover {name} is not complete after {:?}; it goes on: kubectl get takeover {name} -o yaml",
            how.wait
        ),
    }
}

/// Prints each phase as it comes.
async fn follow(api: &Api<Takeover>, name: &str) -> Result<Verdict> {
    let mut shown = 0;
    loop {
        let takeover = api.get(name).await?;
        let status = takeover.status.unwrap_or_default();
        for step in status.timeline.iter().skip(shown) {
            let site = step.site.as_deref().map(|s| format!(" at {s}")).unwrap_or_default();
            println!("  {}  {}{site}", step.at.0, step.event);
        }
        shown = shown.max(status.timeline.len());
        let message = || status.conditions.iter().map(|c| c.message.as_str()).collect::<Vec<_>>().join("; ");
        match status.phase {
            Phase::Complete => {
                println!("complete: epoch {}", status.epoch.as_deref().unwrap_or("?"));
                return Ok(Verdict::Well);
            }
            Phase::Failed => bail!("takeover {name} failed: {}", message()),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
