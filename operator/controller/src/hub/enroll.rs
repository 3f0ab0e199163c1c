//! Who an agent is, before it has a certificate.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use regent_core::ids::{NodeName, SiteName};
use regent_shell::tls::{SiteIdentity, TlsError, issue_node, request_name};
use tonic::Status;

/// The audience of an agent's token.
pub const AUDIENCE: &str = "regent-hub";
/// The only account whose tokens count.
const ACCOUNT: &str = "system:serviceaccount:regent-system:regent-agent";
/// Where the API server says on which node the token's pod runs (KEP-4193).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Tokens and requests are a few kilobytes.
const MAX_FIELD_BYTES: usize = 16 << 10;

/// Why an agent is not enrolled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// The API server does not know the token.
    #[error("token refused by the API server: {0}; mount a projected token of audience {AUDIENCE}")]
    NotAuthenticated(String),
    /// A token that was made for something else.
    #[error("token is not for audience {AUDIENCE}; mount a projected token with that audience")]
    WrongAudience,
    /// Another account's token.
    #[error("token is of {0}; only {ACCOUNT} may enrol")]
    WrongAccount(String),
    /// A token that is bound to no node.
    #[error(
        "token names no node ({NODE_NAME}); use the projected token of the agent's own pod, from Kubernetes 1.32 or later"
    )]
    NoNode,
    /// The token of an agent on another node.
    #[error(
        "token is bound to node {token}, but the request is of node {request}; an agent may use only the token of its own pod"
    )]
    OtherNode {
        /// The token's node.
        token: NodeName,
        /// The request's.
        request: String,
    },
    /// The API server can't be asked.
    #[error("the API server can't be asked about the token: {0}; enrolling is tried again")]
    Unavailable(String),
    /// The request for a certificate can't be used.
    #[error("field csr_pem: {0}")]
    BadRequest(String),
}

impl From<EnrollError> for Status {
    fn from(e: EnrollError) -> Self {
        let text = e.to_string();
        match e {
            EnrollError::NotAuthenticated(_) | EnrollError::WrongAudience => Self::unauthenticated(text),
            EnrollError::WrongAccount(_) | EnrollError::NoNode | EnrollError::OtherNode { .. } => {
                Self::permission_denied(text)
            }
            EnrollError::Unavailable(_) => Self::unavailable(text),
            EnrollError::BadRequest(_) => Self::invalid_argument(text),
        }
    }
}

/// Says on which node the bearer of a token runs.
pub type Authenticate = Arc<dyn Fn(String) -> BoxFuture<'static, Result<NodeName, EnrollError>> + Send + Sync>;

/// Has the API server review tokens.
pub fn token_review(client: kube::Client) -> Authenticate {
    Arc::new(move |token| {
        let api: Api<TokenReview> = Api::all(client.clone());
        Box::pin(async move {
            let spec = TokenReviewSpec { token, audiences: Some(vec![AUDIENCE.to_owned()]) };
            let review = TokenReview { spec, ..TokenReview::default() };
            let reviewed = api.create(&PostParams::default(), &review).await;
            judge(reviewed.map_err(|e| EnrollError::Unavailable(e.to_string()))?.status.unwrap_or_default())
        })
    })
}

/// What an API server's answer is worth.
fn judge(status: TokenReviewStatus) -> Result<NodeName, EnrollError> {
    if status.authenticated != Some(true) {
        return Err(EnrollError::NotAuthenticated(status.error.unwrap_or_else(|| "not authenticated".into())));
    }
    // An API server that knows no audiences would accept a token for anything.
    if !status.audiences.unwrap_or_default().iter().any(|a| a == AUDIENCE) {
        return Err(EnrollError::WrongAudience);
    }
    let user = status.user.unwrap_or_default();
    let account = user.username.unwrap_or_default();
    if account != ACCOUNT {
        return Err(EnrollError::WrongAccount(account));
    }
    match user.extra.unwrap_or_default().get(NODE_NAME).map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(NodeName(node.clone())),
        _ => Err(EnrollError::NoNode),
    }
}

/// A certificate for the node of the token; nothing but the key is taken from the request.
pub(super) fn issue(identity: &SiteIdentity, node: &NodeName, csr_pem: &str) -> Result<String, EnrollError> {
    let bad = |e: TlsError| EnrollError::BadRequest(e.to_string());
    let asked = request_name(csr_pem).map_err(bad)?;
    if asked != node.0 {
        return Err(EnrollError::OtherNode { token: node.clone(), request: asked });
    }
    let site: &SiteName = &identity.site;
    issue_node(csr_pem, node, site, &identity.ca).map_err(bad)
}

pub(super) fn check_sizes(token: &str, csr_pem: &str) -> Result<(), EnrollError> {
    if token.len() > MAX_FIELD_BYTES || csr_pem.len() > MAX_FIELD_BYTES {
        return Err(EnrollError::BadRequest(format!("token or request is longer than {MAX_FIELD_BYTES} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(audience: &str, account: &str, node: Option<&str>) -> TokenReviewStatus {
        let extra = node.map(|n| BTreeMap::from([(NODE_NAME.to_owned(), vec![n.to_owned()])]));
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo { username: Some(account.to_owned()), extra, ..UserInfo::default() }),
            error: None,
        }
    }

    #[test]
    fn only_the_agents_account_with_our_audience_and_a_node_is_somebody() {
        assert_eq!(judge(status(AUDIENCE, ACCOUNT, Some("n1"))), Ok(NodeName("n1".into())));
        assert_eq!(judge(status("kubernetes", ACCOUNT, Some("n1"))), Err(EnrollError::WrongAudience));
        let other = "system:serviceaccount:shop:default";
        assert_eq!(judge(status(AUDIENCE, other, Some("n1"))), Err(EnrollError::WrongAccount(other.into())));
        assert_eq!(judge(status(AUDIENCE, ACCOUNT, None)), Err(EnrollError::NoNode));
        assert_eq!(judge(status(AUDIENCE, ACCOUNT, Some(""))), Err(EnrollError::NoNode));
        let unknown = TokenReviewStatus { error: Some("token has expired".into()), ..Default::default() };
        let error = judge(unknown).unwrap_err();
        assert!(error.to_string().contains("expired") && error.to_string().contains(AUDIENCE), "{error}");
        let no_audiences = TokenReviewStatus { audiences: None, ..status(AUDIENCE, ACCOUNT, Some("n1")) };
        assert_eq!(judge(no_audiences), Err(EnrollError::WrongAudience));
    }
}
