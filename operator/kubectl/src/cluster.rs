//! The cluster of the current context, with kubectl's flags.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which cluster to talk to.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Path of the kubeconfig file; by default $KUBECONFIG, then ~/.kube/config.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Cluster of the kubeconfig file.
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// User of the kubeconfig file.
    #[arg(long, global = true)]
    user: Option<String>,
}

impl ClusterArgs {
    /// A client of that cluster.
    pub async fn client(&self) -> Result<Client> {
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: self.user.clone() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file =
                    Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config =
            config.context("find the cluster in the kubeconfig; name another with --kubeconfig or --context")?;
        Client::try_from(config).context("make a client of the cluster")
    }
}
