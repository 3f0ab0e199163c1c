//! What Regent's programs take of a node that is full of protected pods.
//!
//! Home and its standby have one node each: one runs all pods, the other holds all of them
//! ready at their gates. Both are measured over the same span.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regent_demo::federation::{Federation, Timing};
use regent_demo::group::Group;
use regent_demo::scenario::play;
use regent_demo::screen::Screen;
use regent_evidence::report::Timings;
use regent_evidence::{Scenario, boot_ns};
use regent_rig::Cgroups;
use serde::Serialize;

use crate::process::{self, Machine};
use crate::{options, publish, results, topology};

/// What a node of the rig has room for, below the kubelet's maxPods of 200.
const MOST_PODS: u32 = 190;
/// How long home may take to start all pods: minutes on a busy machine.
const START_LIMIT: &str = "600s";

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of protected pods on the node
    #[arg(long, env = "PODS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_PODS)))]
    pods: u32,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Cut home off afterwards, and judge how all pods stop there and start at the standby
    #[arg(long)]
    cut: bool,
}

/// The result.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Protected pods on each node.
    pods: u32,
    /// The machine when the measurement ended.
    machine: Machine,
    /// CLOCK_BOOTTIME that the measurement took, in seconds.
    seconds: f64,
    /// Regent's programs on the nodes of home and standby.
    programs: Vec<Usage>,
    /// The takeover of all pods at once, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
}

/// What followed from cutting home off.
#[derive(Debug, Serialize)]
struct Cut {
    /// Whether every rule of the judge holds.
    passed: bool,
    /// Those that don't.
    reasons: Vec<String>,
    /// Intervals.
    timings_ms: Timings,
}

/// One program of one node.
#[derive(Debug, Serialize)]
struct Usage {
    /// The node.
    node: String,
    /// What the program is.
    program: &'static str,
    /// Its process.
    pid: u32,
    /// Resident memory at the end, in KiB.
    resident_kib: u64,
    /// The part of it that isn't shared with a file, in KiB.
    anonymous_kib: u64,
    /// Processor time, in milliseconds.
    cpu_ms: u64,
    /// Processor time as a share of one core's, in percent.
    cpu_percent: f64,
}

/// A process under measurement.
struct Subject {
    node: String,
    program: &'static str,
    pid: u32,
    cpu_ms: u64,
}

/// Measures; false if the judge of `--cut` fails what happened.
pub fn run(args: &Args) -> Result<bool> {
    let federation = Federation::up(options(), &topology("bench.yaml")?, Timing::Default)?;
    let group = Group { standbys: vec!["france".into()], replicas: args.pods, ..Group::shop() };
    fill(&federation, &group)?;
    federation.say(&format!("measuring for {} s", args.seconds));
    let (seconds, programs) = measure(subjects(&federation, &group)?, Duration::from_secs(args.seconds))?;
    let machine = Machine::now()?;
    let cut = if args.cut { Some(cut(&federation, &group)?) } else { None };
    federation.down()?;
    let passed = cut.as_ref().is_none_or(|cut| cut.passed);
    let outcome = Outcome { pods: args.pods, machine, seconds, programs, cut };
    eprint!("{}", table(&outcome));
    publish(&results().join("node.json"), &outcome)?;
    Ok(passed)
}

/// Fills home's node with running pods and the standby's with held ones.
fn fill(federation: &Federation, group: &Group) -> Result<()> {
    group.apply(federation)?;
    federation.say(&format!("{}: starting {} pods", group.key(), group.replicas));
    let rollout = ["-n", &group.name, "rollout", "status", "deployment/shop", "--timeout", START_LIMIT];
    federation.kubectl(&group.home, &rollout, None)?;
    // Armed is what it waits for: the standby holds as many pods as it will run.
    group.protect(federation)
}

/// Regent's programs on the nodes of home and of its standbys.
fn subjects(federation: &Federation, group: &Group) -> Result<Vec<Subject>> {
    let cgroups = Cgroups::find()?;
    let mut subjects = Vec::new();
    for site in std::iter::once(&group.home).chain(&group.standbys) {
        for node in federation.rig.site(site)?.nodes() {
            let pids = cgroups.pids(&node.cgroup);
            let mut found: Vec<(u32, &'static str)> = pids.into_iter().filter_map(|p| Some((p, program(p)?))).collect();
            found.sort_by_key(|(_, program)| *program);
            let names: Vec<&str> = found.iter().map(|(_, program)| *program).collect();
            if names != ["agent", "guard", "supervisor"] {
                bail!(
                    "{}: Regent's programs are {names:?}, not one of each: one may just have restarted; run again",
                    node.name
                );
            }
            let subject = |(pid, program)| Subject { node: node.name.clone(), program, pid, cpu_ms: 0 };
            subjects.extend(found.into_iter().map(subject));
        }
    }
    Ok(subjects)
}

/// What a process is of Regent's on a node. The guard and its supervisor are one executable.
fn program(pid: u32) -> Option<&'static str> {
    match (process::name(pid).as_str(), process::arguments(pid).get(1).map(String::as_str)) {
        ("regent-agent", _) => Some("agent"),
        ("regent-guard", Some("supervise")) => Some("supervisor"),
        ("regent-guard", Some("serve")) => Some("guard"),
        _ => None,
    }
}

/// Measures all over the same span of CLOCK_BOOTTIME; returns its length in seconds.
fn measure(mut subjects: Vec<Subject>, span: Duration) -> Result<(f64, Vec<Usage>)> {
    let began = boot_ns();
    for subject in &mut subjects {
        subject.cpu_ms = process::cpu_ms(subject.pid)?;
    }
    sleep(span);
    let seconds = (boot_ns() - began) as f64 / 1e9;
    let usage = |subject: Subject| -> Result<Usage> {
        let ended = || format!("the {} of {} ended while it was measured; run again", subject.program, subject.node);
        let memory = process::memory(subject.pid).with_context(ended)?;
        let cpu_ms = process::cpu_ms(subject.pid).with_context(ended)? - subject.cpu_ms;
        Ok(Usage {
            resident_kib: memory.resident_kib,
            anonymous_kib: memory.anonymous_kib,
            cpu_ms,
            cpu_percent: cpu_ms as f64 / seconds / 10.0,
            node: subject.node,
            program: subject.program,
            pid: subject.pid,
        })
    };
    Ok((seconds, subjects.into_iter().map(usage).collect::<Result<_>>()?))
}

/// Cuts home off: every pod must stand still there before its lease ends, and start at the standby.
fn cut(federation: &Federation, group: &Group) -> Result<Cut> {
    federation.say("cutting home off");
    let (report, _) = play(federation, group, Scenario::Cut, &results().join("node"), Screen::silent())?;
    Ok(Cut { passed: report.passed(), reasons: report.reasons, timings_ms: report.timings_ms })
}

fn table(outcome: &Outcome) -> String {
    let Outcome { pods, machine, seconds, .. } = outcome;
    let mut text = format!(
        "{pods} pods a node, {seconds:.1} s, load {} on {} cores\n{:<12} {:<12} {:>13} {:>13} {:>9} {:>8}\n",
        machine.load, machine.cores, "node", "program", "resident KiB", "own KiB", "CPU ms", "% core",
    );
    for p in &outcome.programs {
        text.push_str(&format!(
            "{:<12} {:<12} {:>13} {:>13} {:>9} {:>8.2}\n",
            p.node, p.program, p.resident_kib, p.anonymous_kib, p.cpu_ms, p.cpu_percent,
        ));
    }
    let Some(cut) = &outcome.cut else { return text };
    for (name, ms) in cut.timings_ms.named() {
        if let Some(ms) = ms {
            text.push_str(&format!("{name:>30}  {ms:>9.1} ms\n"));
        }
    }
    for reason in &cut.reasons {
        text.push_str(&format!("  failed because {reason}\n"));
    }
    text
}
