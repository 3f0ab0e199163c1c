//! `Charter`: the signed trust root, shown and verified.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use regent_core::sign::Envelope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition: the charter is well formed and signed by its thresholds.
pub const ACCEPTED: &str = "Accepted";
/// Condition: this is the charter by which the operator works.
pub const IN_FORCE: &str = "InForce";

/// A charter as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "regent.dev",
    version = "v1alpha1",
    kind = "Charter",
    status = "CharterStatus",
    category = "regent",
    derive = "PartialEq",
    doc = "Charter is the signed trust root of the federation: parties, sites, witnesses, thresholds and timing. The operator verifies it and says what is wrong.",
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.version"),
    printcolumn(name = "Witnesses", type_ = "integer", json_path = ".status.witnessCount"),
    printcolumn(name = "Quorum", type_ = "integer", json_path = ".status.quorum"),
    printcolumn(name = "Lease", type_ = "string", json_path = ".status.leaseDuration"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CharterSpec {
    /// The signed charter (DSSE), as `kubectl regent charter init` writes it.
    pub envelope: CharterEnvelope,
}

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CharterEnvelope {
    /// What the payload is.
    #[x_kube(validation = Rule::new("self == 'application/vnd.regent.charter.v1+json'").message("payloadType must be application/vnd.regent.charter.v1+json: paste the whole output of `kubectl regent charter init`"))]
    #[schemars(length(max = 128))]
    pub payload_type: String,
    /// The signed bytes, base64.
    #[schemars(length(min = 1, max = 1_048_576))]
    pub payload: String,
    /// Who signed them.
    #[schemars(length(min = 1, max = 64))]
    pub signatures: Vec<CharterSignature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CharterSignature {
    /// The party that signed.
    #[schemars(length(min = 1, max = 63))]
    pub keyid: String,
    /// The signature, base64.
    #[schemars(length(min = 1, max = 1024))]
    pub sig: String,
}

/// What the operator read in the charter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CharterStatus {
    /// Which generation of the spec this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The federation's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The charter's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// SHA-256 of what was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The sites, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub sites: Vec<String>,
    /// The sites that vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub witnesses: Vec<String>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness_count: Option<i32>,
    /// How many of them may be faulty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faulty_witnesses: Option<i32>,
    /// How many make a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<i32>,
    /// How long a witness promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_duration: Option<String>,
    /// Accepted, InForce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl CharterSpec {
    /// The envelope, as the core verifies it. Fails where the base64 is none.
    pub fn envelope(&self) -> Result<Envelope, serde_json::Error> {
        serde_json::to_value(&self.envelope).and_then(serde_json::from_value)
    }

    /// The spec that shows an envelope.
    pub fn of(envelope: &Envelope) -> Result<Self, serde_json::Error> {
        let envelope = serde_json::to_value(envelope).and_then(serde_json::from_value)?;
        Ok(Self { envelope })
    }
}
