//! `watch`: changes of groups as they come.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args as ClapArgs;
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use regent_api::FailoverGroup;

use crate::Verdict;
use crate::output::Format;
use crate::status::{GroupRow, group_table, groups};

/// Arguments of `watch`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Only this group.
    group: Option<String>,
}

/// Prints the groups again whenever what is shown has changed, until interrupted.
pub async fn run(args: &Args, client: &Client, format: Format) -> Result<Verdict> {
    let api = Api::<FailoverGroup>::all(client.clone());
    let mut changes = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().touched_objects());
    let mut shown: Option<Vec<GroupRow>> = None;
    while changes.try_next().await?.is_some() {
        let rows = groups(client, args.group.as_deref(), &BTreeMap::new()).await?;
        if shown.as_ref() == Some(&rows) {
            continue;
        }
        match format {
            Format::Table => println!("{}  {}\n", jiff::Zoned::now().strftime("%H:%M:%S"), group_table(&rows)),
            Format::Json => println!("{}", serde_json::to_string(&rows)?),
            Format::Yaml => print!("---\n{}", serde_yaml_ng::to_string(&rows)?),
        }
        shown = Some(rows);
    }
    Ok(Verdict::Well)
}
