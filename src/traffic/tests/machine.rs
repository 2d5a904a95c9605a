//! The state machine of ejections against a plain model of it, over random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ENDPOINTS: u8 = 4;
const THRESHOLD: u32 = 3;
const INTERVAL: u64 = 10_000;
const BASE: u64 = 30_000;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(u8),
    /// The oldest attempt at the endpoint ends like this; `None`: its client gives up.
    End(u8, Option<bool>),
    Pass(u16),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Serving,
    Ejected(u64),
    /// Until when the request is waited for that is on its way there, if there is one.
    Probing(Option<u64>),
}

/// One endpoint, as it should be.
struct Model {
    state: State,
    row: u32,
    times: u64,
    returned: u64,
    /// Attempts, each with whether it probes.
    under_way: Vec<bool>,
}

impl Model {
    fn pass(&mut self, now: u64) {
        match self.state {
            State::Ejected(until) | State::Probing(Some(until)) if until <= now => {
                self.state = State::Probing(None);
            }
            _ => {}
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 1..=ENDPOINTS;
    let step = prop_oneof![
        4 => number.clone().prop_map(Step::Begin),
        4 => (number, prop::option::weighted(0.9, prop::bool::weighted(0.3)))
            .prop_map(|(number, result)| Step::End(number, result)),
        1 => (0u16..40_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..300)
}

fn ejected_of(models: &[Model]) -> usize {
    models.iter().filter(|model| matches!(model.state, State::Ejected(_))).count()
}

/// Whether it is ejected.
fn eject(models: &mut [Model], index: usize, now: u64, most: usize) -> bool {
    if ejected_of(models) >= most {
        return false;
    }
    let model = &mut models[index];
    let quiet = if matches!(model.state, State::Probing(_)) { 0 } else { now - model.returned };
    model.times = model.times.saturating_sub(quiet / INTERVAL) + 1;
    let ends = now + (BASE * model.times).min(300_000);
    model.state = State::Ejected(ends.div_ceil(INTERVAL) * INTERVAL);
    model.row = 0;
    true
}

async fn follows_the_model(
    steps: Vec<Step>,
    max_ejection_percent: u32,
) -> Result<(), TestCaseError> {
    let outliers = OutlierDetection {
        consecutive_errors: THRESHOLD,
        interval: Duration::from_millis(INTERVAL),
        base_ejection_time: Duration::from_millis(BASE),
        max_ejection_percent,
        ..OutlierDetection::default()
    };
    let most = outliers.most_ejected(u32::from(ENDPOINTS)) as usize;
    let destination = destination(outliers);
    let start = tokio::time::Instant::now();
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap();
    let fresh =
        || Model { state: State::Serving, row: 0, times: 0, returned: 0, under_way: Vec::new() };
    let mut models: Vec<Model> = (0..ENDPOINTS).map(|_| fresh()).collect();
    let mut attempts: Vec<Vec<Attempt>> = (0..ENDPOINTS).map(|_| Vec::new()).collect();
    for step in steps {
        models.iter_mut().for_each(|model| model.pass(now()));
        match step {
            Step::Pass(millis) => advance(Duration::from_millis(u64::from(millis))).await,
            Step::Begin(number) => {
                let index = usize::from(number - 1);
                let model = &mut models[index];
                let expected = !matches!(model.state, State::Ejected(_) | State::Probing(Some(_)));
                let attempt = attempt(&destination, number, u32::from(ENDPOINTS));
                prop_assert_eq!(attempt.is_some(), expected);
                let Some(attempt) = attempt else { continue };
                attempts[index].push(attempt);
                model.under_way.push(model.state == State::Probing(None));
                if model.state == State::Probing(None) {
                    model.state = State::Probing(Some(now() + INTERVAL));
                }
            }
            Step::End(number, result) => {
                let index = usize::from(number - 1);
                if attempts[index].is_empty() {
                    continue;
                }
                destination.are_some_out();
                let mut attempt = attempts[index].remove(0);
                let probes = models[index].under_way.remove(0);
                let status = result.map(|good| if good { 200 } else { 500 });
                if let Some(status) = status {
                    attempt.heard(Heard::Status(status));
                }
                drop(attempt);
                let state = models[index].state;
                match (probes, result) {
                    // Another one has decided.
                    (true, _) if !matches!(state, State::Probing(_)) => {}
                    (true, None) => models[index].state = State::Probing(None),
                    (true, Some(good)) if good || !eject(&mut models, index, now(), most) => {
                        let model = &mut models[index];
                        (model.state, model.row, model.returned) = (State::Serving, 0, now());
                    }
                    (false, Some(true)) if state == State::Serving => models[index].row = 0,
                    (false, Some(false)) if state == State::Serving => {
                        models[index].row += 1;
                        if models[index].row >= THRESHOLD {
                            models[index].row = 0;
                            eject(&mut models, index, now(), most);
                        }
                    }
                    _ => {}
                }
            }
        }
        models.iter_mut().for_each(|model| model.pass(now()));
        let found: BTreeSet<SocketAddr> = ejected(&destination).into_iter().collect();
        let expected = (1..=ENDPOINTS).zip(&models);
        let expected = expected.filter(|(_, model)| matches!(model.state, State::Ejected(_)));
        let expected: BTreeSet<SocketAddr> = expected.map(|(number, _)| endpoint(number)).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert!(found.len() <= most);
        let all_serve = models.iter().all(|model| model.state == State::Serving);
        prop_assert_eq!(destination.are_some_out(), !all_serve);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ejections_follow_the_model(steps in steps(), percent in prop::sample::select(vec![10, 50, 99, 100])) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follows_the_model(steps, percent))?;
    }
}
