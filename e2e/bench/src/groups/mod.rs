//! What groups cost while nothing happens to them, and while one of them changes.
//!
//! Home, one standby and the other witnesses are API servers without nodes, each with one operator
//! that runs as a plain process; home and the standby are measured. Each group is a namespace with a Deployment of one pod and a ConfigMap that it
//! reads; what controllers and kubelets would write of them is written once (`play`). A group
//! that wants no pod would be no release, and the standby would hold nothing; pods that nobody
//! runs cost a kubelet nothing, and the operators as much as real ones.

mod load;
mod play;
mod sites;

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::process::Machine;
use crate::{publish, results};
use load::{Load, Meter};
use sites::{HOME, STANDBY, Sites};

/// After the last group is ready: what follows from that is written by then.
const CALM: Duration = Duration::from_secs(20);
/// A change that takes longer than this is not seen.
const SEEN: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Numbers of groups, each on a federation of its own
    #[arg(long, env = "GROUPS_OF", value_delimiter = ',', default_value = "1,24")]
    groups: Vec<usize>,
    /// How long to measure idle groups, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Changes of one group, whose way to the standby is timed
    #[arg(long, default_value_t = 5)]
    changes: u32,
    /// How long to wait until all groups are held ready, in seconds; then it is measured all the same
    #[arg(long, default_value_t = 300)]
    settle: u64,
    /// Another build of the operator to measure first, for comparison
    #[arg(long)]
    before: Option<PathBuf>,
}

/// The result.
#[derive(Debug, Serialize)]
struct Outcome {
    /// The machine when the last measurement ended.
    machine: Machine,
    /// One for each build and number of groups.
    runs: Vec<Run>,
}

/// One build with one number of groups.
#[derive(Debug, Serialize)]
struct Run {
    /// `before` or `now`.
    build: &'static str,
    /// Protected groups.
    groups: usize,
    /// How many of them the standby held ready when it was measured.
    ready: usize,
    /// From the last object that was made until that many were ready, in seconds.
    ready_after_s: f64,
    /// While nothing happens.
    idle: Load,
    /// While one group changes.
    changing: Load,
    /// From a change at home until the standby's API server has it, in milliseconds; a change
    /// that was not seen within a minute is missing.
    seen_after_ms: Vec<f64>,
}

/// Measures; false if a group never got ready or a change was never seen.
pub fn run(args: &Args) -> Result<bool> {
    let now = Sites::program("regent-operator")?;
    let builds: Vec<(&'static str, PathBuf)> =
        args.before.clone().map(|p| ("before", p)).into_iter().chain([("now", now)]).collect();
    let mut runs = Vec::new();
    for groups in &args.groups {
        for (build, operator) in &builds {
            runs.push(
                measure(args, build, operator, *groups).with_context(|| format!("{groups} groups, build {build}"))?,
            );
        }
    }
    let good = |r: &Run| r.ready == r.groups && (r.groups == 0 || r.seen_after_ms.len() == args.changes as usize);
    // The old build is measured as it is.
    let passed = runs.iter().filter(|r| r.build == "now").all(good);
    let outcome = Outcome { machine: Machine::now()?, runs };
    eprint!("{}", table(&outcome));
    publish(&results().join("groups.json"), &outcome)?;
    Ok(passed)
}

fn measure(args: &Args, build: &'static str, operator: &std::path::Path, groups: usize) -> Result<Run> {
    let sites = Sites::up(operator)?;
    sites.say(&format!("{build}: making {groups} groups"));
    sites.at(STANDBY, |client| play::let_in(client, groups))?;
    sites.at(HOME, |client| play::make(client, groups))?;
    let begun = Instant::now();
    let limit = begun + Duration::from_secs(args.settle);
    let mut ready = 0;
    while ready < groups && Instant::now() < limit {
        sites.at(STANDBY, play::complete)?;
        ready = sites.at(HOME, play::ready)?;
        sleep(Duration::from_secs(1));
    }
    let ready_after_s = begun.elapsed().as_secs_f64();
    sites.say(&format!("{ready} of {groups} groups are held ready after {ready_after_s:.0} s"));
    sleep(CALM);
    let meter = Meter::start(&sites)?;
    sleep(Duration::from_secs(args.seconds));
    let idle = meter.stop(&sites)?;
    let meter = Meter::start(&sites)?;
    let seen_after_ms = if groups == 0 { Vec::new() } else { change(&sites, args.changes)? };
    let changing = meter.stop(&sites)?;
    sites.down()?;
    Ok(Run { build, groups, ready, ready_after_s, idle, changing, seen_after_ms })
}

/// Changes a ConfigMap of one group at home, again and again, and times each change's way.
fn change(sites: &Sites, changes: u32) -> Result<Vec<f64>> {
    let (sender, seen) = mpsc::channel();
    let mut times = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let watcher = scope.spawn(|| sites.at(STANDBY, |client| play::watch(client, sender)));
        // Whoever watches says so by the value that is there.
        seen.recv_timeout(SEEN).context("the standby has no ConfigMap of the group to watch")?;
        for number in 1..=changes {
            let begun = Instant::now();
            let value = format!("change-{number}");
            sites.at(HOME, |client| play::change(client, value.clone()))?;
            while let Ok((found, at)) = seen.recv_timeout(SEEN) {
                if found == value {
                    times.push((at - begun).as_secs_f64() * 1e3);
                    break;
                }
            }
            // Out of step with anything that looks now and then.
            sleep(Duration::from_millis(2700 + u64::from(number) * 310));
        }
        drop(seen);
        // One more, so that the watcher notices that nobody listens.
        sites.at(HOME, |client| play::change(client, "end".into()))?;
        drop(watcher);
        Ok(())
    })?;
    Ok(times)
}

fn table(outcome: &Outcome) -> String {
    let mut text = format!(
        "{:<7} {:>6} {:>6} {:<10} {:<10} {:>9} {:>9} {:>9} {:>11} {:>11} {:>10} {:>11}\n",
        "build",
        "groups",
        "ready",
        "state",
        "site",
        "writes/s",
        "lists/s",
        "gets/s",
        "op. % core",
        "op. RSS KiB",
        "API % core",
        "API RSS KiB"
    );
    for run in &outcome.runs {
        for (state, load) in [("idle", &run.idle), ("changing", &run.changing)] {
            for site in &load.sites {
                text.push_str(&format!(
                    "{:<7} {:>6} {:>6} {:<10} {:<10} {:>9.2} {:>9.2} {:>9.2} {:>11.2} {:>11} {:>10.2} {:>11}\n",
                    run.build,
                    run.groups,
                    run.ready,
                    state,
                    site.site,
                    site.writes_per_s,
                    site.lists_per_s,
                    site.gets_per_s,
                    site.operator.cpu_percent,
                    site.operator.resident_kib,
                    site.api_server.cpu_percent,
                    site.api_server.resident_kib,
                ));
            }
        }
        let mut times = run.seen_after_ms.clone();
        times.sort_by(f64::total_cmp);
        if let (Some(least), Some(most)) = (times.first(), times.last()) {
            let middle = times[times.len() / 2];
            text.push_str(&format!("{:<7} {:>6} a change is seen after {least:.0} / {middle:.0} / {most:.0} ms (least, median, most of {})\n", run.build, run.groups, times.len()));
        }
    }
    text
}
