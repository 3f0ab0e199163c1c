//! `kubectl regent`: a person's way in.
//!
//! Every command reads what the sites themselves keep (CRDs of the current context);
//! the copies there tell the same story when home is dead. Tables by default,
//! `-o json|yaml` for scripts. Exit codes: 0 done or all well, 1 failed, 2 wrong usage,
//! 3 something is wrong with what was asked about (`status`, `charter verify`).

mod charter;
mod cluster;
mod completion;
mod detail;
mod differences;
mod explain;
mod group;
mod init;
mod kinds;
mod moves;
mod output;
mod patch;
mod prepare;
mod protect;
mod sites;
mod standby;
mod status;
mod topology;
mod views;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cluster::ClusterArgs;
use crate::output::Format;

/// What a command found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done, or all well.
    Well,
    /// It worked, and what it shows is not well.
    NotWell,
}

/// Failover of Kubernetes workloads between sites of different operators.
#[derive(Debug, Parser)]
#[command(name = "kubectl-regent", bin_name = "kubectl regent", version)]
struct Cli {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print: a table, or json or yaml for scripts.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make or check a charter, the signed trust root of a federation.
    #[command(subcommand)]
    Charter(CharterCommand),
    /// What a party says in its own cluster about groups that it stands by for.
    #[command(subcommand)]
    Standby(StandbyCommand),
    /// Print the Role that the operator needs in a protected namespace at home.
    #[command(subcommand)]
    Home(HomeCommand),
    /// Take a group from Observed to Protected, restarting pods that have no gate.
    Protect(protect::Args),
    /// Groups, holders, epochs, and what is wrong.
    Status(status::Args),
    /// Who sees whom.
    Sites,
    /// Each witness's view of a group, and which rule holds it where it is.
    Explain(explain::Args),
    /// Move a group to another site, with its holder's help.
    Takeover(moves::TakeoverArgs),
    /// Move a group back to its home.
    Failback(moves::FailbackArgs),
    /// What people changed at the holder while it held the group.
    Differences(differences::Args),
    /// Take over at home what was changed at the holder.
    Adopt(differences::AdoptArgs),
    /// Follow changes of groups until interrupted.
    Watch(watch::Args),
}

#[derive(Debug, Subcommand)]
enum CharterCommand {
    /// Make a working charter, with all keys, for a topology: for trying Regent out.
    Init(init::Args),
    /// Check a charter's text and signatures, and which failures it survives.
    Verify(charter::Args),
}

#[derive(Debug, Subcommand)]
enum StandbyCommand {
    /// Print the namespace, Role and RoleBinding of a group at a standby.
    Prepare(prepare::StandbyArgs),
    /// Take a group out at this site: its copies are removed, its data stays.
    Leave(standby::LeaveArgs),
    /// Let a group in again that was taken out.
    Join(standby::JoinArgs),
}

#[derive(Debug, Subcommand)]
enum HomeCommand {
    /// Print the Role and RoleBinding for a namespace at home.
    Prepare(prepare::Args),
}

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if words.next().is_some_and(|program| completion::is_asked(&program.to_string_lossy())) {
        return match completion::answer(Cli::command(), words) {
            Ok(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        };
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::NotWell) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<Verdict> {
    let (cluster, format) = (&cli.cluster, cli.output);
    match cli.command {
        Command::Charter(CharterCommand::Init(args)) => init::run(&args),
        Command::Charter(CharterCommand::Verify(args)) => charter::run(&args, format),
        Command::Standby(StandbyCommand::Prepare(args)) => prepare::standby(&args),
        Command::Standby(StandbyCommand::Leave(args)) => standby::leave(&args, &cluster.client().await?).await,
        Command::Standby(StandbyCommand::Join(args)) => standby::join(&args, &cluster.client().await?).await,
        Command::Home(HomeCommand::Prepare(args)) => prepare::home(&args),
        Command::Protect(args) => protect::run(&args, &cluster.client().await?).await,
        Command::Status(args) => status::run(&args, &cluster.client().await?, format).await,
        Command::Sites => sites::run(&cluster.client().await?, format).await,
        Command::Explain(args) => explain::run(&args, &cluster.client().await?, format).await,
        Command::Takeover(args) => moves::takeover(&args, &cluster.client().await?).await,
        Command::Failback(args) => moves::failback(&args, &cluster.client().await?).await,
        Command::Differences(args) => differences::run(&args, &cluster.client().await?, format).await,
        Command::Adopt(args) => differences::adopt(&args, &cluster.client().await?).await,
        Command::Watch(args) => watch::run(&args, &cluster.client().await?, format).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
