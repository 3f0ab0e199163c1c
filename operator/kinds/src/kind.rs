//! The kinds that travel, and what becomes of each.

use std::fmt::Write;

/// The kinds that a bundle may hold, with their API versions, in the order in which they
/// are applied: whatever a pod needs comes before the pod.
pub const KINDS: [(&str, &str); 6] = [
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "Deployment"),
];

/// Whether objects of a kind make pods of a group.
pub fn is_workload(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet")
}

/// The pods that a workload asks for.
pub fn replicas(workload: &serde_json::Value) -> u64 {
    workload.pointer("/spec/replicas").and_then(serde_json::Value::as_u64).unwrap_or(1)
}

/// What happens to a part of an object on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is at the standby as at home.
    Kept,
    /// It stays at home.
    Stripped,
    /// The site's own tables say what stands for it.
    Mapped,
    /// It is made at the standby.
    Derived,
    /// The group is blocked where it doesn't hold.
    Checked,
}

/// One line of the table of kinds.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind, or [`EVERYTHING`], or [`TEMPLATES`].
    pub kind: &'static str,
    /// What happens.
    pub fate: Fate,
    /// To what.
    pub what: &'static str,
    /// The test that breaks if it doesn't.
    pub test: &'static str,
}

/// Rows that hold for every kind.
pub const EVERYTHING: &str = "every kind";
/// Rows that hold for the pod templates of workloads.
pub const TEMPLATES: &str = "pod templates";

const fn row(kind: &'static str, fate: Fate, what: &'static str, test: &'static str) -> Row {
    Row { kind, fate, what, test }
}

/// What becomes of each kind, and the tests that say so.
#[rustfmt::skip]
pub const TABLE: [Row; 41] = [
    row(EVERYTHING, Fate::Kept, "name, namespace, labels, annotations without a prefix and inert ones (`checksum/`, `prometheus.io/`, kubectl's default container and restart)",
        "an_annotation_is_let_in_if_it_is_inert_or_listed"),
    row(EVERYTHING, Fate::Stripped, "every other field of the metadata; labels and annotations by which another operator would act, and notes of home's tools",
        "what_acts_elsewhere_or_is_a_tools_own_note_stays_at_home"),
    row(EVERYTHING, Fate::Stripped, "fields that this version of Regent does not know; said",
        "what_is_not_listed_does_not_travel"),
    row(EVERYTHING, Fate::Mapped, "annotations with a prefix that the Site lists in `annotations` stay; the others are dropped and said",
        "annotations_speak_to_operators_only_where_the_partner_lists_them"),
    row(EVERYTHING, Fate::Derived, "label and annotation `regent.dev/group`; nothing is owned or finalized by another object",
        "other_objects_are_marked_and_nothing_else"),
    row(EVERYTHING, Fate::Checked, "kind and namespace are the group's; the name is not somebody else's",
        "a_bundle_reaches_no_other_namespace_kind_or_group"),
    row("ServiceAccount", Fate::Kept, "`automountServiceAccountToken`, `imagePullSecrets` that are in the bundle",
        "pull_secrets_are_the_groups_own"),
    row("ServiceAccount", Fate::Stripped, "`secrets`: tokens are each cluster's own",
        "data_travels_and_tokens_of_accounts_do_not"),
    row("ServiceAccount", Fate::Derived, "`default` is never applied; home's pull secrets of it go to the pods that use it",
        "the_pull_secret_of_homes_default_account_travels_and_the_partners_account_is_untouched"),
    row("ConfigMap", Fate::Kept, "`data`, `binaryData`, `immutable`",
        "other_objects_are_marked_and_nothing_else"),
    row("ConfigMap", Fate::Checked, "not `kube-root-ca.crt`, which each namespace has of its own",
        "what_a_hostile_home_signs_is_refused_or_loses_its_edge"),
    row("Secret", Fate::Kept, "`data`, `type`, `immutable`",
        "data_travels_and_tokens_of_accounts_do_not"),
    row("Secret", Fate::Checked, "no token of a ServiceAccount",
        "what_a_hostile_home_signs_is_refused_or_loses_its_edge"),
    row("Service", Fate::Kept, "type, ports, session affinity, traffic policies, `externalName`, what is a LoadBalancer's; headless stays headless",
        "a_headless_service_stays_headless"),
    row("Service", Fate::Stripped, "cluster IPs, address families, external IPs, `loadBalancerIP`, node ports that the API server chose",
        "a_service_loses_its_addresses_and_keeps_the_node_port_that_its_user_chose"),
    row("Service", Fate::Derived, "the selector takes copies of this group alone",
        "a_service_of_a_copy_selects_no_pod_of_another_group"),
    row("Service", Fate::Derived, "LoadBalancer is ClusterIP while the gates are closed",
        "a_balancer_takes_no_address_while_the_gates_are_closed"),
    row("Service", Fate::Derived, "LoadBalancer again when the group runs here",
        "a_balancer_comes_back_with_its_fields_and_the_ports_of_now"),
    row("StatefulSet", Fate::Kept, "all known fields of its spec",
        "stripping_what_is_stripped_changes_nothing"),
    row("StatefulSet", Fate::Stripped, "status, volume names and status of claim templates",
        "what_is_not_listed_does_not_travel"),
    row("StatefulSet", Fate::Mapped, "`storageClassName` by the Site's `storageClasses`",
        "registries_and_storage_classes_are_this_sites_own"),
    row("StatefulSet", Fate::Derived, "`podManagementPolicy: Parallel`; `updateStrategy: OnDelete` while the gates are closed",
        "a_held_statefulset_starts_in_parallel_and_rolls_on_delete"),
    row("StatefulSet", Fate::Derived, "`persistentVolumeClaimRetentionPolicy: Retain`",
        "a_claim_with_data_never_dies_with_its_set"),
    row("StatefulSet", Fate::Derived, "home's `updateStrategy` when the group runs here, once",
        "once_put_back_nothing_is_to_do_even_if_people_choose_what_regent_chose"),
    row("StatefulSet", Fate::Checked, "claim templates are filled from no other object",
        "a_selector_by_a_label_that_acts_and_a_claim_filled_from_another_are_refused"),
    row("Deployment", Fate::Kept, "all known fields of its spec; `replicas` and images are home's while held, and the holder's own later",
        "replicas_and_images_are_never_put_back"),
    row("Deployment", Fate::Stripped, "status",
        "a_workload_loses_status_and_node_names"),
    row("Deployment", Fate::Derived, "its strategy while held; no progress deadline",
        "a_held_deployment_keeps_its_pods_until_new_ones_are_held_and_has_no_deadline"),
    row("Deployment", Fate::Derived, "paused only if it was made so at home",
        "what_was_made_paused_at_home_is_paused_everywhere"),
    row("Deployment", Fate::Derived, "home's settings when the group runs here, once, where nobody has changed them",
        "recreate_comes_back_and_nothing_of_the_held_strategy_stays"),
    row(TEMPLATES, Fate::Kept, "all known fields",
        "an_ordinary_template_and_one_that_reads_the_epoch_are_accepted"),
    row(TEMPLATES, Fate::Stripped, "`nodeName`, the node selector by hostname, `serviceAccount`, `priority`, `overhead`",
        "a_workload_loses_status_and_node_names"),
    row(TEMPLATES, Fate::Mapped, "images of containers and of volumes by the Site's `registries`",
        "an_image_as_a_volume_goes_through_the_table_as_a_containers_does"),
    row(TEMPLATES, Fate::Derived, "`imagePullPolicy: Always` is `IfNotPresent`",
        "no_registry_is_asked_at_a_start"),
    row(TEMPLATES, Fate::Derived, "the gate, and a try of each container before it",
        "every_image_of_a_pod_is_tried_before_its_gate"),
    row(TEMPLATES, Fate::Derived, "variables, ports, mounts, pull secrets and host aliases that are there twice are folded, and said",
        "what_is_named_twice_is_folded_to_what_counts_at_home_and_said"),
    row(TEMPLATES, Fate::Derived, "account `default` gives no token",
        "the_partners_own_account_lends_its_rights_to_nobody"),
    row(TEMPLATES, Fate::Derived, "optional references that the bundle lacks are taken out",
        "an_optional_reference_never_reaches_a_foreign_object"),
    row(TEMPLATES, Fate::Checked, "Secrets, ConfigMaps, accounts and claims that are named are in the bundle (claims never are)",
        "what_is_required_and_not_in_the_bundle_is_refused"),
    row(TEMPLATES, Fate::Checked, "no host path, host namespace, host port, privilege, driver of another's, `system-` priority, or name that is Regent's",
        "what_reaches_a_node_or_anothers_volume_is_refused_by_field"),
    row(TEMPLATES, Fate::Checked, "images are of the Site's `allowedRegistries`",
        "a_foreign_registry_is_refused_by_container_and_image_after_the_table"),
];

/// The table as a page of documentation.
pub fn page() -> String {
    let mut page = String::from(
        "# What travels\n\nWritten from `operator/kinds/src/kind.rs` by `make generate`. Other kinds stay at home, and the status names\n\
         them. Home strips before it signs; a standby strips, checks, maps and derives again, whoever signed.\n",
    );
    let kinds = [EVERYTHING].into_iter().chain(KINDS.into_iter().map(|(_, kind)| kind)).chain([TEMPLATES]);
    for kind in kinds {
        let mut title = kind.to_owned();
        title[..1].make_ascii_uppercase();
        let _ = write!(page, "\n## {title}\n\n| | | Test |\n|---|---|---|\n");
        for Row { fate, what, test, .. } in TABLE.iter().filter(|r| r.kind == kind) {
            let _ = writeln!(page, "| {fate:?} | {what} | `{test}` |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_travels_has_its_rows() {
        for (_, kind) in KINDS {
            let fates: Vec<Fate> = TABLE.iter().filter(|r| r.kind == kind).map(|r| r.fate).collect();
            assert!(fates.contains(&Fate::Kept) && fates.len() > 1, "{kind}: say in TABLE what becomes of it");
        }
        let known = |kind: &str| kind == EVERYTHING || kind == TEMPLATES || KINDS.iter().any(|(_, k)| *k == kind);
        assert!(TABLE.iter().all(|r| known(r.kind)), "a row of no kind is on no page");
        assert_eq!(page().matches("\n| ").count(), TABLE.len() + 2 + KINDS.len());
    }
}
