//! What a site's API server was asked, and what its processes took.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use http::Request;
use kube::Client;
use serde::Serialize;

use super::sites::Sites;
use crate::process;

/// Everything of one span.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Its length.
    pub seconds: f64,
    /// By site.
    pub sites: Vec<SiteLoad>,
}

/// One site.
#[derive(Debug, Serialize)]
pub struct SiteLoad {
    /// Its name.
    pub site: String,
    /// Writes a second, without Leases and ControlLeases: those are what leases and renewals cost.
    pub writes_per_s: f64,
    /// Lists a second.
    pub lists_per_s: f64,
    /// Reads of single objects a second.
    pub gets_per_s: f64,
    /// Every kind of request, by verb and resource, a second.
    pub requests_per_s: BTreeMap<String, f64>,
    /// The operator.
    pub operator: Usage,
    /// kube-apiserver.
    pub api_server: Usage,
    /// etcd.
    pub etcd: Usage,
}

/// One process.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// Processor time as a share of one core's, in percent.
    pub cpu_percent: f64,
    /// Resident memory at the end, in KiB.
    pub resident_kib: u64,
}

const PROGRAMS: [&str; 3] = ["operator", "apiserver", "etcd"];

struct Start {
    site: String,
    requests: BTreeMap<(String, String), u64>,
    cpu_ms: [u64; 3],
}

/// A span that has begun.
pub struct Meter {
    begun: Instant,
    starts: Vec<Start>,
}

impl Meter {
    /// Begins at all sites.
    pub fn start(sites: &Sites) -> Result<Self> {
        let begun = Instant::now();
        let start = |site: &str| -> Result<Start> {
            Ok(Start { requests: sites.at(site, requests)?, cpu_ms: cpu(sites, site)?, site: site.to_owned() })
        };
        Ok(Self { starts: sites.names().into_iter().map(start).collect::<Result<_>>()?, begun })
    }

    /// Ends it.
    pub fn stop(self, sites: &Sites) -> Result<Load> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let loads = self.starts.into_iter().map(|start| start.load(sites, seconds));
        Ok(Load { seconds, sites: loads.collect::<Result<_>>()? })
    }
}

fn cpu(sites: &Sites, site: &str) -> Result<[u64; 3]> {
    let mut spent = [0; 3];
    for (ms, program) in spent.iter_mut().zip(PROGRAMS) {
        *ms = process::cpu_ms(sites.pid(site, program)?)?;
    }
    Ok(spent)
}

impl Start {
    fn load(self, sites: &Sites, seconds: f64) -> Result<SiteLoad> {
        let Self { site, requests: before, cpu_ms } = self;
        let spent = cpu(sites, &site)?;
        let after = sites.at(&site, requests)?;
        let usage = |i: usize| -> Result<Usage> {
            let memory = process::memory(sites.pid(&site, PROGRAMS[i])?)?;
            Ok(Usage { cpu_percent: (spent[i] - cpu_ms[i]) as f64 / seconds / 10.0, resident_kib: memory.resident_kib })
        };
        let (mut writes, mut lists, mut gets, mut all) = (0.0, 0.0, 0.0, BTreeMap::new());
        for ((verb, resource), count) in after {
            let more = count - before.get(&(verb.clone(), resource.clone())).copied().unwrap_or_default();
            let rate = more as f64 / seconds;
            match verb.as_str() {
                "LIST" => lists += rate,
                "GET" => gets += rate,
                "WATCH" | "CONNECT" => {}
                _ if matches!(resource.as_str(), "leases" | "controlleases") => {}
                _ => writes += rate,
            }
            if more > 0 {
                all.insert(format!("{verb} {resource}"), rate);
            }
        }
        Ok(SiteLoad {
            writes_per_s: writes,
            lists_per_s: lists,
            gets_per_s: gets,
            requests_per_s: all,
            operator: usage(0)?,
            api_server: usage(1)?,
            etcd: usage(2)?,
            site,
        })
    }
}

/// How often each verb was asked of each resource, since the API server's start.
async fn requests(client: Client) -> Result<BTreeMap<(String, String), u64>> {
    let text = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
    Ok(parse(&text))
}

/// Reads `apiserver_request_total` of the text format. What has no resource is no object: health
/// checks, discovery, and these metrics themselves.
fn parse(text: &str) -> BTreeMap<(String, String), u64> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let Some((labels, value)) = line.strip_prefix("apiserver_request_total{").and_then(|l| l.split_once("} "))
        else {
            continue;
        };
        let label = |name: &str| {
            let rest = labels.split(',').find_map(|l| l.strip_prefix(name)?.strip_prefix("=\""))?;
            rest.strip_suffix('"')
        };
        let (Some(verb), Some(resource)) = (label("verb"), label("resource").filter(|r| !r.is_empty())) else {
            continue;
        };
        let sub = label("subresource").filter(|s| !s.is_empty()).map(|s| format!("/{s}")).unwrap_or_default();
        let count = value.trim().parse::<f64>().unwrap_or_default() as u64;
        *all.entry((verb.to_owned(), format!("{resource}{sub}"))).or_default() += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_added_up_by_verb_and_resource_whatever_their_code() {
        let text = "# HELP apiserver_request_total x\n\
            apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 40\n\
            apiserver_request_total{code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 2\n\
            apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"status\",verb=\"APPLY\",version=\"v1\"} 3\n\
            apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"\",subresource=\"/healthz\",verb=\"GET\",version=\"\"} 9\n";
        let wanted = [(("APPLY", "pods/status"), 3), (("LIST", "pods"), 42)];
        assert_eq!(parse(text), wanted.map(|((v, r), n)| ((v.to_owned(), r.to_owned()), n)).into());
    }
}
