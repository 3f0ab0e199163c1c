//! `charter verify`: is this charter in force, and which failures does it survive?

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use regent_core::charter::{Cause, Charter, Outcome, SignedCharter};
use regent_core::ids::SiteName;
use serde_json::json;

use crate::Verdict;
use crate::output::{Format, print};

/// Arguments of `charter verify`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The signed charter (DSSE envelope in JSON).
    file: PathBuf,
    /// The version before it, whose threshold must have signed too: checked if given.
    #[arg(long)]
    previous: Option<PathBuf>,
    /// Home of the groups that are asked about; by default the sites that are no witness.
    #[arg(long)]
    home: Option<SiteName>,
    /// Their standbys; by default every other site.
    #[arg(long, value_delimiter = ',')]
    standbys: Option<Vec<SiteName>>,
    /// How many sites may fail together for any reason.
    #[arg(long, default_value_t = 2)]
    together: usize,
}

fn read(path: &Path) -> Result<SignedCharter> {
    let text = fs::read_to_string(path).with_context(|| format!("read charter {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        let path = path.display();
        format!("charter {path} is no signed charter: it must be a DSSE envelope in JSON, as `charter init` writes it")
    })
}

/// Checks and prints.
pub fn run(args: &Args, format: Format) -> Result<Verdict> {
    let signed = read(&args.file)?;
    let charter = match &args.previous {
        None => signed.verify_pinned(),
        Some(path) => {
            let before = read(path)?.verify_pinned().with_context(|| format!("charter {}", path.display()))?;
            signed.verify_next(&before)
        }
    };
    let charter = charter.with_context(|| format!("charter {}", args.file.display()))?;
    let home = home(args, &charter)?;
    let standbys = args.standbys.clone().unwrap_or_else(|| charter.sites.iter().map(|s| s.name.clone()).collect());
    let unknown = standbys.iter().find(|s| charter.site(s).is_none());
    if let Some(site) = unknown {
        bail!("--standbys names {site}, which the charter does not have");
    }
    let analysis = charter.analyse(&home, &standbys, args.together);
    if format == Format::Table {
        println!(
            "charter {} version {}: text and signatures are right\n{} witnesses ({}), {} may be faulty, a quorum is {}; leaseDuration {:?}\n\nfor groups of {home}:",
            charter.name,
            charter.version,
            charter.witness_count(),
            names(&charter.witnesses),
            charter.faulty_witnesses,
            charter.quorum(),
            charter.lease_duration()
        );
    }
    let header = ["IF THESE SITES FAIL TOGETHER", "BECAUSE", "WITNESSES LEFT", "HOME STILL RENEWS", "MAY TAKE OVER"];
    print(
        format,
        &json!({"charter": charter, "analysis": analysis}),
        &header,
        analysis.outcomes.iter().map(row).collect(),
    )?;
    Ok(Verdict::Well)
}

fn home(args: &Args, charter: &Charter) -> Result<SiteName> {
    if let Some(home) = &args.home {
        return match charter.site(home) {
            Some(site) => Ok(site.name.clone()),
            None => bail!("--home {home}: the charter does not name that site"),
        };
    }
    let candidates: Vec<&SiteName> = charter.sites.iter().map(|s| &s.name).filter(|s| !charter.is_witness(s)).collect();
    match candidates.as_slice() {
        [one] => Ok((*one).clone()),
        _ => bail!("say with --home for which home the failures are to be judged"),
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let because = match &outcome.cause {
        Cause::Together => "any reason".to_owned(),
        Cause::Party(party) => format!("party {party}"),
        Cause::Country(country) => format!("country {country}"),
        Cause::Jurisdiction(country) => format!("jurisdiction {country}"),
    };
    let renews = if outcome.renewal { "yes" } else { "no" };
    vec![
        names(&outcome.failed),
        because,
        outcome.witnesses_left.to_string(),
        renews.to_owned(),
        names(&outcome.takeover),
    ]
}

fn names(sites: &[SiteName]) -> String {
    if sites.is_empty() {
        return "none".to_owned();
    }
    sites.iter().map(SiteName::as_str).collect::<Vec<_>>().join(", ")
}

/// Refuses a charter whose text is wrong, naming every mistake at once.
pub fn refuse_mistakes(charter: &Charter) -> Result<()> {
    let errors = charter.errors();
    if errors.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = errors.iter().map(|error| format!("\n  - {error}")).collect();
    bail!("the topology makes no valid charter:{}", list.concat())
}
