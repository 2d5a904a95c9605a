//! Issuers and tokens for tests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::Keys;

/// An issuer with one key.
pub struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Issuer {
    /// With a key for ES256.
    pub fn new(id: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self::with(id, Algorithm::ES256, key)
    }

    pub fn with(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(id);
        Self { algorithm, key, jwk }
    }

    pub fn jwk(&self) -> Value {
        self.jwk.clone()
    }

    pub fn jwks(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }

    pub fn keys(&self) -> Keys {
        Keys::parse(&self.jwks()).unwrap()
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": format!("{:?}", self.algorithm), "kid": self.jwk["kid"] });
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// A token of this header and payload, whatever they say.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
        let signature = crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}
