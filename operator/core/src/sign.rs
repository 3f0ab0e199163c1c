//! Signed envelopes: DSSE with Ed25519 and an algorithm in every key.
//!
//! What is signed is the payload's bytes behind the DSSE pre-authentication encoding
//! (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>), so no
//! canonical form of JSON is needed: the receiver verifies bytes, then parses them.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a key or an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not `ed25519:BASE64`.
    #[error("key {0:?} is not ed25519:BASE64 with 32 bytes; make one with `kubectl regent charter init`")]
    BadKey(String),
    /// Another kind of statement.
    #[error("envelope holds {found:?} where {wanted:?} is needed")]
    WrongType {
        /// The payload type that was found.
        found: String,
        /// The payload type that is needed here.
        wanted: &'static str,
    },
    /// No signature of that key verifies.
    #[error("no valid signature of {0} is on the envelope; have it signed again by the key that the charter names")]
    NotSigned(String),
    /// The bytes are signed but are not what they say they are.
    #[error("signed payload of type {payload_type} does not parse: {error}")]
    Unreadable {
        /// The payload type.
        payload_type: String,
        /// What the parser said.
        error: String,
    },
}

/// SHA-256 of something, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &hex::encode(self.0)[..12])
    }
}
impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        let mut out = [0; 32];
        hex::decode_to_slice(&s, &mut out).map_err(|e| format!("digest {s:?} is not 64 hexadecimal digits: {e}"))?;
        Ok(Self(out))
    }
}
impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}

/// A public key with its algorithm, written `ed25519:BASE64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The public half of a signing key.
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key())
    }
}
impl FromStr for PublicKey {
    type Err = SignError;
    fn from_str(s: &str) -> Result<Self, SignError> {
        let bad = || SignError::BadKey(s.to_owned());
        let text = s.strip_prefix("ed25519:").ok_or_else(bad)?;
        let bytes: [u8; 32] = BASE64.decode(text).map_err(|_| bad())?.try_into().map_err(|_| bad())?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| bad())
    }
}
impl TryFrom<String> for PublicKey {
    type Error = SignError;
    fn try_from(s: String) -> Result<Self, SignError> {
        s.parse()
    }
}
impl From<PublicKey> for String {
    fn from(k: PublicKey) -> String {
        k.to_string()
    }
}
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", BASE64.encode(self.0.as_bytes()))
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One signature on an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Who signed: a site's or a party's name. A hint only; the verifier picks the key.
    pub keyid: String,
    /// The signature's bytes.
    #[serde(with = "base64_bytes")]
    pub sig: Vec<u8>,
}

/// A DSSE envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// What the payload is, such as `application/vnd.regent.plan.v1+json`.
    pub payload_type: String,
    /// The signed bytes.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Who signed them.
    pub signatures: Vec<Signature>,
}

/// A statement that is signed in an envelope.
pub trait Statement: Serialize + DeserializeOwned {
    /// Its DSSE payload type; another type's signature never counts for this one.
    const PAYLOAD_TYPE: &'static str;
}

/// DSSE's pre-authentication encoding.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {} {} ", payload_type.len(), payload_type, payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// A statement, signed by one key.
    pub fn sign<T: Statement>(statement: &T, keyid: &str, key: &SigningKey) -> Self {
        // A statement is plain data with text keys: serialising it to memory can't fail.
        let payload = serde_json::to_vec(statement).unwrap_or_default();
        let mut envelope = Self { payload_type: T::PAYLOAD_TYPE.to_owned(), payload, signatures: Vec::new() };
        envelope.add_signature(keyid, key);
        envelope
    }

    /// Adds a signature of the same bytes, replacing an older one of that key id.
    pub fn add_signature(&mut self, keyid: &str, key: &SigningKey) {
        let sig = scheme::sign(key, &pae(&self.payload_type, &self.payload));
        self.signatures.retain(|s| s.keyid != keyid);
        self.signatures.push(Signature { keyid: keyid.to_owned(), sig });
    }

    /// Whether `key` signed this under `keyid`.
    pub fn is_signed_by(&self, keyid: &str, key: &PublicKey) -> bool {
        self.valid_signature(keyid, key).is_some()
    }

    /// The signature by which `key` signed this under `keyid`.
    pub fn valid_signature(&self, keyid: &str, key: &PublicKey) -> Option<&Signature> {
        let message = pae(&self.payload_type, &self.payload);
        self.signatures.iter().filter(|s| s.keyid == keyid).find(|s| scheme::verify(&key.0, &message, &s.sig))
    }

    /// The statement, if `key` signed it under `keyid` and it is of the right type.
    pub fn open<T: Statement>(&self, keyid: &str, key: &PublicKey) -> Result<T, SignError> {
        self.expect_type::<T>()?;
        // Nothing is parsed that nobody signed: a parser is what a stranger would aim at.
        if self.is_signed_by(keyid, key) { self.peek() } else { Err(SignError::NotSigned(keyid.to_owned())) }
    }

    /// The statement without a look at any signature: to learn whose to check.
    pub fn peek<T: Statement>(&self) -> Result<T, SignError> {
        self.expect_type::<T>()?;
        serde_json::from_slice(&self.payload)
            .map_err(|e| SignError::Unreadable { payload_type: self.payload_type.clone(), error: e.to_string() })
    }

    fn expect_type<T: Statement>(&self) -> Result<(), SignError> {
        if self.payload_type == T::PAYLOAD_TYPE {
            return Ok(());
        }
        Err(SignError::WrongType { found: self.payload_type.clone(), wanted: T::PAYLOAD_TYPE })
    }

    /// Identifies what was signed, whoever signed it.
    pub fn digest(&self) -> Digest {
        Digest::of(&pae(&self.payload_type, &self.payload))
    }
}

/// The algorithm itself.
#[cfg(not(any(test, feature = "fixture")))]
mod scheme {
    pub(super) use super::ed25519::{sign, verify};
}

mod ed25519 {
    use super::{Signer, SigningKey, VerifyingKey};

    pub(super) fn sign(key: &SigningKey, message: &[u8]) -> Vec<u8> {
        key.sign(message).to_bytes().to_vec()
    }

    pub(super) fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature).is_ok_and(|sig| key.verify_strict(message, &sig).is_ok())
    }
}

/// Simulations exchange tens of thousands of messages each, and none of their actors forges
/// a signature: there a hash of public key and message stands for one.
#[cfg(any(test, feature = "fixture"))]
pub mod scheme {
    use std::cell::Cell;

    use super::{Sha256, SigningKey, VerifyingKey, ed25519};
    use sha2::Digest as _;

    thread_local!(static HASHED: Cell<bool> = const { Cell::new(false) });

    /// From here on this thread's signatures are hashes.
    pub fn hash_on_this_thread() {
        HASHED.set(true);
    }

    fn hash(key: &VerifyingKey, message: &[u8]) -> Vec<u8> {
        Sha256::new().chain_update(key.as_bytes()).chain_update(message).finalize().to_vec()
    }

    pub(super) fn sign(key: &SigningKey, message: &[u8]) -> Vec<u8> {
        if HASHED.get() { hash(&key.verifying_key(), message) } else { ed25519::sign(key, message) }
    }

    pub(super) fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
        if HASHED.get() { hash(key, message) == signature } else { ed25519::verify(key, message, signature) }
    }
}

/// Bytes as base64 text in JSON.
pub mod base64_bytes {
    use super::{BASE64, Engine};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes bytes as base64.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(bytes))
    }
    /// Reads base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        BASE64.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note(String);
    impl Statement for Note {
        const PAYLOAD_TYPE: &'static str = "application/vnd.regent.test-note.v1+json";
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Other(String);
    impl Statement for Other {
        const PAYLOAD_TYPE: &'static str = "application/vnd.regent.test-other.v1+json";
    }

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    #[test]
    fn a_signed_statement_opens_with_its_key_only() {
        let envelope = Envelope::sign(&Note("hi".into()), "bleu", &key(1));
        assert_eq!(envelope.open::<Note>("bleu", &PublicKey::of(&key(1))).unwrap(), Note("hi".into()));
        assert!(matches!(envelope.open::<Note>("bleu", &PublicKey::of(&key(2))), Err(SignError::NotSigned(_))));
        assert!(matches!(envelope.open::<Note>("delos", &PublicKey::of(&key(1))), Err(SignError::NotSigned(_))));
    }

    #[test]
    fn nothing_is_parsed_that_nobody_signed() {
        let mut envelope = Envelope::sign(&Note("hi".into()), "bleu", &key(1));
        envelope.payload = b"[[[[".to_vec();
        assert!(matches!(envelope.open::<Note>("bleu", &PublicKey::of(&key(1))), Err(SignError::NotSigned(_))));
        envelope.add_signature("bleu", &key(1));
        assert!(matches!(envelope.open::<Note>("bleu", &PublicKey::of(&key(1))), Err(SignError::Unreadable { .. })));
    }

    #[test]
    fn a_statement_is_never_taken_for_another_kind() {
        let mut envelope = Envelope::sign(&Note("hi".into()), "bleu", &key(1));
        assert!(matches!(envelope.open::<Other>("bleu", &PublicKey::of(&key(1))), Err(SignError::WrongType { .. })));
        envelope.payload_type = Other::PAYLOAD_TYPE.into();
        assert!(matches!(envelope.open::<Other>("bleu", &PublicKey::of(&key(1))), Err(SignError::NotSigned(_))));
    }

    #[test]
    fn a_flipped_bit_is_noticed_and_a_second_signature_counts_for_itself() {
        let mut envelope = Envelope::sign(&Note("hi".into()), "bleu", &key(1));
        envelope.add_signature("delos", &key(2));
        assert!(envelope.is_signed_by("delos", &PublicKey::of(&key(2))));
        let digest = envelope.digest();
        envelope.payload[1] ^= 1;
        assert!(!envelope.is_signed_by("bleu", &PublicKey::of(&key(1))));
        assert_ne!(digest, envelope.digest());
    }

    #[test]
    fn keys_and_envelopes_survive_json() {
        let envelope = Envelope::sign(&Note("hi".into()), "bleu", &key(1));
        let json = serde_json::to_string(&envelope).unwrap();
        assert_eq!(serde_json::from_str::<Envelope>(&json).unwrap(), envelope);
        let public = PublicKey::of(&key(1));
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        assert!("rsa:AAAA".parse::<PublicKey>().is_err());
    }
}
