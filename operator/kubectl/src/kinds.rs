//! The kinds of a group's objects, as messages name them and as the API serves them.

use std::fmt;

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, GroupVersionKind};

/// A kind that is copied to standbys, or kept beside the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`
    ConfigMap,
    /// `v1`
    Secret,
    /// `v1`
    Service,
    /// `v1`
    ServiceAccount,
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    StatefulSet,
    /// `regent.dev/v1alpha1`
    GatedPods,
}

impl Kind {
    /// All that carry the group's label at a standby.
    pub const COPIED: [Self; 7] = [
        Self::ConfigMap,
        Self::Secret,
        Self::Service,
        Self::ServiceAccount,
        Self::Deployment,
        Self::StatefulSet,
        Self::GatedPods,
    ];

    /// As manifests name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::GatedPods => "GatedPods",
        }
    }

    /// As the API serves it.
    pub fn resource(self) -> ApiResource {
        let (group, version) = match self {
            Self::ConfigMap | Self::Secret | Self::Service | Self::ServiceAccount => ("", "v1"),
            Self::Deployment | Self::StatefulSet => ("apps", "v1"),
            Self::GatedPods => {
                return ApiResource::from_gvk_with_plural(
                    &GroupVersionKind::gvk("regent.dev", "v1alpha1", self.name()),
                    "gatedpods",
                );
            }
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, self.name()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An object of a group, as `Kind NAMESPACE/NAME` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// Reads `Kind NAMESPACE/NAME` of a kind that people may have changed.
    pub fn parse(text: &str) -> Result<Self> {
        let form = || format!("{text:?} is no object of the form `Kind NAMESPACE/NAME`");
        let (kind, rest) = text.split_once(' ').with_context(form)?;
        let (namespace, name) = rest.split_once('/').with_context(form)?;
        let known = Kind::COPIED.into_iter().find(|k| k.name() == kind && *k != Kind::GatedPods);
        let Some(kind) = known else { bail!("{text}: Regent copies no {kind}: change it at home by hand") };
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            bail!(form());
        }
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_report_is_one_that_regent_copies_and_that_has_a_place() {
        assert_eq!(Object::parse("Deployment shop/shop").unwrap().to_string(), "Deployment shop/shop");
        for wrong in ["ClusterRole shop/admin", "GatedPods shop/x", "Secret shop", "Secret shop/a/b", "Secret /a", ""] {
            assert!(Object::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_kind_is_asked_for_where_the_api_serves_it() {
        let path = |kind: Kind| (kind.resource().api_version, kind.resource().plural);
        assert_eq!(path(Kind::Service), ("v1".to_owned(), "services".to_owned()));
        assert_eq!(path(Kind::StatefulSet), ("apps/v1".to_owned(), "statefulsets".to_owned()));
        assert_eq!(path(Kind::GatedPods), ("regent.dev/v1alpha1".to_owned(), "gatedpods".to_owned()));
    }
}
