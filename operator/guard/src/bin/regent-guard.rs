//! regent-guard: the CSI driver, journal and freezer of one node, and its supervisor.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use regent_guard::output::Output;
use regent_guard::serve::{Heart, Options, ServeError, serve};
use regent_guard::{seccomp, supervise};
use tracing_subscriber::filter::LevelFilter;

/// Regent's power over one node: gate, fence and journal. Believes nothing but certificates.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Keep a guard running: starts it again within 100 ms after any death. The container's first process.
    Supervise(Options),
    /// Be the guard.
    Serve {
        /// A supervisor waits for signs of life on standard input.
        #[arg(long, hide = true)]
        supervised: bool,
        #[command(flatten)]
        options: Options,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Ok(output) = Output::start() else { return ExitCode::FAILURE };
    // A level alone: filters by module cost memory that a guard doesn't need.
    let level = std::env::var("RUST_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(output.clone())
        .with_ansi(false)
        .with_target(false)
        .init();
    let code = match run(arguments.mode, &output) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            let lasting = error.downcast_ref::<ServeError>().is_some_and(ServeError::is_lasting);
            ExitCode::from(if lasting { supervise::MISCONFIGURED } else { 1 })
        }
    };
    output.flush();
    code
}

fn run(mode: Mode, output: &Output) -> anyhow::Result<ExitCode> {
    seccomp::refuse_network().context("installing the seccomp filter that refuses network sockets")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    match mode {
        Mode::Supervise(_) => {
            // Passed on as they are; parsed above so that a wrong one ends here.
            let arguments: Vec<String> = std::env::args().skip(2).collect();
            let status = runtime.block_on(supervise::supervise(&arguments)).context("supervising the guard")?;
            Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
        }
        Mode::Serve { supervised, options } => {
            let heart = Heart::new(supervised)?;
            runtime.block_on(serve(options, output.clone(), heart))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
