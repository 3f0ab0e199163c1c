//! `regent-bench`: what Regent costs on a node, and how long takeovers take, measured on real sites.
//!
//! Numbers go to standard output as JSON; progress and a table for people go to standard error.
//! What is measured shares the machine with the rig's sites, so quiet machines tell most: each
//! result says how busy the machine was.

mod groups;
mod node;
mod process;
mod takeover;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use regent_demo::federation::workspace;
use regent_rig::{Options, Topology, target_dir};
use serde::Serialize;

/// Name of the rig, apart from the demo's and the tests'.
const RIG: &str = "bench";

/// Measure Regent on real sites.
#[derive(Debug, Parser)]
#[command(name = "regent-bench", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Memory and processor time of Regent's programs on a full node, at home and at a standby
    Node(node::Args),
    /// What idle groups cost two sites, and how soon a change at home is at the standby
    Groups(groups::Args),
    /// Minimum, median and maximum of every interval of a takeover after a cut
    Takeover(takeover::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().verb {
        Verb::Node(args) => node::run(&args),
        Verb::Groups(args) => groups::run(&args),
        Verb::Takeover(args) => takeover::run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            eprintln!(
                "the rig is left as it is: `regent-rig --rig {RIG} logs SITE` shows what its parts said, \
                 `make rig-down RIG={RIG}` removes it"
            );
            ExitCode::FAILURE
        }
    }
}

/// The rig's options: progress goes to standard error, with the time since now.
fn options() -> Options {
    let begun = Instant::now();
    let mut options = Options::new(RIG);
    options.say = Arc::new(move |line| eprintln!("{:>6.1} s  {line}", begun.elapsed().as_secs_f64()));
    options
}

/// One of the topologies of the tree.
fn topology(file: &str) -> Result<Topology> {
    let path = workspace().join("e2e/topologies").join(file);
    Topology::load(&path).context("read the topology")
}

/// Folder of everything that is measured.
fn results() -> PathBuf {
    target_dir().join("bench")
}

/// Prints a result and writes it to `path`.
fn publish(path: &Path, result: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(result)?;
    println!("{json}");
    fs::create_dir_all(results()).with_context(|| format!("create {}", results().display()))?;
    fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))?;
    eprintln!("written to {}", path.display());
    Ok(())
}
