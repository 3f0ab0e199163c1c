//! Images of static binaries: an OCI layout with one layer, made without any builder.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Absolute path in the image; the mode is 0755.
    pub target: String,
}

impl ImageFile {
    /// Reads `SOURCE` or `SOURCE:TARGET`; without a target the file goes to the image's root.
    pub fn parse(spec: &str) -> Result<Self> {
        let (source, target) = match spec.split_once(':') {
            Some((source, target)) => (source, target.to_owned()),
            None => {
                let name = Path::new(spec).file_name().unwrap_or_default().to_string_lossy();
                (spec, format!("/{name}"))
            }
        };
        if source.is_empty() || !target.starts_with('/') || target.len() < 2 {
            return Err(Error::Usage(format!("file {spec:?} of the image: write SOURCE or SOURCE:/TARGET")));
        }
        Ok(Self { source: source.into(), target })
    }
}

/// Writes an OCI layout into `dir` and returns the manifest's digest. The same files give the same digest.
///
/// The entrypoint is `entrypoint`, or else the first file.
pub(crate) fn build(dir: &Path, files: &[ImageFile], entrypoint: &[String]) -> Result<String> {
    let Some(first) = files.first() else {
        return Err(Error::Usage("an image needs at least one file".into()));
    };
    let entrypoint = if entrypoint.is_empty() { std::slice::from_ref(&first.target) } else { entrypoint };
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).at("create", &blobs)?;
    let (layer, diff) = put(&blobs, "application/vnd.oci.image.layer.v1.tar", &layer(files)?)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin:/usr/bin:/"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let (config, _) = put(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let (mut entry, digest) = put(&blobs, kind, manifest.to_string().as_bytes())?;
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "dev"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    fs::write(dir.join("index.json"), index).at("write", dir.join("index.json"))?;
    let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();
    fs::write(dir.join("oci-layout"), layout).at("write", dir.join("oci-layout"))?;
    Ok(digest)
}

/// Stores a blob; returns its descriptor and digest.
fn put(blobs: &Path, kind: &str, bytes: &[u8]) -> Result<(Value, String)> {
    let hash = hex::encode(Sha256::digest(bytes));
    fs::write(blobs.join(&hash), bytes).at("write", blobs.join(&hash))?;
    let digest = format!("sha256:{hash}");
    Ok((json!({"mediaType": kind, "digest": digest, "size": bytes.len()}), digest))
}

fn layer(files: &[ImageFile]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut folders = std::collections::BTreeSet::from(["tmp".to_owned()]);
    for file in files {
        let parents = Path::new(file.target.trim_start_matches('/')).ancestors().skip(1);
        folders.extend(parents.map(|p| p.to_string_lossy().into_owned()).filter(|p| !p.is_empty()));
    }
    for folder in folders {
        let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
        let mut header = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut header, format!("{folder}/"), std::io::empty()).at("pack", &folder)?;
    }
    for file in files {
        let bytes = fs::read(&file.source).at("read", &file.source)?;
        let mut header = header(tar::EntryType::Regular, 0o755, bytes.len() as u64);
        let target = file.target.trim_start_matches('/');
        tar.append_data(&mut header, target, bytes.as_slice()).at("pack", &file.source)?;
    }
    tar.into_inner().at("pack", "image layer")
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_digest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        fs::write(&file, "x").unwrap();
        let files = [ImageFile::parse(&format!("{}:/usr/bin/program", file.display())).unwrap()];
        let one = build(&dir.path().join("1"), &files, &[]).unwrap();
        let two = build(&dir.path().join("2"), &files, &[]).unwrap();
        assert_eq!(one, two);
        fs::write(&file, "y").unwrap();
        assert_ne!(build(&dir.path().join("3"), &files, &[]).unwrap(), one);
    }

    #[test]
    fn a_file_without_target_goes_to_the_root_and_nonsense_is_refused() {
        assert_eq!(ImageFile::parse("a/b").unwrap().target, "/b");
        for bad in ["", "a:", "a:b", "a:/", ":/b"] {
            assert!(ImageFile::parse(bad).is_err(), "{bad}");
        }
        assert!(build(Path::new("/nonexistent"), &[], &[]).is_err());
    }
}
