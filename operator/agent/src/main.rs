//! `regent-agent`.

use anyhow::Context;
use clap::Parser;
use regent_agent::config::Options;
use regent_core::event::Actor;
use regent_shell::{event, logging, tls};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    tls::install_provider();
    let _logs = logging::init();
    let config = Options::parse().load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        event::started(&config.site, Actor::Agent, Some(&config.node.0), env!("CARGO_PKG_VERSION"));
        tracing::info!(site = %config.site, node = %config.node, hub = %config.fallback, "agent begins");
        tokio::select! {
            ended = regent_agent::run::run(config) => ended?,
            _ = terminate.recv() => tracing::info!("told to end"),
        }
        event::flush();
        Ok(())
    })
}
