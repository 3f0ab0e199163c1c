//! Keys, certificates and kubeconfigs of one site. Each site is its own authority.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::error::{At, Error, Result};

/// Days that a rig's certificates are valid.
const VALID_DAYS: i64 = 30;

/// A site's certificate authority and the folder it writes to.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Authority {
    /// Makes the authority of a site, with the key of its service accounts beside it.
    pub fn create(dir: &Path, site: &str) -> Result<Self> {
        fs::create_dir_all(dir).at("create", dir)?;
        let subject = format!("{site}-ca");
        let mut params = params(&subject, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let key = key(&subject)?;
        let cert = params.self_signed(&key).map_err(|source| Error::Pki { subject: subject.clone(), source })?;
        let ca_pem = cert.pem();
        fs::write(dir.join("ca.crt"), &ca_pem).at("write", dir.join("ca.crt"))?;
        write_secret(&dir.join("ca.key"), &key.serialize_pem())?;
        let accounts = self::key("service accounts")?;
        write_secret(&dir.join("sa.key"), &accounts.serialize_pem())?;
        fs::write(dir.join("sa.pub"), accounts.public_key_pem()).at("write", dir.join("sa.pub"))?;
        Ok(Self { dir: dir.to_path_buf(), issuer: Issuer::new(params, key), ca_pem })
    }

    /// Issues a certificate for NAME.crt and NAME.key, good for client and server.
    pub fn issue(&self, name: &str, common: &str, group: Option<&str>, ips: &[&str], dns: &[&str]) -> Result<()> {
        let mut params = params(common, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let pki = |source| Error::Pki { subject: common.to_owned(), source };
        for ip in ips {
            let ip = ip.parse().map_err(|e| Error::Usage(format!("address {ip:?} of {common}: {e}")))?;
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().map_err(pki)?));
        }
        let key = key(common)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(pki)?;
        let path = self.dir.join(format!("{name}.crt"));
        fs::write(&path, cert.pem()).at("write", &path)?;
        write_secret(&self.dir.join(format!("{name}.key")), &key.serialize_pem())
    }

    /// Issues a client certificate and writes a kubeconfig that contains it.
    pub fn kubeconfig(&self, path: &Path, site: &str, server: &str, user: &str, group: Option<&str>) -> Result<()> {
        let name = user.replace(':', "-");
        self.issue(&name, user, group, &[], &[])?;
        let read = |file: String| {
            let path = self.dir.join(file);
            fs::read(&path).at("read", &path).map(|bytes| STANDARD.encode(bytes))
        };
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": site,
            "clusters": [{"name": site, "cluster": {
                "server": server, "certificate-authority-data": STANDARD.encode(&self.ca_pem)}}],
            "users": [{"name": name, "user": {
                "client-certificate-data": read(format!("{name}.crt"))?,
                "client-key-data": read(format!("{name}.key"))?}}],
            "contexts": [{"name": site, "context": {"cluster": site, "user": name}}],
        });
        write_secret(path, &config.to_string())
    }
}

fn key(subject: &str) -> Result<KeyPair> {
    KeyPair::generate().map_err(|source| Error::Pki { subject: subject.to_owned(), source })
}

fn params(common: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(VALID_DAYS);
    params
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(path).at("open", path)?;
    file.write_all(text.as_bytes()).at("write", path)
}
