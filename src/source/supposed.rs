//! Objects as they would be: with manifests applied, and with objects deleted.

use serde::{Deserialize, Serialize};

use super::Objects;
use super::manifest::{Content, Document, parse};
use super::objects::Kind;
use crate::base::ObjectKey;

/// A change that is not made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Supposed {
    /// Manifests, as `kubectl apply` would take them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<String>,
    /// `kind/namespace/name`, or `kind/name` of what has no namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
}

impl Supposed {
    pub fn is_nothing(&self) -> bool {
        self.applied.is_empty() && self.deleted.is_empty()
    }
}

impl Objects {
    /// The objects as they would be.
    ///
    /// # Errors
    /// What of the change would be refused, or what is to be deleted and is not there.
    pub fn suppose(mut self, supposed: &Supposed) -> Result<Self, String> {
        for deleted in &supposed.deleted {
            let id = id_of(deleted)?;
            if self.remove(&id).is_empty() {
                return Err(format!("--without {deleted}: there is no such object"));
            }
        }
        for text in &supposed.applied {
            for document in parse(text).iter() {
                self.take(document)?;
            }
        }
        Ok(self)
    }

    fn take(&mut self, document: &Document) -> Result<(), String> {
        match &document.content {
            Content::Object(object) => {
                let (kind, key) = (object.kind(), object.key());
                if let Some(error) = document.invalid.as_ref().or(document.meaningless.as_ref()) {
                    return Err(format!("{kind} {key}: {}: {}", error.field, error.reason));
                }
                self.insert((**object).clone());
                Ok(())
            }
            Content::Refused(refusal) => {
                Err(format!("document {}: {}: {}", document.number, refusal.field, refusal.reason))
            }
            Content::Ignored { kind, reason, .. } => {
                Err(format!("document {}: {kind}: {reason}", document.number))
            }
        }
    }
}

fn id_of(text: &str) -> Result<(Kind, ObjectKey), String> {
    let wrong = || format!("--without {text}: say kind/namespace/name, such as HTTPRoute/shop/web");
    let mut parts = text.split('/');
    let (Some(kind), Some(first), second, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let kind = Kind::all().find(|it| it.name().eq_ignore_ascii_case(kind));
    let kind = kind.ok_or_else(|| format!("--without {text}: no such kind is read"))?;
    Ok((
        kind,
        match second {
            Some(name) => ObjectKey::new(first, name),
            None => ObjectKey::new("", first),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
";

    #[test]
    fn objects_are_applied_replaced_and_deleted() {
        let key = ObjectKey::new("shop", "web");
        let ports = |objects: &Objects| {
            objects
                .get::<Service>(&key)
                .map(|it| it.spec.as_ref().and_then(|it| it.ports.as_ref()).map_or(0, Vec::len))
        };
        let apply = |text: &str| Supposed { applied: vec![text.to_owned()], ..Supposed::default() };
        let one = Objects::default().suppose(&apply(SERVICE)).unwrap();
        assert_eq!(ports(&one), Some(1));
        let more = SERVICE.replace("[{port: 80}]", "[{port: 80, name: a}, {port: 81, name: b}]");
        let two = one.suppose(&apply(&more)).unwrap();
        assert_eq!(ports(&two), Some(2));
        let delete =
            |text: &str| Supposed { deleted: vec![text.to_owned()], ..Supposed::default() };
        assert_eq!(ports(&two.clone().suppose(&delete("service/shop/web")).unwrap()), None);
        for (wrong, why) in [
            ("Service/shop/other", "no such object"),
            ("Service", "say kind/namespace/name"),
            ("Thing/shop/web", "no such kind"),
        ] {
            let error = two.clone().suppose(&delete(wrong)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_would_be_refused_is_told() {
        let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {rules: [{matches: [{path: {type: Wrong, value: /}}]}]}
";
        let supposed = Supposed { applied: vec![route.to_owned()], ..Supposed::default() };
        let error = Objects::default().suppose(&supposed).unwrap_err();
        assert!(error.contains("matches"), "{error}");
    }
}
