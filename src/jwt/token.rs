//! What a token says, before anybody has verified it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::{Fault, json};

/// The longest token that is read, in bytes: a quarter of what the head of a request may have.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token in its parts.
pub struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// Header and payload, which the signature is of.
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    pub claims: Claims,
}

/// The payload of a token.
#[derive(Clone, PartialEq)]
pub struct Claims {
    pub issuer: String,
    pub subject: Option<String>,
    pub audiences: Vec<String>,
    pub(super) expires: Option<u64>,
    pub(super) not_before: Option<u64>,
    /// All of them.
    pub all: Map<String, Value>,
    /// As the token has it, in base64url.
    pub payload: String,
}

impl<'a> Token<'a> {
    /// Takes a token apart. What it says is not verified.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Fault::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::BadFormat);
        };
        let (algorithm, key_id) = read_header(header)?;
        let claims = Claims::read(payload)?;
        BASE64URL.decode(signature).map_err(|_| Fault::SignatureBase64)?;
        let signed = &text[..header.len() + 1 + payload.len()];
        Ok(Self { algorithm, key_id, signed, signature, claims })
    }
}

impl Token<'_> {
    /// Whether an issuer that has changed its keys explains why the token was refused. Keys of one id are one key.
    pub fn may_be_of_newer_keys(&self, fault: Fault) -> bool {
        match fault {
            Fault::NoSuchKey | Fault::NoKeys | Fault::NotFetched => true,
            Fault::BadSignature => self.key_id.is_none(),
            _ => false,
        }
    }
}

fn read_header(text: &str) -> Result<(Algorithm, Option<String>), Fault> {
    let bytes = BASE64URL.decode(text).map_err(|_| Fault::HeaderBase64)?;
    let header = json::object(&bytes).ok_or(Fault::HeaderJson)?;
    let Some(Value::String(name)) = header.get("alg") else { return Err(Fault::BadAlgorithm) };
    let algorithm = Algorithm::named(name).ok_or(Fault::UnknownAlgorithm)?;
    if header.contains_key("crit") {
        return Err(Fault::Critical);
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(Fault::BadKeyId),
    };
    Ok((algorithm, key_id))
}

impl Claims {
    fn read(text: &str) -> Result<Self, Fault> {
        let bytes = BASE64URL.decode(text).map_err(|_| Fault::PayloadBase64)?;
        let all = json::object(&bytes).ok_or(Fault::PayloadJson)?;
        Ok(Self {
            issuer: string(&all, "iss", Fault::BadIssuer)?.unwrap_or_default(),
            subject: string(&all, "sub", Fault::BadSubject)?,
            audiences: audiences(&all)?,
            expires: seconds(&all, "exp", Fault::BadExpiry)?,
            not_before: seconds(&all, "nbf", Fault::BadNotBefore)?,
            all,
            payload: text.to_owned(),
        })
    }

    /// The claim at a path of names.
    pub fn at<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Option<&Value> {
        let mut path = path.into_iter();
        let mut found = self.all.get(path.next()?)?;
        for name in path {
            found = found.as_object()?.get(name)?;
        }
        Some(found)
    }
}

fn string(
    claims: &Map<String, Value>,
    name: &str,
    otherwise: Fault,
) -> Result<Option<String>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(otherwise),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|it| it.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or(Fault::BadAudience)
        }
        Some(_) => Err(Fault::BadAudience),
    }
}

/// Seconds since 1970, which may have a fraction (RFC 7519, 2).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
fn seconds(
    claims: &Map<String, Value>,
    name: &str,
    otherwise: Fault,
) -> Result<Option<u64>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let number = value.as_f64().filter(|it| (0.0..=9e15).contains(it));
    number.map(|it| Some(it as u64)).ok_or(otherwise)
}
