//! `regent-evidence`: gathers, judges and draws recordings of failovers.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use regent_evidence::clock::Clock;
use regent_evidence::judge::{groups_of, scenario_of};
use regent_evidence::merge::{AuditFilter, add_eligible, copy_audit, events_of_logs, write_events};
use regent_evidence::{Evidence, Report, Scenario, judge, stats, timeline};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "regent-evidence", version, about = "Judge a failover from its raw evidence")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Judge a recording: writes DIR/report.json and exits 0 for a pass, 1 for a fail
    Report {
        /// Directory of the recording
        dir: PathBuf,
        /// What was tried; by default what the recording says
        #[arg(long)]
        scenario: Option<Scenario>,
        /// Judge only this group, as HOME/NAME (repeatable); by default all
        #[arg(long)]
        group: Vec<String>,
    },
    /// Draw a recording in the terminal
    Timeline {
        /// Directory of the recording
        dir: PathBuf,
        /// What was tried; by default what the recording says
        #[arg(long)]
        scenario: Option<Scenario>,
        /// Draw only this group, as HOME/NAME (repeatable); by default all
        #[arg(long)]
        group: Vec<String>,
    },
    /// Print minimum, median and maximum of every timing over several reports
    Stats {
        /// report.json files, or directories that hold one
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Gather events.jsonl and audit/ of a recording out of raw logs
    Merge {
        /// Directory of the recording
        dir: PathBuf,
        /// Log of a process, bare or in the CRI format (repeatable)
        #[arg(long)]
        log: Vec<PathBuf>,
        /// Audit log of a site's API server, as SITE=FILE (repeatable)
        #[arg(long, value_parser = site_and_path)]
        audit: Vec<(String, PathBuf)>,
        /// Add eligible events out of the witnesses' lapsed events, for this quorum
        #[arg(long)]
        quorum: Option<usize>,
        /// Leave out events and audit lines from before this moment (CLOCK_BOOTTIME, ns)
        #[arg(long)]
        since_boot_ns: Option<u64>,
        /// Keep only this users' namespace of the audit logs (repeatable); by default all
        #[arg(long)]
        namespace: Vec<String>,
    },
}

fn site_and_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((site, path)) if !site.is_empty() => Ok((site.to_owned(), path.into())),
        _ => Err("it must be SITE=FILE".to_owned()),
    }
}

fn report(dir: &Path, scenario: Option<Scenario>, groups: &[String]) -> Result<bool> {
    let report = judge(&Evidence::load(dir)?, scenario, groups);
    report.write(dir)?;
    println!("result: {}", if report.passed() { "pass" } else { "fail" });
    for reason in &report.reasons {
        println!("  - {reason}");
    }
    for (timing, value) in report.timings_ms.named() {
        if let Some(value) = value {
            println!("{timing:>30}  {value:>9.1} ms");
        }
    }
    Ok(report.passed())
}

fn draw(dir: &Path, scenario: Option<Scenario>, groups: Vec<String>) -> Result<()> {
    let evidence = Evidence::load(dir)?;
    let scenario = scenario.or_else(|| scenario_of(&evidence));
    let groups = if groups.is_empty() { groups_of(&evidence) } else { groups };
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for group in &groups {
        match timeline::draw(&evidence, group, scenario, colour) {
            Some(picture) => print!("{picture}"),
            None => bail!("{}: no fault of {group} is recorded, so there is nothing to draw around", dir.display()),
        }
    }
    if groups.is_empty() {
        bail!("{}: no group is recorded", dir.display());
    }
    Ok(())
}

fn print_stats(paths: &[PathBuf], json: bool) -> Result<()> {
    let mut reports = Vec::new();
    for path in paths {
        let file = if path.is_dir() { path.join("report.json") } else { path.clone() };
        reports.push(Report::read(&file)?);
    }
    let summaries = stats::summarise(&reports);
    if json {
        println!("{}", serde_json::to_string_pretty(&summaries)?);
    } else {
        print!("{}", stats::table(&summaries));
    }
    Ok(())
}

fn merge(verb: Verb) -> Result<()> {
    let Verb::Merge { dir, log, audit, quorum, since_boot_ns, namespace } = verb else {
        bail!("not a merge");
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("{}: can't be made", dir.display()))?;
    let mut merged = events_of_logs(&log)?;
    for why in &merged.rejected {
        eprintln!("not an event: {why}");
    }
    let clock = Clock::new(&merged.events);
    if let Some(quorum) = quorum {
        add_eligible(&mut merged.events, quorum);
    }
    merged.events.retain(|e| since_boot_ns.is_none_or(|since| e.boot_ns >= since));
    write_events(&dir, &merged.events)?;
    let since = match (since_boot_ns, clock) {
        (Some(since), Some(clock)) => Some((clock, since)),
        (Some(_), None) if !audit.is_empty() => {
            bail!("--since-boot-ns: no event carries detail.realtime_ns, so audit times can't be placed")
        }
        _ => None,
    };
    let filter = AuditFilter { since, namespaces: namespace };
    let mut sites: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (site, path) in audit {
        sites.entry(site).or_default().push(path);
    }
    for (site, paths) in sites {
        let unreadable = copy_audit(&dir, &site, &paths, &filter)?;
        if unreadable > 0 {
            eprintln!("audit of {site}: {unreadable} lines are no audit events");
        }
    }
    Ok(())
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let passed = match arguments.verb {
        Verb::Report { dir, scenario, group } => report(&dir, scenario, &group)?,
        Verb::Timeline { dir, scenario, group } => draw(&dir, scenario, group).map(|()| true)?,
        Verb::Stats { reports, json } => print_stats(&reports, json).map(|()| true)?,
        verb @ Verb::Merge { .. } => merge(verb).map(|()| true)?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("regent-evidence: {error:#}");
            ExitCode::from(2)
        }
    }
}
