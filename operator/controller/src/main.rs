//! `regent-operator`: the operator of a site, or a witness outside a cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use kube::config::{KubeConfigOptions, Kubeconfig};
use regent_controller::app::{self, Pod};
use regent_controller::context::Context;
use regent_controller::witness;
use regent_core::event::Actor;
use regent_core::ids::SiteName;
use regent_shell::{event, logging, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Regent's operator: leases, witness, hub and mirror of one site.
#[derive(Debug, Parser)]
#[command(name = "regent-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator of a site, in its cluster.
    Run(Run),
    /// Run a witness as a single process outside a cluster: votes in ControlLease objects of an API server.
    Witness(Witness),
}

#[derive(Debug, Args)]
struct Identity {
    /// This site, by its name in the charter.
    #[arg(long)]
    site: SiteName,
    /// The signed charter.
    #[arg(long, default_value = "/etc/regent/charter/charter.json")]
    charter: PathBuf,
    /// Folder with site.key, ca.crt, ca.key, tls.crt and tls.key.
    #[arg(long, default_value = "/etc/regent/site")]
    keys: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    identity: Identity,
    /// Where other sites are answered.
    #[arg(long, default_value = "0.0.0.0:7443")]
    federation_listen: SocketAddr,
    /// Where agents are answered.
    #[arg(long, default_value = "0.0.0.0:7444")]
    hub_listen: SocketAddr,
    /// Where `kubectl regent explain` is answered, through the API server.
    #[arg(long, default_value = "0.0.0.0:7445")]
    views_listen: SocketAddr,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// Address of this pod.
    #[arg(long, env = "POD_IP")]
    pod_ip: IpAddr,
    /// Reach the API server by this file instead of the pod's ServiceAccount.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Witness {
    #[command(flatten)]
    identity: Identity,
    /// The API server that keeps the votes.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Where other sites are answered.
    #[arg(long)]
    listen: SocketAddr,
    /// First start of a new witness: writes its marker, if there is none. A witness without
    /// its marker counts its state as lost and asks the others for theirs.
    #[arg(long)]
    install: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    tls::install_provider();
    let _logs = logging::init();
    let stop = stop_on_signal()?;
    let done = match Cli::parse().command {
        Command::Run(run) => operate(run, stop).await,
        Command::Witness(witness) => bear_witness(witness, stop).await,
    };
    event::flush();
    done
}

async fn operate(run: Run, stop: CancellationToken) -> Result<()> {
    let Identity { site, charter, keys } = run.identity;
    let context = Context::load(&site, &charter, &keys, false)?;
    event::started(&site, Actor::Operator, std::env::var("NODE_NAME").ok().as_deref(), env!("CARGO_PKG_VERSION"));
    let client = match &run.kubeconfig {
        Some(path) => client_of(path).await?,
        None => kube::Client::try_default().await.context("reach the API server as this pod's ServiceAccount")?,
    };
    let pod = Pod {
        name: run.pod_name,
        ip: run.pod_ip,
        federation: run.federation_listen,
        hub: run.hub_listen,
        views: run.views_listen,
    };
    Ok(app::run_site(context, client, pod, stop).await?)
}

async fn bear_witness(run: Witness, stop: CancellationToken) -> Result<()> {
    let Identity { site, charter, keys } = run.identity;
    let context = Context::load(&site, &charter, &keys, true)?;
    if !context.charter.is_witness(&site) {
        bail!("charter {} names site {site}, but not as a witness; add it to witnesses", context.charter.name);
    }
    event::started(&site, Actor::Witness, None, env!("CARGO_PKG_VERSION"));
    let client = client_of(&run.kubeconfig).await?;
    if run.install {
        witness::install(&client).await.context("write the marker of a new witness")?;
    }
    Ok(app::run_witness(context, client, run.listen, stop).await?)
}

async fn client_of(path: &PathBuf) -> Result<kube::Client> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("read --kubeconfig {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}
