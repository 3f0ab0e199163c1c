//! `regent-demo`: brings up a federation of real sites, takes the home site's control away,
//! and judges what follows from raw evidence.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use regent_demo::federation::{Federation, Timing, workspace};
use regent_demo::group::Group;
use regent_demo::scenario::play;
use regent_demo::screen::Screen;
use regent_evidence::{Scenario, timeline};
use regent_rig::{Options, Topology};

/// Watch a real cluster lose contact with the world, and a partner carry on.
#[derive(Debug, Parser)]
struct Args {
    /// cut, blip, crash, planned or failback.
    #[arg(long, env = "SCENARIO", default_value = "cut")]
    scenario: Scenario,
    /// How the lease is timed.
    #[arg(long, env = "TIMING", value_enum, default_value_t = Timing::Default)]
    timing: Timing,
    /// How often to run the scenario, each time on a federation of its own.
    #[arg(long, env = "RUNS", default_value_t = 1)]
    runs: u32,
    /// Keep the federation up afterwards until Enter is pressed, to look around.
    #[arg(long, env = "KEEP")]
    keep: bool,
    /// Who takes part, and where.
    #[arg(long)]
    topology: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            eprintln!(
                "the rig is left as it is: `regent-rig logs SITE` shows what its parts said, `make rig-down` removes it"
            );
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    if args.runs == 0 {
        bail!("RUNS is 0: nothing would be shown; use 1 or more");
    }
    let mut passed = true;
    for number in 1..=args.runs {
        passed &= run_once(args, number)?;
    }
    Ok(passed)
}

fn run_once(args: &Args, number: u32) -> Result<bool> {
    let begun = Instant::now();
    let topology_file = args.topology.clone().unwrap_or_else(|| workspace().join("e2e/topologies/demo.yaml"));
    let topology = Topology::load(&topology_file).context("read the topology")?;
    let mut options = Options::new("regent");
    options.say = std::sync::Arc::new(move |line| println!("{:>6.1} s  {line}", begun.elapsed().as_secs_f64()));
    let federation = Federation::up(options, &topology, args.timing)?;
    let group = Group::shop();
    group.apply(&federation)?;
    group.protect(&federation)?;
    let mut dir = workspace().join("target/demo").join(args.scenario.word());
    if args.runs > 1 {
        dir = dir.join(number.to_string());
    }
    println!("\n{}\n", introduction(args.scenario));
    let (report, evidence) = play(&federation, &group, args.scenario, &dir, Screen::new())?;
    let colour = std::io::stdout().is_terminal();
    if let Some(picture) = timeline::draw(&evidence, &group.key(), Some(args.scenario), colour) {
        println!("\n{picture}");
    }
    for (name, ms) in report.timings_ms.named() {
        if let Some(ms) = ms {
            println!("{name:>30}  {ms:>9.1} ms");
        }
    }
    for reason in &report.reasons {
        println!("  because {reason}");
    }
    println!("result: {}", if report.passed() { "pass" } else { "fail" });
    println!("evidence: {}", dir.display());
    if args.keep {
        println!("the federation stays up, `regent-rig` shows it; press Enter to take it down");
        std::io::stdin().read_line(&mut String::new())?;
    }
    federation.down()?;
    Ok(report.passed())
}

fn introduction(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Cut => "The shop runs in Ireland. In two seconds Ireland loses contact with the world.",
        Scenario::Blip => "The shop runs in Ireland. In two seconds Ireland loses contact, for a short while.",
        Scenario::Crash => "The shop runs in Ireland. In two seconds every process of that site dies.",
        Scenario::Planned => "The shop runs in Ireland. In two seconds somebody asks to move it to France.",
        Scenario::Failback => "The shop runs in Ireland. It will be moved to France, and back again.",
        Scenario::Steady | Scenario::Held => "",
    }
}
