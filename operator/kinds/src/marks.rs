//! Labels and annotations: which of them travel.

/// What a controller or a tool of home's cluster wrote for itself.
const HOMES: [&str; 7] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/",
    "control-plane.alpha.kubernetes.io/",
    "kubernetes.io/service-account.",
    "meta.helm.sh/",
    "pv.kubernetes.io/",
    "regent.dev/",
];
/// By these another operator would act at the standby while home still rules.
const ACTING: [&str; 22] = [
    "acme.cert-manager.io/",
    "admission.datadoghq.com/",
    "argocd.argoproj.io/",
    "azure.workload.identity/",
    "cert-manager.io/",
    "config.linkerd.io/",
    "controller.cert-manager.io/",
    "endpointslice.kubernetes.io/",
    "external-dns.alpha.kubernetes.io/",
    "gateway.networking.k8s.io/",
    "helm.toolkit.fluxcd.io/",
    "instrumentation.opentelemetry.io/",
    "istio.io/",
    "keda.sh/",
    "kuma.io/",
    "kustomize.toolkit.fluxcd.io/",
    "linkerd.io/",
    "service.kubernetes.io/",
    "sidecar.istio.io/",
    "topology.istio.io/",
    "vault.hashicorp.com/",
    "velero.io/",
];
/// Annotations with a prefix that nothing acts on, or that only tell.
const INERT: [&str; 5] = [
    "checksum/",
    "kubectl.kubernetes.io/default-container",
    "kubectl.kubernetes.io/default-logs-container",
    "kubectl.kubernetes.io/restartedAt",
    "prometheus.io/",
];

/// Whether a label or annotation stays at home, whatever a standby lists.
pub fn is_homes(key: &str) -> bool {
    HOMES.iter().chain(&ACTING).any(|beginning| key.starts_with(beginning))
}

/// Whether an annotation may be at a standby that lets these beginnings in: nobody can know
/// which operators are there, and what they do at the sight of which key.
pub fn is_let_in(key: &str, listed: &[String]) -> bool {
    let is_listed = || listed.iter().any(|beginning| !beginning.is_empty() && key.starts_with(beginning.as_str()));
    !key.contains('/') || INERT.iter().any(|beginning| key.starts_with(beginning)) || is_listed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_let_in_if_it_is_inert_or_listed() {
        let listed = ["metallb.io/".to_owned(), String::new()];
        for key in ["mine", "prometheus.io/scrape", "checksum/config", "metallb.io/loadBalancerIPs"] {
            assert!(is_let_in(key, &listed), "{key}");
        }
        for key in ["service.beta.kubernetes.io/aws-load-balancer-type", "eks.amazonaws.com/role-arn"] {
            assert!(!is_let_in(key, &listed), "{key}");
        }
        assert!(!is_let_in("metallb.io/loadBalancerIPs", &[]));
    }

    #[test]
    fn what_acts_elsewhere_or_is_a_tools_own_note_stays_at_home() {
        for key in ["argocd.argoproj.io/instance", "istio.io/rev", "kubernetes.io/service-account.name", "regent.dev/x"]
        {
            assert!(is_homes(key), "{key}");
        }
        for key in ["app", "app.kubernetes.io/name", "helm.sh/chart", "metallb.io/loadBalancerIPs"] {
            assert!(!is_homes(key), "{key}");
        }
    }
}
