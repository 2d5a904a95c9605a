//! An issuer of tokens, with a key made for one run.

#![allow(dead_code, reason = "the benches need none")]

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

pub struct Issuer(EncodingKey);

impl Issuer {
    pub fn new() -> Result<Self> {
        Ok(Self(EncodingKey::from_ec_der(&rcgen::KeyPair::generate()?.serialize_der())))
    }

    /// Its public key, with the id `k`, as a JSON Web Key Set.
    pub fn jwks(&self) -> Result<Value> {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.0, Algorithm::ES256)?)?;
        key["kid"] = json!("k");
        Ok(json!({ "keys": [key] }))
    }

    pub fn token(&self, header: &Value, claims: &Value) -> Result<String> {
        let signed = unsigned(header, claims);
        let signature = crypto::sign(signed.as_bytes(), &self.0, Algorithm::ES256)?;
        Ok(format!("{signed}.{signature}"))
    }
}

/// Header and claims as a token has them before its signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |it: &Value| BASE64URL.encode(it.to_string());
    format!("{}.{}", encode(header), encode(claims))
}
