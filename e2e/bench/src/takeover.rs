//! How long takeovers take: scenario `cut`, each time on a federation of its own.

use anyhow::Result;
use clap::ValueEnum;
use regent_demo::federation::{Federation, Timing};
use regent_demo::group::Group;
use regent_demo::scenario::play;
use regent_demo::screen::Screen;
use regent_evidence::stats::{Summary, summarise, table};
use regent_evidence::{Report, Scenario};
use serde::Serialize;

use crate::process::Machine;
use crate::{options, publish, results, topology};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of takeovers
    #[arg(long, env = "RUNS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How the lease is timed
    #[arg(long, env = "TIMING", value_enum, default_value_t = Timing::Default)]
    timing: Timing,
}

/// The result.
#[derive(Debug, Serialize)]
struct Outcome {
    /// How the lease was timed.
    timing: String,
    /// D.
    lease_duration: &'static str,
    /// W.
    takeover_after: &'static str,
    /// The machine after each run.
    machine: Vec<Machine>,
    /// Every rule that didn't hold, by run.
    reasons: Vec<String>,
    /// The spread of every interval.
    summaries: Vec<Summary>,
}

/// Measures; false if the judge fails a run.
pub fn run(args: &Args) -> Result<bool> {
    let timing = args.timing;
    let name = timing.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let folder = results().join(format!("takeover-{name}"));
    let (mut reports, mut machine, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=args.runs {
        eprintln!("takeover {number} of {}, timing {name}", args.runs);
        let report = take_over(timing, &folder.join(number.to_string()))?;
        reasons.extend(report.reasons.iter().map(|reason| format!("run {number}: {reason}")));
        reports.push(report);
        machine.push(Machine::now()?);
    }
    let summaries = summarise(&reports);
    eprint!("{}", table(&summaries));
    for reason in &reasons {
        eprintln!("  failed because {reason}");
    }
    let file = results().join(format!("takeover-{name}.json"));
    let (lease_duration, takeover_after) = (timing.lease_duration(), timing.takeover_after());
    publish(&file, &Outcome { timing: name, lease_duration, takeover_after, machine, reasons, summaries })?;
    Ok(reports.iter().all(Report::passed))
}

fn take_over(timing: Timing, evidence: &std::path::Path) -> Result<Report> {
    let federation = Federation::up(options(), &topology("demo.yaml")?, timing)?;
    let group = Group::shop();
    group.apply(&federation)?;
    group.protect(&federation)?;
    federation.say("cutting home off");
    let (report, _) = play(&federation, &group, Scenario::Cut, evidence, Screen::silent())?;
    federation.down()?;
    Ok(report)
}
