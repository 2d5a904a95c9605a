//! The leader's duties for the CA: creates it, publishes its roots, and performs the steps of a rotation.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::rotation::{Step, Times, Why, step};
use super::state::{Material, State};
use super::{Authorities, CaError, Current, SECRET, publish, secret};
use crate::base::{ObjectKey, Seldom};
use crate::controller::cluster::{RequestError, is_conflict};
use crate::controller::events::{self, Regarding, Told, Trouble};
use crate::controller::{Context, FIELD_MANAGER};

/// The longest interval between checks of the ConfigMap and the clock.
const LOOK: Duration = Duration::from_secs(30);
/// The backoff after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// The timeout of one round, some requests to the API server.
const ROUND: Duration = Duration::from_secs(30);

/// Keeps the CA until the term ends.
pub(in crate::controller) async fn keep(
    context: Arc<Context>,
    authorities: Authorities,
    term: CancellationToken,
) {
    let mut changes = authorities.changes();
    let keeper = Keeper {
        secrets: Api::namespaced(context.client.clone(), &context.settings.namespace),
        times: Times {
            overlap: context.settings.root_overlap,
            lifetime: context.settings.max_lifetime,
        },
        context,
        authorities,
        told: Mutex::default(),
    };
    let trouble = Seldom::new();
    let rounds = async {
        loop {
            changes.mark_unchanged();
            let pause = match timeout(ROUND, keeper.round()).await {
                Ok(Ok(pause)) => pause,
                Ok(Err(why)) => keeper.complain(&trouble, &why.to_string()),
                Err(_) => keeper.complain(&trouble, "the API server did not answer in time"),
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    };
    term.run_until_cancelled(rounds).await;
}

struct Keeper {
    secrets: Api<Secret>,
    times: Times,
    context: Arc<Context>,
    authorities: Authorities,
    told: Mutex<Told>,
}

impl Keeper {
    /// Performs the steps that are due, and returns how long none will be.
    async fn round(&self) -> Result<Duration, CaError> {
        let Some(held) = self.secrets.get_opt(SECRET).await.map_err(RequestError::from)? else {
            self.create().await?;
            return Ok(Duration::ZERO);
        };
        let now = SystemTime::now();
        // The watcher of the Secret has logged what is wrong with it.
        let current = match secret::read(&held).and_then(|state| Current::new(state, now)) {
            Ok(current) => current,
            Err(error) => {
                self.tell(&held, &error.to_string()).await?;
                return Ok(LOOK);
            }
        };
        publish::publish(&self.context, &current.trusted).await?;
        self.look_at_next(&current.state, now)?;
        match step(&current.state, &current.authority, self.times, now) {
            Step::Rest(until) => {
                let left = until.and_then(|it| it.duration_since(now).ok()).unwrap_or(LOOK);
                Ok(left.min(LOOK))
            }
            step => {
                let make = || Material::create(&self.context.trust_domain, now);
                let state = current.state.after(step, self.times, now, make)?;
                self.replace(held, &state, step).await?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// An Event on the Secret, for operators who do not read this replica's log.
    async fn tell(&self, secret: &Secret, reason: &str) -> Result<(), CaError> {
        let regarding = Regarding {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            key: ObjectKey::new(self.context.settings.namespace.clone(), SECRET),
            uid: secret.metadata.uid.clone().unwrap_or_default(),
        };
        let goes_on = match self.authorities.current() {
            Some(_) => "the last good one keeps signing until the controller restarts",
            None => "no certificate can be signed until it is repaired",
        };
        let note = format!("{reason}; {goes_on}");
        let trouble = Trouble { regarding, reason: "CannotSign".to_owned(), note };
        let due = self.told.lock().due([trouble], Instant::now());
        for trouble in due {
            let published = events::publish(&self.context.client, &self.context.replica, &trouble);
            published.await.map_err(|error| {
                self.told.lock().failed(&trouble);
                CaError::Event(error.into())
            })?;
        }
        Ok(())
    }

    /// A next CA that cannot sign must not become the current one.
    fn look_at_next(&self, state: &State, now: SystemTime) -> Result<(), CaError> {
        let Some(next) = &state.next else { return Ok(()) };
        let usable = next.material.authority(now);
        usable.map(drop).map_err(|error| CaError::Next(Box::new(error)))
    }

    /// Creates the Secret: with the CA that was last in force, if this replica knows one.
    async fn create(&self) -> Result<(), CaError> {
        let known = self.authorities.current();
        let state = match &known {
            Some(current) => current.state.clone(),
            None => State::new(Material::create(&self.context.trust_domain, SystemTime::now())?),
        };
        let mut made = Secret { type_: Some("Opaque".to_owned()), ..Secret::default() };
        secret::write(&state, &mut made);
        match self.secrets.create(&parameters(), &made).await {
            Ok(_) if known.is_some() => {
                tracing::warn!(secret = SECRET, "the CA's Secret was written back");
            }
            Ok(_) => tracing::info!(secret = SECRET, "created a new CA"),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(RequestError::from(error).into()),
        }
        Ok(())
    }

    /// Replaces the Secret in the version that was read, so that no other change is overwritten.
    async fn replace(&self, mut held: Secret, state: &State, step: Step) -> Result<(), CaError> {
        secret::write(state, &mut held);
        match self.secrets.replace(SECRET, &parameters(), &held).await {
            Ok(_) => tell(step),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(RequestError::from(error).into()),
        }
        Ok(())
    }

    fn complain(&self, trouble: &Seldom, why: &str) -> Duration {
        if trouble.is_due() {
            tracing::warn!(
                secret = SECRET,
                why,
                "cannot update the CA; the one in force keeps signing"
            );
        }
        PAUSE
    }
}

fn tell(step: Step) {
    match step {
        Step::Rest(_) => {}
        Step::Make(Why::Asked) => tracing::info!("created a new root: an operator requested it"),
        Step::Make(Why::EndsSoon) => {
            tracing::info!(
                "created a new root: the present one is in the last tenth of its lifetime"
            );
        }
        Step::Announce => {
            tracing::info!("the next root is trusted now; it signs after the overlap")
        }
        Step::Switch => {
            tracing::info!("the next root signs now; the previous one is still trusted")
        }
        Step::Date => tracing::info!("set the date after which the old root is no longer trusted"),
        Step::Forget => tracing::info!("the old root is no longer trusted"),
        Step::Refuse => tracing::error!(
            secret = SECRET,
            "the annotation {} is only for CAs that the controller created; put the next CA into the keys next-*",
            secret::ROTATE
        ),
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
