//! Reads and writes the Secret. Its keys are Istio's (`cacerts`), so that a CA for istiod can be used as it is; a
//! rotation has additional keys and annotations.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::state::{Material, Next, Old, State, timestamp};
use super::{CaError, SECRET};
use crate::identity::{CA_CERTIFICATE, CA_CHAIN, CA_KEY, CA_ROOTS, Pair};

/// The prefix of the keys of the CA that signs after the overlap.
const NEXT: &str = "next-";
/// The roots of the previous CA.
const OLD_ROOTS: &str = "old-root-cert.pem";
/// When the next CA's roots were published (RFC 3339).
const ANNOUNCED: &str = "isthmus.io/next-announced";
/// The roots to which that date belongs: a CA that replaces an announced one must be announced itself; otherwise it
/// would sign before any agent trusts it.
const ANNOUNCED_ROOTS: &str = "next-announced-root-cert.pem";
/// Until when the roots of the previous CA are trusted (RFC 3339).
const OLD_UNTIL: &str = "isthmus.io/old-root-until";
/// An operator sets it, to any value, to request a new root; removed once the root is created.
pub(super) const ROTATE: &str = "isthmus.io/rotate-root";

type Data = BTreeMap<String, ByteString>;

/// Reads the Secret. It does not parse the PEM.
///
/// # Errors
/// Names the key and what to put there.
pub(super) fn read(secret: &Secret) -> Result<State, CaError> {
    let empty = Data::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let signing = material(data, "")?.ok_or(CaError::Empty)?;
    let announced_roots = text(data, ANNOUNCED_ROOTS)?;
    let next = material(data, NEXT)?.map(|material| {
        let is_it = announced_roots.as_ref() == Some(&material.roots);
        let announced = time(secret, ANNOUNCED).filter(|_| is_it);
        Next { material, announced }
    });
    let old = text(data, OLD_ROOTS)?.map(|roots| Old { roots, until: time(secret, OLD_UNTIL) });
    let asked = annotation(secret, ROTATE).is_some();
    Ok(State { signing, next, old, asked })
}

/// Writes the state into the Secret; its other content stays.
pub(super) fn write(state: &State, secret: &mut Secret) {
    secret.metadata.name = Some(SECRET.to_owned());
    let data = secret.data.get_or_insert_default();
    put(data, "", Some(&state.signing));
    put(data, NEXT, state.next.as_ref().map(|next| &next.material));
    let announced = state.next.as_ref().filter(|next| next.announced.is_some());
    set(data, ANNOUNCED_ROOTS.to_owned(), announced.map(|next| &next.material.roots));
    set(data, OLD_ROOTS.to_owned(), state.old.as_ref().map(|old| &old.roots));
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let mut note = |key: &str, value: Option<String>| match value {
        Some(value) => drop(annotations.insert(key.to_owned(), value)),
        None => drop(annotations.remove(key)),
    };
    note(ANNOUNCED, state.next.as_ref().and_then(|next| next.announced).map(timestamp));
    note(OLD_UNTIL, state.old.as_ref().and_then(|old| old.until).map(timestamp));
    if !state.asked {
        note(ROTATE, None);
    }
}

/// `None` if none of the keys is there; a partial CA is an error.
fn material(data: &Data, prefix: &str) -> Result<Option<Material>, CaError> {
    let part = |name: &str| text(data, &format!("{prefix}{name}"));
    let (certificate, key, roots) = (part(CA_CERTIFICATE)?, part(CA_KEY)?, part(CA_ROOTS)?);
    let chain = part(CA_CHAIN)?.unwrap_or_default();
    let missing = |name: &str| CaError::Missing(format!("{prefix}{name}"));
    match (certificate, key, roots) {
        (None, None, None) => Ok(None),
        (None, _, _) => Err(missing(CA_CERTIFICATE)),
        (_, None, _) => Err(missing(CA_KEY)),
        (_, _, None) => Err(missing(CA_ROOTS)),
        (Some(certificate), Some(key), Some(roots)) => {
            Ok(Some(Material { pair: Pair { certificate, key }, chain, roots }))
        }
    }
}

fn text(data: &Data, key: &str) -> Result<Option<String>, CaError> {
    let Some(ByteString(bytes)) = data.get(key) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| CaError::NotText(key.to_owned()))?;
    Ok((!text.trim().is_empty()).then(|| text.to_owned()))
}

/// A malformed time counts as absent: it is set again, which only extends the overlap.
fn time(secret: &Secret, key: &str) -> Option<SystemTime> {
    let text = annotation(secret, key)?;
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a String> {
    secret.metadata.annotations.as_ref()?.get(key)
}

fn put(data: &mut Data, prefix: &str, material: Option<&Material>) {
    let parts = [
        (CA_CERTIFICATE, material.map(|it| &it.pair.certificate)),
        (CA_KEY, material.map(|it| &it.pair.key)),
        (CA_CHAIN, material.map(|it| &it.chain)),
        (CA_ROOTS, material.map(|it| &it.roots)),
    ];
    for (name, text) in parts {
        set(data, format!("{prefix}{name}"), text);
    }
}

fn set(data: &mut Data, key: String, text: Option<&String>) {
    match text {
        Some(text) => drop(data.insert(key, ByteString(text.clone().into_bytes()))),
        None => drop(data.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn material(name: &str) -> Material {
        let part = |what: &str| format!("{name} {what}");
        let pair = Pair { certificate: part("certificate"), key: part("key") };
        Material { pair, chain: part("chain"), roots: part("roots") }
    }

    fn filled() -> State {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        State {
            signing: material("now"),
            next: Some(Next { material: material("next"), announced: at(1_700_000_000) }),
            old: Some(Old { roots: "old roots".to_owned(), until: at(1_800_000_000) }),
            asked: false,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut secret = Secret::default();
        write(&filled(), &mut secret);
        assert!(read(&secret).is_ok_and(|state| state == filled()));
        let bare = State::new(material("now"));
        write(&bare, &mut secret);
        assert!(read(&secret).is_ok_and(|state| state == bare));
        assert_eq!(secret.data.unwrap().len(), 4, "nothing of the others is left");
    }

    #[test]
    fn what_others_put_there_stays() {
        let mut secret = Secret::default();
        secret.metadata.annotations = Some([("team".to_owned(), "a".to_owned())].into());
        secret.data = Some([("note".to_owned(), ByteString(b"n".to_vec()))].into());
        write(&filled(), &mut secret);
        assert!(annotation(&secret, "team").is_some());
        assert!(secret.data.unwrap().contains_key("note"));
    }

    #[test]
    fn another_next_ca_is_not_announced_by_the_date_of_the_one_before() {
        let mut secret = Secret::default();
        write(&filled(), &mut secret);
        let announced = |secret: &Secret| read(secret).unwrap().next.unwrap().announced;
        assert!(announced(&secret).is_some());
        // In its place, or after it was given up.
        put(secret.data.as_mut().unwrap(), NEXT, Some(&material("another")));
        assert_eq!(announced(&secret), None);
        // A key that signs under the roots that were announced.
        let renewed = Material { roots: material("next").roots, ..material("another") };
        put(secret.data.as_mut().unwrap(), NEXT, Some(&renewed));
        assert!(announced(&secret).is_some());
    }

    #[test]
    fn half_a_ca_is_refused_by_the_name_of_what_is_missing() {
        for (key, named) in [
            (CA_CERTIFICATE, CA_CERTIFICATE),
            (CA_KEY, CA_KEY),
            (CA_ROOTS, CA_ROOTS),
            ("next-ca-key.pem", "next-ca-key.pem"),
        ] {
            let mut secret = Secret::default();
            write(&filled(), &mut secret);
            secret.data.as_mut().unwrap().remove(key);
            let error = read(&secret).err().unwrap().to_string();
            assert!(error.starts_with(named), "{error}");
        }
        assert!(matches!(read(&Secret::default()), Err(CaError::Empty)));
    }

    proptest! {
        #[test]
        fn no_content_is_a_panic(
            data: BTreeMap<String, Vec<u8>>,
            known: [Option<Vec<u8>>; 4],
            time: String,
        ) {
            let mut data: Data = data.into_iter().map(|(key, it)| (key, ByteString(it))).collect();
            let keys = [CA_CERTIFICATE, CA_KEY, CA_ROOTS, OLD_ROOTS];
            for (key, bytes) in keys.into_iter().zip(known) {
                data.extend(bytes.map(|it| (key.to_owned(), ByteString(it))));
            }
            let mut secret = Secret { data: Some(data), ..Secret::default() };
            secret.metadata.annotations = Some([(OLD_UNTIL.to_owned(), time)].into());
            if let Ok(state) = read(&secret) {
                _ = super::super::Current::new(state, SystemTime::UNIX_EPOCH);
            }
        }
    }
}
