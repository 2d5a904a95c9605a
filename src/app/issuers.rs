//! What `isthmus status` says of issuers whose keys this node cannot fetch. It is beside what is wrong with objects, because an
//! operator looks there; the objects themselves may be as they should be.

use crate::jwks;
use crate::source::{Complaint, Severity};
use crate::world::World;

/// One for each RequestAuthentication that names an address from which the last fetch failed.
pub(super) fn faults(world: &World) -> Vec<Complaint> {
    let mut faults = Vec::new();
    for set in world.keys.sets() {
        let known = set.known();
        let Some(failure) = &known.failure else { continue };
        let effect = match known.keys.is_some() {
            true => "the last good keys are used",
            false => "there are none, so that tokens of this issuer are answered with 401",
        };
        let reason = format!("this node cannot fetch the keys at {}: {failure}; {effect}", set.uri);
        let objects = jwks::named_by(&world.mesh, &set.uri).filter_map(|it| it.as_of_tokens());
        faults.extend(objects.map(|key| Complaint {
            origin: None,
            kind: "RequestAuthentication".into(),
            object: Some(key),
            field: "spec.jwtRules".to_owned(),
            severity: Severity::Warning,
            reason: reason.clone(),
            condition: None,
            topic: None,
        }));
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::base::ObjectKey;
    use crate::jwt::fixture::Issuer;
    use crate::jwt::{KeySource, KeyWait, Keys, KeysUri, Known};
    use crate::model::{IssuerKeys, Scope};
    use crate::policy::fixture::{token_rule, tokens};
    use crate::world::fixture::Fixture;

    #[test]
    fn an_object_is_told_of_while_its_keys_cannot_be_fetched() {
        let uri = Arc::new(KeysUri::parse("https://issuer.example/keys").unwrap());
        let source =
            Arc::new(KeySource { uri, namespace: "shop".into(), timeout: Duration::from_secs(5) });
        let mut rule = token_rule(&Issuer::new("k"));
        rule.keys = IssuerKeys::Remote(source.clone());
        let policy = tokens(&ObjectKey::new("shop", "users"), Scope::Namespace, vec![rule]);
        let world = Fixture::default().policy(policy).build();
        assert_eq!(faults(&world), []);

        // Somebody wants them.
        let _wait = KeyWait::new(&world.keys, &[source]);
        let set = world.keys.sets()[0].clone();
        let learn = |keys: Option<Keys>, failure: Option<&str>| {
            let (begun, next) = (Some(Instant::now()), Instant::now());
            set.learn(Known { keys, begun, next, failure: failure.map(Into::into) });
        };
        for (keys, effect) in [(None, "are answered with 401"), (Some(Keys::none()), "last good")] {
            learn(keys, Some("the server answers 500"));
            let told: Vec<String> = faults(&world).iter().map(ToString::to_string).collect();
            let start = "RequestAuthentication shop/users: spec.jwtRules: this node cannot fetch the keys at \
                         https://issuer.example/keys: the server answers 500; ";
            assert!(told.len() == 1 && told[0].starts_with(start), "{told:?}");
            assert!(told[0].contains(effect), "{told:?}");
        }
        learn(Some(Keys::none()), None);
        assert_eq!(faults(&world), []);
    }
}
