//! Algorithms of signatures (RFC 7518, 3.1), and the keys that verify them: the crate's, and ES512, which it lacks.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::jwk::{EllipticCurveKeyParameters, Jwk};
use jsonwebtoken::{Algorithm as Known, DecodingKey, crypto};

/// One with a public key. A shared secret would make a public key one that anybody can sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Known(Known),
    /// ECDSA over P-521 with SHA-512.
    Es512,
}

/// The name of [`Algorithm::Es512`].
pub(super) const ES512: &str = "ES512";

/// A coordinate of P-521 in bytes (RFC 7518, 6.2.1.2).
const COORDINATE: usize = 66;

/// A point that is not compressed (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(Self::Known(match name {
            "RS256" => Known::RS256,
            "RS384" => Known::RS384,
            "RS512" => Known::RS512,
            "PS256" => Known::PS256,
            "PS384" => Known::PS384,
            "PS512" => Known::PS512,
            "ES256" => Known::ES256,
            "ES384" => Known::ES384,
            "EdDSA" => Known::EdDSA,
            ES512 => return Some(Self::Es512),
            _ => return None,
        }))
    }
}

/// The key of one algorithm, or of several of RSA.
pub(super) enum PublicKey {
    Known(DecodingKey),
    P521(ParsedPublicKey),
}

impl PublicKey {
    /// The key of a set, unless its parameters are none.
    pub(super) fn read(jwk: &Jwk) -> Option<Self> {
        DecodingKey::from_jwk(jwk).ok().map(Self::Known)
    }

    /// A point of P-521; anything else, such as coordinates of another length or a point beside the curve, is none.
    pub(super) fn p521(it: &EllipticCurveKeyParameters) -> Option<Self> {
        let mut point = vec![UNCOMPRESSED];
        for coordinate in [&it.x, &it.y] {
            let bytes = BASE64URL.decode(coordinate).ok().filter(|it| it.len() == COORDINATE)?;
            point.extend(bytes);
        }
        ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).ok().map(Self::P521)
    }

    /// Whether the signature, in base64url, is of this key by this algorithm.
    pub(super) fn verifies(&self, signature: &str, signed: &[u8], by: Algorithm) -> bool {
        match (self, by) {
            (Self::Known(key), Algorithm::Known(by)) => {
                crypto::verify(signature, signed, key, by) == Ok(true)
            }
            (Self::P521(key), Algorithm::Es512) => {
                let signature = BASE64URL.decode(signature).ok();
                signature.is_some_and(|it| key.verify_sig(signed, &it).is_ok())
            }
            (Self::Known(_), Algorithm::Es512) | (Self::P521(_), Algorithm::Known(_)) => false,
        }
    }
}
