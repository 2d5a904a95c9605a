//! What is accepted and what is refused, row by row: Istio's and Envoy's semantics, and the known attacks.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_ASN1_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::fixture::Issuer;
use super::*;
use crate::base::Str;

const NOW: u64 = 1_800_000_000;

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "aud": ["shop"], "exp": NOW + 10})
}

/// What becomes of a token where the issuer is `https://issuer`.
fn verdict(token: &str, audiences: &[&str], keys: Option<&Keys>) -> Result<Claims, Fault> {
    let audiences: Vec<Str> = audiences.iter().map(|it| Str::from(*it)).collect();
    let expected = Expected { issuer: "https://issuer", audiences: &audiences, keys };
    let token = Token::parse(token)?;
    verify(&token, &expected, NOW).map(|()| token.claims)
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn claims_are_judged_as_envoy_judges_them() {
    let issuer = Issuer::new("k");
    let keys = issuer.keys();
    let fine = None;
    for (claims, audiences, fault) in [
        (claims(), &[][..], fine),
        (claims(), &["shop"], fine),
        (claims(), &["other", "shop"], fine),
        (claims(), &["other"], Some(Fault::WrongAudience)),
        (with("aud", json!("shop")), &["shop"], fine),
        (with("aud", json!("https://shop/")), &["shop"], fine),
        (with("aud", json!([])), &["shop"], Some(Fault::WrongAudience)),
        (with("aud", json!(["shop", 1])), &[], Some(Fault::BadAudience)),
        (with("aud", json!({"shop": 1})), &[], Some(Fault::BadAudience)),
        (with("iss", json!("https://issuer/")), &[], Some(Fault::UnknownIssuer)),
        (with("iss", json!("")), &[], Some(Fault::UnknownIssuer)),
        (with("iss", json!(["https://issuer"])), &[], Some(Fault::BadIssuer)),
        (with("sub", json!(1)), &[], Some(Fault::BadSubject)),
        (with("exp", json!(NOW - 60)), &[], fine),
        (with("exp", json!(NOW - 61)), &[], Some(Fault::Expired)),
        (with("exp", json!(0)), &[], Some(Fault::Expired)),
        (with("exp", json!(-1)), &[], Some(Fault::BadExpiry)),
        (with("exp", json!("2030")), &[], Some(Fault::BadExpiry)),
        (with("exp", json!(1e300)), &[], Some(Fault::BadExpiry)),
        (with("exp", Value::Null), &[], Some(Fault::BadExpiry)),
        (with("nbf", json!(NOW + 60)), &[], fine),
        (with("nbf", json!(NOW + 61)), &[], Some(Fault::NotYetValid)),
        (with("nbf", json!("now")), &[], Some(Fault::BadNotBefore)),
    ] {
        let judged = verdict(&issuer.token(&claims), audiences, Some(&keys));
        assert_eq!(judged.err(), fault, "{claims} {audiences:?}");
    }
    let mut lasting = claims();
    lasting.as_object_mut().unwrap().remove("exp");
    assert!(verdict(&issuer.token(&lasting), &[], Some(&keys)).is_ok(), "as in Envoy");
    assert_eq!(verdict(&issuer.token(&claims()), &[], None).err(), Some(Fault::NotFetched));
    let none = Keys::none();
    assert_eq!(verdict(&issuer.token(&claims()), &[], Some(&none)).err(), Some(Fault::NoKeys));
}

#[test]
fn headers_choose_nothing() {
    let issuer = Issuer::new("k");
    let keys = issuer.keys();
    let payload = claims().to_string();
    for (header, fault) in [
        (r#"{"alg":"ES256","kid":"k"}"#, None),
        (r#"{"alg":"ES256"}"#, None),
        (r#"{"alg":"ES256","kid":"k","jku":"https://evil","jwk":{},"x5u":"a"}"#, None),
        (r#"{"alg":"ES256","kid":"other"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"ES256","kid":"../../dev/null"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"ES256","kid":""}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"ES256","kid":1}"#, Some(Fault::BadKeyId)),
        (r#"{"alg":"ES256","kid":["k"]}"#, Some(Fault::BadKeyId)),
        (r#"{"alg":"ES384","kid":"k"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"ES512","kid":"k"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"RS256","kid":"k"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"EdDSA","kid":"k"}"#, Some(Fault::NoSuchKey)),
        (r#"{"alg":"HS256","kid":"k"}"#, Some(Fault::UnknownAlgorithm)),
        (r#"{"alg":"none"}"#, Some(Fault::UnknownAlgorithm)),
        (r#"{"alg":"None"}"#, Some(Fault::UnknownAlgorithm)),
        (r#"{"alg":"es256"}"#, Some(Fault::UnknownAlgorithm)),
        (r#"{"alg":""}"#, Some(Fault::UnknownAlgorithm)),
        (r#"{"alg":["ES256"]}"#, Some(Fault::BadAlgorithm)),
        (r#"{"kid":"k"}"#, Some(Fault::BadAlgorithm)),
        (r#"{"alg":"none","alg":"ES256"}"#, Some(Fault::HeaderJson)),
        (r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, Some(Fault::Critical)),
        (r#"{"alg":"ES256""#, Some(Fault::HeaderJson)),
        (r#""ES256""#, Some(Fault::HeaderJson)),
    ] {
        let judged = verdict(&issuer.sign(header, &payload), &[], Some(&keys));
        assert_eq!(judged.err(), fault, "{header}");
    }
    let twice = r#"{"iss":"https://issuer","sub":"alice","sub":"root"}"#;
    let token = issuer.sign(r#"{"alg":"ES256"}"#, twice);
    assert_eq!(verdict(&token, &[], Some(&keys)).err(), Some(Fault::PayloadJson));
}

#[test]
fn what_was_not_signed_is_refused() {
    let (issuer, forger) = (Issuer::new("k"), Issuer::new("k"));
    let keys = issuer.keys();
    let good = issuer.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!() };
    let (other, root) = (forger.token(&claims()), issuer.token(&with("sub", json!("root"))));
    let root = root.split('.').nth(1).unwrap();
    for (token, fault) in [
        (good.clone(), None),
        (other, Some(Fault::BadSignature)),
        (format!("{header}.{root}.{signature}"), Some(Fault::BadSignature)),
        (format!("{header}.{payload}."), Some(Fault::BadSignature)),
        (format!("{header}.{payload}"), Some(Fault::BadFormat)),
        (format!("{good}."), Some(Fault::BadFormat)),
        (format!("{good}="), Some(Fault::SignatureBase64)),
        (format!("{header}=.{payload}.{signature}"), Some(Fault::HeaderBase64)),
        (format!("{header}.{payload}=.{signature}"), Some(Fault::PayloadBase64)),
        (format!("{header}.{payload}.+{signature}"), Some(Fault::SignatureBase64)),
        (format!("{header}. {payload}.{signature}"), Some(Fault::PayloadBase64)),
        ("..".to_owned(), Some(Fault::HeaderJson)),
        (String::new(), Some(Fault::BadFormat)),
        ("a.b.c.d.e".to_owned(), Some(Fault::BadFormat)),
        (".".repeat(100_000), Some(Fault::TooLong)),
        (format!("{header}.{}.{signature}", "A".repeat(20_000)), Some(Fault::TooLong)),
    ] {
        assert_eq!(verdict(&token, &[], Some(&keys)).err(), fault, "{token:.80}");
    }
}

#[test]
fn every_kind_of_key_verifies_its_own_algorithms_only() {
    let pkcs8 = |pair: KeyPair| pair.serialize_der();
    let rsa = pkcs8(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());
    // The key of PKCS#1 within that of PKCS#8 (RFC 5208).
    let rsa = &rsa[26..];
    let p384 = pkcs8(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let ed = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    let issuers = [
        Issuer::with("a", Algorithm::RS256, EncodingKey::from_rsa_der(rsa)),
        Issuer::with("b", Algorithm::RS512, EncodingKey::from_rsa_der(rsa)),
        Issuer::with("c", Algorithm::PS256, EncodingKey::from_rsa_der(rsa)),
        Issuer::with("d", Algorithm::ES384, EncodingKey::from_ec_der(&p384)),
        Issuer::with("e", Algorithm::EdDSA, EncodingKey::from_ed_der(ed.as_ref())),
        Issuer::new("f"),
    ];
    let set = json!({ "keys": issuers.iter().map(Issuer::jwk).collect::<Vec<_>>() });
    let keys = Keys::parse(&set.to_string()).unwrap();
    assert!(keys.skipped().is_empty(), "{:?}", keys.skipped());
    for issuer in &issuers {
        let token = issuer.token(&claims());
        assert!(verdict(&token, &[], Some(&keys)).is_ok(), "{}", issuer.jwk());
        for other in issuers.iter().filter(|other| other.jwk() != issuer.jwk()) {
            let judged = verdict(&token, &[], Some(&other.keys()));
            assert_eq!(judged.err(), Some(Fault::NoSuchKey), "{}", other.jwk());
        }
    }
}

/// A key of P-521, as it signs, and the coordinates of its point.
fn p521(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Value) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref();
    assert_eq!(point.len(), 133);
    let coordinate = |bytes: &[u8]| BASE64URL.encode(bytes);
    let (x, y) = (coordinate(&point[1..67]), coordinate(&point[67..]));
    (pair, json!({"kty": "EC", "crv": "P-521", "x": x, "y": y, "kid": "k", "alg": "ES512"}))
}

fn signed_by(pair: &EcdsaKeyPair, header: &str) -> (String, Vec<u8>) {
    let payload = claims().to_string();
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    (signed, signature.as_ref().to_vec())
}

#[test]
fn es512_is_verified_by_a_key_of_its_curve_alone() {
    let ((pair, jwk), (other, _)) =
        (p521(&ECDSA_P521_SHA512_FIXED_SIGNING), p521(&ECDSA_P521_SHA512_FIXED_SIGNING));
    let (der, of_der) = p521(&ECDSA_P521_SHA512_ASN1_SIGNING);
    let set = |key: &Value| Keys::parse(&json!({ "keys": [key] }).to_string()).unwrap();
    let judged = |keys: &Keys, signed: &str, signature: &[u8]| {
        verdict(&format!("{signed}.{}", BASE64URL.encode(signature)), &[], Some(keys)).err()
    };
    let keys = set(&jwk);
    let header = r#"{"alg":"ES512","kid":"k"}"#;
    let (signed, signature) = signed_by(&pair, header);
    assert_eq!(signature.len(), 132);
    assert_eq!(judged(&keys, &signed, &signature), None);
    let mut altered = signature.clone();
    altered[7] ^= 1;
    let (forged, by_another) = signed_by(&other, header);
    let (encoded, as_der) = signed_by(&der, header);
    for (keys, signed, signature) in [
        (&keys, &signed, &altered[..]),
        (&keys, &signed, &signature[1..]),
        (&keys, &signed, &[]),
        // What a careless verifier takes for a signature of anything (CVE-2022-21449).
        (&keys, &signed, &[0; 132]),
        (&keys, &forged, &by_another),
        // JSON web tokens have the two numbers side by side.
        (&set(&of_der), &encoded, &as_der),
    ] {
        assert_eq!(judged(keys, signed, signature), Some(Fault::BadSignature), "{signature:?}");
    }
    for confused in ["ES256", "ES384", "RS256", "EdDSA"] {
        let (signed, signature) = signed_by(&pair, &format!(r#"{{"alg":"{confused}","kid":"k"}}"#));
        assert_eq!(judged(&keys, &signed, &signature), Some(Fault::NoSuchKey), "{confused}");
    }
    let p256 = Issuer::new("k").jwk();
    for (name, value) in [
        ("alg", json!("ES256")),
        ("alg", json!("ES384")),
        ("crv", json!("P-256")),
        ("crv", json!("P-384")),
        ("x", jwk["y"].clone()),
        ("x", p256["x"].clone()),
        ("y", json!("AA")),
        ("use", json!("enc")),
    ] {
        let mut wrong = jwk.clone();
        wrong[name] = value.clone();
        assert!(set(&wrong).is_empty(), "{name}: {value}");
    }
    let mut of_p256 = p256;
    of_p256["alg"] = json!("ES512");
    assert!(set(&of_p256).is_empty());
    // Without an alg, the curve decides.
    let mut bare = jwk;
    bare.as_object_mut().unwrap().remove("alg");
    assert_eq!(judged(&set(&bare), &signed, &signature), None);
}

#[test]
fn keys_that_cannot_verify_are_skipped() {
    let good = Issuer::new("k").jwk();
    let altered = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    for (key, used) in [
        (good.clone(), true),
        (altered("use", json!("sig")), true),
        (altered("use", json!("enc")), false),
        (altered("key_ops", json!(["verify"])), true),
        (altered("key_ops", json!(["encrypt"])), false),
        (altered("alg", json!("RS256")), false),
        (altered("alg", json!("HS256")), false),
        (altered("crv", json!("P-521")), false),
        (altered("x", json!("***")), false),
        (json!({"kty": "oct", "k": "c2VjcmV0"}), false),
        (json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), false),
        (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), false),
        (json!({"kty": "new"}), false),
        (json!("k"), false),
    ] {
        let keys = Keys::parse(&json!({ "keys": [key] }).to_string()).unwrap();
        assert_eq!(!keys.is_empty(), used, "{key}");
        assert_eq!(keys.skipped().is_empty(), used, "{key}");
    }
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(Keys::parse(bad).is_err(), "{bad}");
    }
    assert!(Keys::parse(&json!({ "keys": vec![good; 33] }).to_string()).is_err());
    assert!(Keys::parse(&" ".repeat(MAX_KEYS_BYTES + 1)).is_err());
}

#[test]
fn claims_are_found_by_their_path() {
    let issuer = Issuer::new("k");
    let token = issuer.token(&with("a", json!({"b": {"c": 1}, "d": "x"})));
    let token = Token::parse(&token).unwrap();
    for (path, found) in [
        (&["sub"][..], json!("alice")),
        (&["a", "b", "c"], json!(1)),
        (&["a", "d"], json!("x")),
        (&["a", "d", "e"], Value::Null),
        (&["aud", "shop"], Value::Null),
        (&[], Value::Null),
    ] {
        let claim = token.claims.at(path.iter().copied());
        assert_eq!(claim.cloned().unwrap_or_default(), found, "{path:?}");
    }
}
