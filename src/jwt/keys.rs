//! The keys of an issuer: a JSON web key set (RFC 7517, 5).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::Algorithm as Known;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde_json::Value;

use super::algorithm::{Algorithm, ES512, PublicKey};
use super::json;

/// The longest set that an object may have, in bytes. Big providers publish a few KiB.
pub const MAX_KEYS_BYTES: usize = 64 * 1024;
/// The longest set that is fetched: some issuers publish chains of certificates with their keys.
pub const MAX_FETCHED_BYTES: usize = 256 * 1024;
/// Keys of one set at the most: a token without a key id is tried with each that fits.
pub(super) const MAX_KEYS: usize = 32;
/// Moduli of RSA that are used, in bytes: what aws-lc-rs verifies with, from 2048 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The algorithms of RSA keys (RFC 7518, 3.3 and 3.5).
const RSA: [Known; 6] =
    [Known::RS256, Known::RS384, Known::RS512, Known::PS256, Known::PS384, Known::PS512];

/// Keys that can verify, in the order of the set.
#[derive(Clone)]
pub struct Keys {
    /// As the issuer wrote it; it stands for the keys where two sets are compared.
    text: Arc<str>,
    keys: Arc<[Key]>,
    skipped: Vec<String>,
}

pub(super) struct Key {
    pub(super) id: Option<String>,
    /// What its type and its own `alg` let it verify.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: PublicKey,
}

impl Keys {
    /// Reads the set of an object. Keys that cannot be used are skipped ([`Keys::skipped`]), since issuers may publish keys of
    /// other kinds.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_KEYS_BYTES {
            return Err(format!("has more than {MAX_KEYS_BYTES} bytes"));
        }
        Self::read(text)
    }

    /// Reads a set that was fetched. One without a key that can be used is an issuer's mistake.
    pub fn fetched(text: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(text).map_err(|_| "is no JSON object")?;
        if text.len() > MAX_FETCHED_BYTES {
            return Err(format!("has more than {MAX_FETCHED_BYTES} bytes"));
        }
        let keys = Self::read(text)?;
        match keys.is_empty() {
            true => Err(format!("has no key that can be used ({})", keys.skipped.join(", "))),
            false => Ok(keys),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut set = json::object(text.as_bytes()).ok_or("is no JSON object")?;
        let Some(Value::Array(list)) = set.remove("keys") else {
            return Err("has no list named keys".to_owned());
        };
        if list.len() > MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, value) in list.into_iter().enumerate() {
            match Key::read(value) {
                Ok(key) => keys.push(key),
                Err(why) => skipped.push(format!("keys[{index}] {why}")),
            }
        }
        Ok(Self { text: text.into(), keys: keys.into(), skipped })
    }

    /// No key at all: verifies nothing.
    pub fn none() -> Self {
        Self { text: "".into(), keys: Arc::new([]), skipped: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Why keys are not used, for people.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl Key {
    fn read(mut value: Value) -> Result<Self, String> {
        // The crate does not know the name.
        let only_es512 = value.get("alg").is_some_and(|name| name == ES512);
        if let Some(key) = value.as_object_mut().filter(|_| only_es512) {
            key.remove("alg");
        }
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| "is no JSON web key")?;
        let common = &jwk.common;
        if matches!(&common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
            return Err("is not for signatures (use)".to_owned());
        }
        let verifies = |list: &Vec<KeyOperations>| list.contains(&KeyOperations::Verify);
        if !common.key_operations.as_ref().is_none_or(verifies) {
            return Err("is not for verifying (key_ops)".to_owned());
        }
        let mut algorithms = algorithms(&jwk.algorithm)?;
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::named(&only.to_string());
            algorithms.retain(|one| Some(*one) == only);
        }
        algorithms.retain(|one| !only_es512 || *one == Algorithm::Es512);
        if algorithms.is_empty() {
            return Err("has an alg that does not fit its type, or is not supported".to_owned());
        }
        let key = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P521 => {
                PublicKey::p521(it)
            }
            _ => PublicKey::read(&jwk),
        };
        let key = key.ok_or("has parameters that are no key")?;
        Ok(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// What a key's type can verify.
fn algorithms(parameters: &AlgorithmParameters) -> Result<Vec<Algorithm>, String> {
    match parameters {
        AlgorithmParameters::RSA(it) => {
            let length = BASE64URL.decode(&it.n).map_or(0, |modulus| modulus.len());
            match MODULUS.contains(&length) {
                true => Ok(RSA.map(Algorithm::Known).to_vec()),
                false => Err("is an RSA key of less than 2048 or more than 8192 bits".to_owned()),
            }
        }
        AlgorithmParameters::EllipticCurve(it) => match it.curve {
            EllipticCurve::P256 => Ok(vec![Algorithm::Known(Known::ES256)]),
            EllipticCurve::P384 => Ok(vec![Algorithm::Known(Known::ES384)]),
            EllipticCurve::P521 => Ok(vec![Algorithm::Es512]),
            _ => Err("is on a curve that is not supported; P-256, P-384 and P-521 are".to_owned()),
        },
        AlgorithmParameters::OctetKeyPair(it) => match it.curve {
            EllipticCurve::Ed25519 => Ok(vec![Algorithm::Known(Known::EdDSA)]),
            _ => Err("is on a curve that is not supported; Ed25519 is".to_owned()),
        },
        AlgorithmParameters::OctetKey(_) => {
            Err("is a shared secret, which everybody who verifies could sign with".to_owned())
        }
        _ => Err("is of a type that is not supported; RSA, EC and OKP are".to_owned()),
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

/// The ids, for dumps.
impl serde::Serialize for Keys {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.keys.iter().map(|key| key.id.as_deref()))
    }
}
