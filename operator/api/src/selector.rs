//! Which pods: a label selector with bounds, so that the API server can price its rules.

use std::collections::BTreeMap;

use kube::KubeSchema;
use kube::core::{Expression, SelectorExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A label's key: a name of at most 63 characters, after a DNS name and a slash or alone.
const KEY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// A label's value, beside its length.
const VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// CEL: whether a variable is a label's key.
fn key_rule(variable: &str) -> String {
    format!("{variable}.size() <= 317 && {variable}.matches('{KEY}')")
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is missing, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// It isn't.
    DoesNotExist,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0")
        .message("In and NotIn need at least one value; Exists and DoesNotExist take none: fill or remove values")
)]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317), regex(pattern = KEY))]
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// What with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63), regex(pattern = VALUE)))]
    pub values: Vec<String>,
}

/// Pods by their labels; all requirements have to hold, and none means all pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 63, "pattern": VALUE }))]
    #[x_kube(validation = Rule::new(format!("self.all(k, {})", key_rule("k"))).message("matchLabels has a key that is no label's: write one such as app or example.com/app"))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

impl From<&Requirement> for Expression {
    fn from(requirement: &Requirement) -> Self {
        let (key, values) = (requirement.key.clone(), requirement.values.iter().cloned().collect());
        match requirement.operator {
            Operator::In => Self::In(key, values),
            Operator::NotIn => Self::NotIn(key, values),
            Operator::Exists => Self::Exists(key),
            Operator::DoesNotExist => Self::DoesNotExist(key),
        }
    }
}

impl From<&Selector> for kube::core::Selector {
    fn from(selector: &Selector) -> Self {
        let labels = selector.match_labels.iter().map(|(k, v)| Expression::Equal(k.clone(), v.clone()));
        labels.chain(selector.match_expressions.iter().map(Expression::from)).collect()
    }
}

impl Selector {
    /// Whether pods with these labels are meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        kube::core::Selector::from(self).matches(labels)
    }

    /// The selector as the API server's `labelSelector` parameter.
    pub fn to_label_selector(&self) -> String {
        kube::core::Selector::from(self).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Selector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Selector { match_expressions: vec![Requirement { key: key.into(), operator, values }], ..Selector::default() }
    }

    #[test]
    fn a_selector_matches_as_kubernetes_does() {
        let shop = labels(&[("app", "shop"), ("tier", "web")]);
        let cases = [
            (Selector::default(), true, ""),
            (Selector { match_labels: labels(&[("app", "shop")]), ..Selector::default() }, true, "app=shop"),
            (Selector { match_labels: labels(&[("app", "bank")]), ..Selector::default() }, false, "app=bank"),
            (requirement("tier", Operator::In, &["web", "db"]), true, "tier in (db,web)"),
            (requirement("zone", Operator::In, &["a"]), false, "zone in (a)"),
            (requirement("tier", Operator::NotIn, &["web"]), false, "tier notin (web)"),
            (requirement("zone", Operator::NotIn, &["a"]), true, "zone notin (a)"),
            (requirement("app", Operator::Exists, &[]), true, "app"),
            (requirement("app", Operator::DoesNotExist, &[]), false, "!app"),
        ];
        for (selector, matches, query) in cases {
            assert_eq!(selector.matches(&shop), matches, "{query}");
            assert_eq!(selector.to_label_selector(), query);
        }
    }
}
