//! `charter init`: a working charter with all keys, for trying Regent out.
//!
//! In earnest each party makes its own keys where they stay, and only public halves meet
//! in the charter. Here all of them are made in one folder, one sub-folder for each site.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use ed25519_dalek::SigningKey;
use regent_core::charter::{Charter, Interlock, Party, SiteEntry};
use regent_core::ids::SiteName;
use regent_core::sign::{Envelope, PublicKey};
use regent_shell::tls::{NewCa, issue_site, make_ca};
use serde_json::json;

use crate::Verdict;
use crate::topology::{Site, Topology};

/// Arguments of `charter init`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// File that lists parties and sites.
    #[arg(long)]
    topology: PathBuf,
    /// Folder for the charter and all keys; it must not hold a charter yet.
    #[arg(long)]
    out: PathBuf,
    /// Name of the federation.
    #[arg(long, default_value = "federation")]
    name: String,
    /// Where a site's operator answers other sites; repeat for more.
    #[arg(long = "address", value_name = "SITE=IP:PORT", value_parser = parse_address)]
    addresses: Vec<(SiteName, String)>,
    /// D: how long a lease lasts without renewal, from 1s to 60s.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    lease_duration: Duration,
    /// How many certified changes of holder an hour are let through for a group.
    #[arg(long, default_value_t = Interlock::default().changes_per_group_hour)]
    changes_per_group_hour: u32,
    /// The same, for all groups of a party's sites.
    #[arg(long, default_value_t = Interlock::default().changes_per_party_hour)]
    changes_per_party_hour: u32,
}

fn parse_address(text: &str) -> Result<(SiteName, String), String> {
    let (site, address) = text.split_once('=').ok_or("write SITE=IP:PORT")?;
    Ok((site.parse().map_err(|e| format!("{e}"))?, address.to_owned()))
}

/// Reads `5s`, `500ms`, `1m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|e| format!("{text:?} is not a duration such as 5s: {e}"))?;
    Duration::try_from(span).map_err(|_| format!("{text:?} is negative"))
}

struct SiteKeys {
    signing: SigningKey,
    ca: NewCa,
    tls: NewCa,
}

/// Makes everything.
pub fn run(args: &Args) -> Result<Verdict> {
    let file = args.out.join("charter.json");
    if file.exists() {
        bail!("{} exists: its keys may be in use; choose another --out, or remove it first", file.display());
    }
    let mut addresses: BTreeMap<SiteName, Vec<String>> = BTreeMap::new();
    for (site, address) in &args.addresses {
        addresses.entry(site.clone()).or_default().push(address.clone());
    }
    let topology = Topology::load(&args.topology, &addresses)?;
    let (charter, envelope, keys, party_keys) = make(args, &topology)?;
    make_dir(&args.out)?;
    for (name, key) in &party_keys {
        let dir = args.out.join("parties");
        make_dir(&dir)?;
        write_secret(&dir.join(format!("{name}.key")), &hex::encode(key.to_bytes()))?;
    }
    let text = serde_json::to_string_pretty(&envelope)?;
    for (site, keys) in &keys {
        write_site(&args.out, site, keys, &text)?;
    }
    // The charter comes last: a run that was broken off can be run again.
    fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
    report(args, &charter);
    Ok(Verdict::Well)
}

type Made = (Charter, Envelope, BTreeMap<SiteName, SiteKeys>, Vec<(String, SigningKey)>);

fn make(args: &Args, topology: &Topology) -> Result<Made> {
    let mut party_keys = Vec::new();
    let mut parties = Vec::new();
    for party in &topology.parties {
        let key = random_key()?;
        parties.push(Party {
            name: party.name.clone(),
            display_name: party.display_name.clone(),
            role: party.role,
            country: party.country.clone(),
            control: party.control.clone(),
            key: PublicKey::of(&key),
        });
        party_keys.push((party.name.to_string(), key));
    }
    let mut keys = BTreeMap::new();
    let mut sites = Vec::new();
    for site in &topology.sites {
        let (entry, own) = make_site(site)?;
        sites.push(entry);
        keys.insert(site.name.clone(), own);
    }
    let witnesses = topology.witnesses();
    let faulty = witnesses.len().saturating_sub(1) / 3;
    let charter = Charter {
        name: args.name.clone(),
        version: 1,
        threshold: u32::try_from(parties.len() / 2 + 1)?,
        parties,
        sites,
        faulty_witnesses: u32::try_from(faulty)?,
        witnesses,
        lease_duration_ms: u64::try_from(args.lease_duration.as_millis())?,
        clock_drift_ppm: 1000,
        interlock: Interlock {
            changes_per_group_hour: args.changes_per_group_hour,
            changes_per_party_hour: args.changes_per_party_hour,
        },
    };
    crate::charter::refuse_mistakes(&charter)?;
    let mut signers = party_keys.iter();
    let Some((first, key)) = signers.next() else { bail!("topology {} has no party", args.topology.display()) };
    let mut envelope = Envelope::sign(&charter, first, key);
    for (name, key) in signers {
        envelope.add_signature(name, key);
    }
    Ok((charter, envelope, keys, party_keys))
}

fn make_site(site: &Site) -> Result<(SiteEntry, SiteKeys)> {
    let signing = random_key()?;
    let ca = make_ca(&site.name)?;
    let tls = issue_site(&site.name, &ca)?;
    let entry = SiteEntry {
        name: site.name.clone(),
        number: site.number,
        party: site.party.clone(),
        country: site.country.clone(),
        addresses: site.addresses.clone(),
        key: PublicKey::of(&signing),
        tls_anchor: ca.certificate_pem.clone(),
    };
    Ok((entry, SiteKeys { signing, ca, tls }))
}

fn random_key() -> Result<SigningKey> {
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut seed)).context("read /dev/urandom")?;
    Ok(SigningKey::from_bytes(&seed))
}

fn write_site(out: &Path, site: &SiteName, keys: &SiteKeys, charter: &str) -> Result<()> {
    let dir = out.join(site.as_str());
    make_dir(&dir)?;
    let files = [
        ("site.key", hex::encode(keys.signing.to_bytes())),
        ("ca.crt", keys.ca.certificate_pem.clone()),
        ("ca.key", keys.ca.key_pem.clone()),
        ("tls.crt", keys.tls.certificate_pem.clone()),
        ("tls.key", keys.tls.key_pem.clone()),
    ];
    for (name, text) in &files {
        write_secret(&dir.join(name), text)?;
    }
    let data: BTreeMap<&str, &str> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "regent-site", "namespace": "regent-system"},
        "stringData": data,
    });
    write_secret(&dir.join("secret.yaml"), &serde_yaml_ng::to_string(&secret)?)?;
    let values = json!({"site": site, "charter": charter});
    let path = dir.join("values.yaml");
    fs::write(&path, serde_yaml_ng::to_string(&values)?).with_context(|| format!("write {}", path.display()))
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make folder {}", dir.display()))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let open = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    open.and_then(|mut f| f.write_all(text.as_bytes())).with_context(|| format!("write {}", path.display()))
}

fn report(args: &Args, charter: &Charter) {
    let out = args.out.display();
    println!(
        "charter {} version {}: {} witnesses, {} of them may be faulty, a quorum is {}",
        charter.name,
        charter.version,
        charter.witness_count(),
        charter.faulty_witnesses,
        charter.quorum()
    );
    println!("charter:     {out}/charter.json");
    println!("each site:   {out}/SITE/secret.yaml (apply it), {out}/SITE/values.yaml (for helm install)");
    println!("each party:  {out}/parties/PARTY.key (keep it off every cluster)");
    println!("check it:    kubectl regent charter verify {out}/charter.json");
}
