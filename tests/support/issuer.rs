//! An issuer of tokens, with a key made for one run.

#![allow(dead_code, reason = "the benches need none")]

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

/// With the id of its key.
pub struct Issuer(EncodingKey, &'static str);

impl Issuer {
    pub fn new() -> Result<Self> {
        Self::named("k")
    }

    pub fn named(key: &'static str) -> Result<Self> {
        let pair = rcgen::KeyPair::generate()?;
        Ok(Self(EncodingKey::from_ec_der(&pair.serialize_der()), key))
    }

    /// Its public key as a JSON Web Key Set.
    pub fn jwks(&self) -> Result<Value> {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.0, Algorithm::ES256)?)?;
        key["kid"] = json!(self.1);
        Ok(json!({ "keys": [key] }))
    }

    /// A token as it should be.
    pub fn good(&self, claims: &Value) -> Result<String> {
        self.token(&json!({"alg": "ES256", "kid": self.1}), claims)
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
