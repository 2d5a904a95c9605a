//! Why a token is refused, in the words that Istio's users know (Envoy, `jwt_verify_lib`).

/// What is wrong with a token, or with what it would be verified by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TooLong,
    BadFormat,
    HeaderBase64,
    HeaderJson,
    /// `alg` is missing or no text.
    BadAlgorithm,
    /// `none`, a shared secret, or what nobody knows.
    UnknownAlgorithm,
    BadKeyId,
    /// An extension that must be understood (RFC 7515, 4.1.11); none is.
    Critical,
    PayloadBase64,
    PayloadJson,
    BadIssuer,
    BadSubject,
    BadAudience,
    BadExpiry,
    BadNotBefore,
    SignatureBase64,
    UnknownIssuer,
    NotYetValid,
    Expired,
    WrongAudience,
    /// No key of the issuer fits the token's key id and algorithm.
    NoSuchKey,
    BadSignature,
    /// The issuer has no key that can be used.
    NoKeys,
    /// The issuer's keys are not there.
    NotFetched,
    /// A request must bring one token at the most: which one counts would be anybody's guess.
    Multiple,
}

impl Fault {
    /// The body of the answer. Where Envoy knows the fault, the text is Envoy's.
    pub fn text(self) -> &'static str {
        match self {
            Fault::TooLong => "Jwt is too long",
            Fault::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Fault::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Fault::HeaderJson => "Jwt header is an invalid JSON",
            Fault::BadAlgorithm => "Jwt header [alg] field is required and must be a string",
            Fault::UnknownAlgorithm => "Jwt header [alg] is not supported",
            Fault::BadKeyId => "Jwt header [kid] field is not a string",
            Fault::Critical => "Jwt header [crit] is not supported",
            Fault::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Fault::PayloadJson => "Jwt payload is an invalid JSON",
            Fault::BadIssuer => "Jwt payload [iss] field is not a string",
            Fault::BadSubject => "Jwt payload [sub] field is not a string",
            Fault::BadAudience => "Jwt payload [aud] field is not a string or string list",
            Fault::BadExpiry => "Jwt payload [exp] field is not an integer",
            Fault::BadNotBefore => "Jwt payload [nbf] field is not an integer",
            Fault::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Fault::UnknownIssuer => "Jwt issuer is not configured",
            Fault::NotYetValid => "Jwt not yet valid",
            Fault::Expired => "Jwt is expired",
            Fault::WrongAudience => "Audiences in Jwt are not allowed",
            Fault::NoSuchKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Fault::BadSignature => "Jwt verification fails",
            Fault::NoKeys => "Jwks doesn't have any valid public key",
            Fault::NotFetched => "Jwks remote fetch is failed",
            Fault::Multiple => "Found multiple Jwt tokens",
        }
    }

    /// The bearer is known, and may not come here: 403 rather than 401, as Envoy has it.
    pub fn is_known_bearer(self) -> bool {
        self == Fault::WrongAudience
    }
}
