//! `sites`: who sees whom.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use regent_api::Site;
use regent_api::site::SiteRole;

use crate::Verdict;
use crate::output::{Format, print};

/// The matrix: a row for each observer, a column for each observed site.
pub async fn run(client: &Client, format: Format) -> Result<Verdict> {
    let sites = Api::<Site>::all(client.clone()).list(&ListParams::default()).await?.items;
    let sights = |s: &Site| s.status.clone().unwrap_or_default().observed_by;
    let observers: BTreeSet<String> = sites.iter().flat_map(&sights).map(|s| s.from).collect();
    let cell = |observer: &String, site: &Site| {
        let sight = sights(site).into_iter().find(|s| &s.from == observer)?;
        let since = jiff::Timestamp::now().duration_since(sight.since.0).as_secs();
        Some(format!("{} for {since}s (phi {:.1})", if sight.alive { "alive" } else { "LOST" }, sight.phi))
    };
    let rows = observers.iter().map(|observer| {
        let mut row = vec![observer.clone()];
        row.extend(sites.iter().map(|site| {
            if &site.name_any() == observer {
                "-".to_owned()
            } else {
                cell(observer, site).unwrap_or_else(|| "?".into())
            }
        }));
        row
    });
    let mut header = vec!["SEES".to_owned()];
    header.extend(sites.iter().map(ResourceExt::name_any));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let data: Vec<_> = sites.iter().map(|s| serde_json::json!({"site": s.name_any(), "status": s.status})).collect();
    print(format, &data, &header, rows.collect())?;
    let lost = sites.iter().flat_map(&sights).any(|s| !s.alive);
    Ok(if lost { Verdict::NotWell } else { Verdict::Well })
}

/// The name of the current context's site.
pub async fn here(client: &Client) -> Result<String> {
    let sites = Api::<Site>::all(client.clone()).list(&ListParams::default()).await.context("list Sites")?.items;
    let is_here = |s: &&Site| s.status.as_ref().is_some_and(|status| status.roles.contains(&SiteRole::Local));
    let found = sites.iter().find(is_here).map(ResourceExt::name_any);
    found.context("no Site here has the role Local: does the operator run at this site?")
}
