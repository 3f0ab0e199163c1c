//! What the operator of the current site shows of the moment, asked through the API server.

use anyhow::Result;
use kube::Client;
use regent_api::NAMESPACE;
use serde::de::DeserializeOwned;

/// Asks `question` (a path) of whichever replica the Service picks.
pub async fn ask<T: DeserializeOwned>(client: &Client, question: &str) -> Result<T> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/services/regent-operator:views/proxy/{question}");
    Ok(client.request(http::Request::get(path).body(Vec::new())?).await?)
}
