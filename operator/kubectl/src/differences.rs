//! `differences` and `adopt`: what people changed at the holder while the group ran there, and
//! how home gets it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use regent_api::FailoverGroup;
use regent_api::group::Difference;
use serde_json::{Value, json};

use crate::Verdict;
use crate::group::{confirm, find};
use crate::kinds::Object;
use crate::output::{Format, plain, print, table};
use crate::patch::{against, alone, is_told};
use crate::sites::here;

/// Who applies what is adopted.
const MANAGER: &str = "kubectl-regent";
/// Characters of a value that a table shows.
const SHOWN: usize = 60;

/// Arguments of `differences`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The group.
    group: String,
    /// Only what this site reports.
    #[arg(long)]
    from: Option<String>,
}

/// Arguments of `adopt`.
#[derive(Debug, ClapArgs)]
pub struct AdoptArgs {
    /// The group.
    group: String,
    /// The site whose changes are taken; by default the only one that reports any.
    #[arg(long)]
    from: Option<String>,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// Prints what differs: a table, or merge patches for home.
pub async fn run(args: &Args, client: &Client, format: Format) -> Result<Verdict> {
    let group = find(client, &args.group).await?;
    let key = crate::group::key(&group)?;
    let found = reported(&group, args.from.as_deref());
    if format == Format::Table {
        if found.is_empty() {
            println!("{key}: no site reports a change against home's revision");
        } else {
            println!("{}", shown(&found));
        }
        return Ok(Verdict::Well);
    }
    let Some((_, differences)) = single(&key, &found)? else { return print_patches(format, &[], &[]) };
    let is_home = here(client).await? == group.spec.home;
    let (told, silent): (Vec<_>, Vec<_>) = differences.iter().partition(|d| is_told(d));
    let mut patches = Vec::new();
    for (object, differences) in by_object(&group, &told)? {
        let patch = if is_home { against(&live(client, &object).await?, &differences)? } else { alone(&differences)? };
        patches.push((object, patch));
    }
    print_patches(format, &patches, &silent)
}

/// Applies what differs to home's objects, with the rights of who asks.
pub async fn adopt(args: &AdoptArgs, client: &Client) -> Result<Verdict> {
    let group = find(client, &args.group).await?;
    let key = crate::group::key(&group)?;
    let site = here(client).await?;
    if group.spec.home != site {
        bail!("this is {site}: changes are adopted at the home of {key}, {}", group.spec.home);
    }
    let found = reported(&group, args.from.as_deref());
    let Some((from, differences)) = single(&key, &found)? else {
        println!("{key}: no site reports a change against home's revision");
        return Ok(Verdict::Well);
    };
    println!("{}", shown(&found));
    let (told, silent): (Vec<_>, Vec<_>) = differences.iter().partition(|d| is_told(d));
    silent.iter().for_each(|d| println!("{}", not_shown(d)));
    let mut changes = Vec::new();
    for (object, differences) in by_object(&group, &told)? {
        let live = live(client, &object).await?;
        let mut patch = against(&live, &differences)?;
        if patch == json!({}) {
            continue;
        }
        // Only as it was compared: whoever changed it since is not overwritten.
        patch["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        // All of them would be taken, or none is.
        apply(client, &object, &patch, true).await?;
        changes.push((object, patch));
    }
    if !changes.is_empty() {
        let objects: Vec<String> = changes.iter().map(|(object, _)| object.to_string()).collect();
        let question = format!("{} will be changed at {site} as {from} changed them.", objects.join(", "));
        confirm(&question, args.yes)?;
    }
    for (object, patch) in &changes {
        apply(client, object, patch, false).await?;
        println!("{object} changed");
    }
    Ok(if silent.is_empty() { Verdict::Well } else { Verdict::NotWell })
}

/// What each site reports, by its name.
fn reported<'a>(group: &'a FailoverGroup, from: Option<&str>) -> BTreeMap<&'a str, &'a [Difference]> {
    let standbys = group.status.iter().flat_map(|s| &s.standbys);
    let told = standbys.filter(|s| !s.differences.is_empty() && from.is_none_or(|from| from == s.site));
    told.map(|s| (s.site.as_str(), s.differences.as_slice())).collect()
}

/// The one site that reports something; none if nobody does.
fn single<'a>(key: &str, found: &BTreeMap<&'a str, &'a [Difference]>) -> Result<Option<(&'a str, &'a [Difference])>> {
    let sites: Vec<&str> = found.keys().copied().collect();
    match found.iter().next() {
        _ if found.len() > 1 => bail!("{} report changes of {key}: say with --from whose are meant", sites.join(", ")),
        one => Ok(one.map(|(site, differences)| (*site, *differences))),
    }
}

/// The differences of each object. The report comes from another party: an object that is
/// none of this group's is refused.
fn by_object<'a>(group: &FailoverGroup, told: &[&'a Difference]) -> Result<BTreeMap<Object, Vec<&'a Difference>>> {
    let mut objects: BTreeMap<Object, Vec<&Difference>> = BTreeMap::new();
    for difference in told {
        let object = Object::parse(&difference.object)?;
        if !group.spec.namespaces.contains(&object.namespace) {
            bail!("the report names {object}, which is in no namespace of the group: it is not adopted");
        }
        objects.entry(object).or_default().push(difference);
    }
    Ok(objects)
}

fn api(client: &Client, object: &Object) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &object.namespace, &object.kind.resource())
}

async fn live(client: &Client, object: &Object) -> Result<Value> {
    let found = api(client, object).get(&object.name).await.with_context(|| format!("read {object}"))?;
    Ok(serde_json::to_value(found)?)
}

async fn apply(client: &Client, object: &Object, patch: &Value, is_trial: bool) -> Result<()> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), dry_run: is_trial, ..PatchParams::default() };
    let patched = api(client, object).patch(&object.name, &params, &Patch::Merge(patch)).await;
    patched.map(drop).with_context(|| format!("change {object}"))
}

fn shown(found: &BTreeMap<&str, &[Difference]>) -> String {
    let value = |d: &Difference, text: &Option<String>| match text {
        _ if !is_told(d) => "(not shown)".to_owned(),
        None => "-".to_owned(),
        Some(text) if text.chars().count() > SHOWN => {
            format!("{}…", plain(text).chars().take(SHOWN).collect::<String>())
        }
        Some(text) => plain(text),
    };
    let row = |site: &str, d: &Difference| {
        vec![site.to_owned(), plain(&d.object), plain(&d.path), value(d, &d.home), value(d, &d.here)]
    };
    let rows = found.iter().flat_map(|(site, list)| list.iter().map(move |d| row(site, d)));
    table(&["SITE", "OBJECT", "PATH", "HOME", "THERE"], rows.collect())
}

fn not_shown(d: &Difference) -> String {
    format!("{} {}: the value is not in the report; change it at home by hand", plain(&d.object), plain(&d.path))
}

/// One document for each object, with the command that applies it.
fn print_patches(format: Format, patches: &[(Object, Value)], silent: &[&Difference]) -> Result<Verdict> {
    if format == Format::Json {
        let data: Vec<Value> = patches.iter().map(|(o, patch)| manifest(o, patch)).collect();
        print(format, &data, &[], Vec::new())?;
    } else {
        for (object, patch) in patches {
            let (namespace, kind, name) = (&object.namespace, object.kind.name().to_lowercase(), &object.name);
            println!("---\n# kubectl --namespace {namespace} patch {kind} {name} --type=merge --patch-file THIS");
            print!("{}", serde_yaml_ng::to_string(&manifest(object, patch))?);
        }
        silent.iter().for_each(|d| println!("# {}", not_shown(d)));
    }
    Ok(if silent.is_empty() { Verdict::Well } else { Verdict::NotWell })
}

/// A patch that says of which object it is.
fn manifest(object: &Object, patch: &Value) -> Value {
    let mut manifest = patch.clone();
    manifest["apiVersion"] = object.kind.resource().api_version.into();
    manifest["kind"] = object.kind.name().into();
    manifest["metadata"]["namespace"] = object.namespace.as_str().into();
    manifest["metadata"]["name"] = object.name.as_str().into();
    manifest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(standbys: Value) -> FailoverGroup {
        let spec = json!({ "home": "ireland", "namespaces": ["shop"], "standbys": ["france", "germany"] });
        let mut group = FailoverGroup::new("shop", serde_json::from_value(spec).unwrap());
        group.status = Some(serde_json::from_value(json!({ "standbys": standbys })).unwrap());
        group
    }

    fn replicas() -> Value {
        json!({ "object": "Deployment shop/shop", "path": "/spec/replicas", "home": "3", "here": "5" })
    }

    #[test]
    fn changes_are_taken_from_one_site_and_two_are_told_apart_by_name() {
        let one = group(json!([{ "site": "france", "differences": [replicas()] }, { "site": "germany" }]));
        let found = reported(&one, None);
        assert_eq!(single("ireland/shop", &found).unwrap().unwrap().0, "france");
        let two = json!([{ "site": "france", "differences": [replicas()] }, { "site": "germany", "differences": [replicas()] }]);
        let two = group(two);
        assert!(single("ireland/shop", &reported(&two, None)).unwrap_err().to_string().contains("--from"));
        assert_eq!(single("ireland/shop", &reported(&two, Some("germany"))).unwrap().unwrap().0, "germany");
        assert!(single("ireland/shop", &reported(&one, Some("germany"))).unwrap().is_none());
    }

    #[test]
    fn a_report_about_another_namespace_is_not_adopted() {
        let group = group(json!([]));
        let foreign =
            Difference { object: "Secret kube-system/x".into(), path: "/data/a".into(), ..Difference::default() };
        assert!(by_object(&group, &[&foreign]).unwrap_err().to_string().contains("no namespace of the group"));
    }

    #[test]
    fn the_table_says_what_is_missing_and_what_is_not_shown() {
        let secret = json!({ "object": "Secret shop/shop", "path": "/data/token" });
        let added = json!({ "object": "ConfigMap shop/shop", "path": "/data/a", "here": "\"\\u001bx\"" });
        let group = group(json!([{ "site": "france", "differences": [replicas(), secret, added] }]));
        let text = shown(&reported(&group, None));
        let line = |word: &str| text.lines().find(|l| l.contains(word)).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(line("Deployment")[3..], ["/spec/replicas", "3", "5"]);
        assert_eq!(line("Secret")[3..], ["/data/token", "(not", "shown)", "(not", "shown)"]);
        assert_eq!(line("ConfigMap")[3..], ["/data/a", "-", "\"\\u001bx\""]);
    }

    #[test]
    fn a_patch_names_its_object() {
        let patch = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "replicas": 5 } });
        let object = Object::parse("Deployment shop/till").unwrap();
        let expected = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "replicas": 5 },
            "metadata": { "name": "till", "namespace": "shop", "labels": { "a": "b" } },
        });
        assert_eq!(manifest(&object, &patch), expected);
    }
}
