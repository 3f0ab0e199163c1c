//! Calls to other sites.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regent_core::charter::SiteEntry;
use regent_core::ids::SiteName;
use regent_proto::v1::federation_client::FederationClient;
use regent_shell::tls::{ChannelTiming, TlsError, channel_to_site};
use tonic::transport::Channel;

use crate::context::Context;

/// The largest answer: the state of a witness with 10,000 groups.
const MAX_MESSAGE: usize = 32 << 20;

/// A client of one site's Federation service.
pub type Client = FederationClient<Channel>;

/// Why a site can't be called.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address or the keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The site has no address.
    #[error("site {site} has no address in the charter; add one as IP:PORT")]
    NoAddress {
        /// The site.
        site: SiteName,
    },
    /// The deadline passed: the outcome is unknown.
    #[error("site {site} at {address} has not answered within {} ms", deadline.as_millis())]
    TimedOut {
        /// The site.
        site: SiteName,
        /// The address that was tried.
        address: String,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The call failed.
    #[error("site {site} at {address}: {:?}: {}", status.code(), status.message())]
    Failed {
        /// The site.
        site: SiteName,
        /// The address that was tried.
        address: String,
        /// What was answered, by the site or by the transport.
        status: Box<tonic::Status>,
    },
}

/// One other site, at any of its addresses.
#[derive(Debug)]
pub struct Peer {
    site: SiteName,
    channels: Vec<(String, Channel)>,
    preferred: AtomicUsize,
}

impl Peer {
    /// A site at the addresses that the charter gives it.
    pub fn new(context: &Context, entry: &SiteEntry) -> Result<Self, CallError> {
        Self::at(context, entry, &entry.addresses)
    }

    /// A site at some addresses: another replica of this one has an address of its own.
    pub fn at(context: &Context, entry: &SiteEntry, addresses: &[String]) -> Result<Self, CallError> {
        if addresses.is_empty() {
            return Err(CallError::NoAddress { site: entry.name.clone() });
        }
        let channels = addresses
            .iter()
            .map(|address| {
                let channel = channel_to_site(address, entry, &context.identity, ChannelTiming::default())?;
                Ok((address.clone(), channel))
            })
            .collect::<Result<_, TlsError>>()?;
        Ok(Self { site: entry.name.clone(), channels, preferred: AtomicUsize::new(0) })
    }

    /// Which site.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// Calls the site at the address that worked last; after a failure of the transport
    /// the next call tries the next address.
    pub async fn call<T, F, Fut>(&self, deadline: Duration, call: F) -> Result<T, CallError>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let at = self.preferred.load(Ordering::Relaxed);
        let (address, channel) = &self.channels[at];
        let answer =
            tokio::time::timeout(deadline, call(Client::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE)))
                .await;
        let (site, address) = (self.site.clone(), address.clone());
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                // What the site itself refuses, it refuses at each of its addresses.
                if status.code() == tonic::Code::Unavailable || status.code() == tonic::Code::Unknown {
                    self.avoid(at);
                }
                Err(CallError::Failed { site, address, status: Box::new(status) })
            }
            Err(_) => {
                self.avoid(at);
                Err(CallError::TimedOut { site, address, deadline })
            }
        }
    }

    fn avoid(&self, at: usize) {
        let _ =
            self.preferred.compare_exchange(at, (at + 1) % self.channels.len(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// All other sites of the charter.
#[derive(Debug, Clone)]
pub struct Peers(BTreeMap<SiteName, Arc<Peer>>);

impl Peers {
    /// All sites of the charter but this one.
    pub fn new(context: &Context) -> Result<Self, CallError> {
        let others = context.charter.sites.iter().filter(|s| s.name != context.site);
        let peers = others
            .map(|entry| Ok((entry.name.clone(), Arc::new(Peer::new(context, entry)?))))
            .collect::<Result<_, CallError>>()?;
        Ok(Self(peers))
    }

    /// A site by its name; none for this one and for strangers.
    pub fn get(&self, site: &SiteName) -> Option<&Arc<Peer>> {
        self.0.get(site)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.0.values()
    }
}
