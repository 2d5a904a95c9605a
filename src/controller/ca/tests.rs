//! A rotation as time passes, with real certificates: whoever trusts what is published at a moment can verify every
//! certificate that is still valid then.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::rotation::{Step, Times, Why, step};
use super::state::{Material, Next, State};
use super::{Authorities, Current, secret};
use crate::base::Str;
use crate::identity::{Pair, create_authority};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TIMES: Times = Times { overlap: DAY, lifetime: DAY };

/// What a replica has that has read the Secret of a CA of its own.
pub(in crate::controller) fn authorities() -> Authorities {
    let (now, authorities) = (SystemTime::now(), Authorities::default());
    authorities.set(Current::new(own(now), now).unwrap());
    authorities
}

fn domain() -> Str {
    "cluster.local".into()
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn own(now: SystemTime) -> State {
    State::new(Material::create(&domain(), now).unwrap())
}

/// A CA that an operator brought: a root that is not named as ours are.
fn brought(now: SystemTime) -> Material {
    let pair = create_authority("Example Root", &domain(), now).unwrap();
    Material { chain: String::new(), roots: pair.certificate.clone(), pair }
}

/// Takes the next step through the Secret, as the leader does; `None` while there is nothing to do.
fn advance(state: &mut State, now: SystemTime) -> Option<Step> {
    let current = Current::new(state.clone(), now).unwrap();
    let taken = step(state, &current.authority, TIMES, now);
    if matches!(taken, Step::Rest(_)) {
        return None;
    }
    let after = state.after(taken, TIMES, now, || Material::create(&domain(), now)).unwrap();
    let mut held = Secret::default();
    if state.asked {
        let asked = [(secret::ROTATE.to_owned(), "now".to_owned())];
        held.metadata.annotations = Some(asked.into());
    }
    secret::write(&after, &mut held);
    *state = secret::read(&held).unwrap();
    Some(taken)
}

fn rest(state: &State, now: SystemTime) -> Step {
    let current = Current::new(state.clone(), now).unwrap();
    step(state, &current.authority, TIMES, now)
}

/// Every certificate that is signed is trusted, as long as it is valid, by whoever knows the roots of that moment.
#[test]
fn nobody_meets_a_root_that_it_does_not_know() {
    let begin = start();
    let mut state = own(begin);
    state.asked = true;
    let mut signed: Vec<(SystemTime, String)> = Vec::new();
    let mut steps = Vec::new();
    for hour in 0..96 {
        let now = begin + HOUR * hour;
        while let Some(step) = advance(&mut state, now) {
            steps.push((hour, step));
        }
        let current = Current::new(state.clone(), now).unwrap();
        signed.push((now + TIMES.lifetime, state.signing.roots.clone()));
        for (until, roots) in signed.iter().filter(|(until, _)| *until > now) {
            let roots = crate::identity::certificates("", roots).unwrap();
            assert!(roots.iter().all(|it| current.trusted.contains(it)), "{hour} {until:?}");
        }
    }
    let expected =
        [(0, Step::Make(Why::Asked)), (0, Step::Announce), (24, Step::Switch), (49, Step::Forget)];
    assert_eq!(steps, expected);
    assert_eq!(Current::new(state, begin + 96 * HOUR).unwrap().trusted.len(), 1);
}

#[test]
fn a_root_of_our_own_is_replaced_in_the_last_tenth_of_its_life() {
    let begin = start();
    let mut state = own(begin);
    let Step::Rest(Some(until)) = rest(&state, begin) else { panic!("nothing is due") };
    let years = until.duration_since(begin).unwrap().as_secs_f64() / (365.0 * 86_400.0);
    assert!((8.9..=9.1).contains(&years), "{years}");
    assert_eq!(advance(&mut state, until), Some(Step::Make(Why::EndsSoon)));
    assert_eq!(advance(&mut state, until), Some(Step::Announce));
    assert_eq!(advance(&mut state, until), None);
}

#[test]
fn a_ca_that_was_brought_is_never_replaced_by_one_of_ours() {
    let begin = start();
    let mut state = State::new(brought(begin));
    assert_eq!(rest(&state, begin), Step::Rest(None));
    state.asked = true;
    assert_eq!(advance(&mut state, begin), Some(Step::Refuse));
    assert_eq!(advance(&mut state, begin), None, "it is said once");
    assert_eq!(rest(&state, begin + 3_600 * DAY), Step::Rest(None));
}

#[test]
fn a_ca_can_be_brought_with_an_overlap() {
    let begin = start();
    let mut state = own(begin);
    let theirs = brought(begin);
    state.next = Some(Next { material: theirs.clone(), announced: None });
    assert_eq!(advance(&mut state, begin), Some(Step::Announce));
    assert_eq!(advance(&mut state, begin + DAY - HOUR), None);
    assert_eq!(advance(&mut state, begin + DAY), Some(Step::Switch));
    assert!(state.signing == theirs && state.next.is_none());
    assert_eq!(Current::new(state.clone(), begin + DAY).unwrap().trusted.len(), 2);
    assert_eq!(advance(&mut state, begin + 2 * DAY), None, "its last certificates have not ended");
    assert_eq!(advance(&mut state, begin + 2 * DAY + HOUR), Some(Step::Forget));
}

#[test]
fn a_second_rotation_waits_for_the_first() {
    let begin = start();
    let mut state = own(begin);
    state.asked = true;
    advance(&mut state, begin);
    advance(&mut state, begin);
    state.asked = true;
    assert_eq!(advance(&mut state, begin + DAY), Some(Step::Switch));
    assert_eq!(advance(&mut state, begin + DAY), None);
    assert_eq!(advance(&mut state, begin + 3 * DAY), Some(Step::Forget));
    assert_eq!(advance(&mut state, begin + 3 * DAY), Some(Step::Make(Why::Asked)));
}

#[test]
fn old_roots_that_an_operator_put_there_are_dated() {
    let begin = start();
    let mut state = own(begin);
    let roots = brought(begin).roots;
    state.old = Some(super::state::Old { roots, until: None });
    assert_eq!(advance(&mut state, begin), Some(Step::Date));
    assert_eq!(advance(&mut state, begin), None);
    assert_eq!(advance(&mut state, begin + DAY + HOUR), Some(Step::Forget));
}

#[test]
fn a_ca_that_agents_would_not_trust_is_refused() {
    let now = start();
    let refused =
        |material: Material| Current::new(State::new(material), now).err().unwrap().to_string();
    let (one, other) = (brought(now), brought(now));
    let error = refused(Material { roots: other.roots.clone(), ..one.clone() });
    assert!(error.contains("check that the chain is complete"), "{error}");
    let pair = Pair { key: other.pair.key.clone(), ..one.pair.clone() };
    let error = refused(Material { pair, ..one.clone() });
    assert!(error.contains("does not belong to"), "{error}");
    let error = refused(Material { roots: "nothing".to_owned(), ..one.clone() });
    assert!(error.contains("root-cert.pem holds no certificate"), "{error}");
    let late = Current::new(State::new(one), now + 4_000 * DAY).err().unwrap().to_string();
    assert!(late.contains("expired"), "{late}");
}

/// As Istio's own scripts make them: an intermediate that signs, below another one, below a root.
#[test]
fn a_ca_below_other_cas_needs_its_chain_and_no_more() {
    let now = start();
    let ca = |name: &str, parent: Option<&(String, rcgen::CertifiedIssuer<'static, KeyPair>)>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - DAY).into();
        params.not_after = (now + 100 * DAY).into();
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = key.serialize_pem();
        let made = match parent {
            Some((_, parent)) => rcgen::CertifiedIssuer::signed_by(params, key, parent),
            None => rcgen::CertifiedIssuer::self_signed(params, key),
        };
        (pem, made.unwrap())
    };
    let root = ca("root", None);
    let upper = ca("upper", Some(&root));
    let (key, lower) = ca("lower", Some(&upper));
    let pair = Pair { certificate: lower.pem(), key };
    let (upper, root) = (upper.1.pem(), root.1.pem());
    let with = |chain: String| {
        let material = Material { pair: pair.clone(), chain, roots: root.clone() };
        Current::new(State::new(material), now)
    };
    for chain in
        [upper.clone(), format!("{}{upper}", lower.pem()), format!("{}{upper}{root}", lower.pem())]
    {
        let current = with(chain).unwrap();
        assert_eq!(current.trusted.len(), 1);
        assert!(!current.state.signing.is_own(&current.authority));
    }
    let error = with(String::new()).err().unwrap().to_string();
    assert!(error.contains("check that the chain is complete"), "{error}");
}
