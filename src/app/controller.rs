//! `isthmus controller`, put together: the same log, metrics and ports as an agent, without a data path.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::settings::{LOG_FLUSH, addresses, translate_settings};
use crate::admin::{Admin, ConnectionFilter, Dump, Readiness, Servers};
use crate::config::Settings;
use crate::controller::Controller;
use crate::quota::broker::Census;
use crate::source;
use crate::takeover::Inherited;
use crate::telemetry::{self, Logs, Telemetry};

/// Threads: one signs while another computes statuses.
const THREADS: usize = 2;

/// Runs a replica of the controller until SIGTERM, SIGINT or `POST /quitquitquit`.
///
/// # Errors
/// What kept it from starting, with the setting or file to look at.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let logs = telemetry::init_logs(
        &settings.log.level,
        settings.log.format,
        settings.log.max_queued_bytes,
    )?;
    telemetry::report_panics();
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("controller")
        .enable_all()
        .build()
        .context("start the controller's runtime")?;
    let ran = runtime.block_on(serve(settings, logs.clone()));
    runtime.shutdown_background();
    logs.flush(LOG_FLUSH);
    ran
}

async fn serve(settings: Settings, logs: Arc<Logs>) -> anyhow::Result<()> {
    let (quit, cancel) = (CancellationToken::new(), CancellationToken::new());
    let telemetry = Telemetry::new(logs.clone());
    telemetry.watch_runtimes("controller", &[Handle::current()]);
    let servers = Servers::bind(addresses(&settings), &Inherited::default())?;
    let client = source::client(settings.source.kubeconfig.as_deref()).await?;
    let readiness = Readiness::default();
    let can_sign = readiness.register("ca");
    let translate = translate_settings(&settings);
    let controller = Controller::bind(client, &settings, translate, telemetry.clone()).await?;
    let controller = Arc::new(controller);
    let admin = Admin {
        telemetry: telemetry.clone(),
        logs,
        readiness,
        layer4: vec![Handle::current()],
        dump: Arc::new(View {
            settings: settings.clone(),
            controller: controller.clone(),
            telemetry,
        }),
        observe: None,
        quit: quit.clone(),
        scrapes: Default::default(),
    };
    let admin_cancel = CancellationToken::new();
    let admin_task = tokio::spawn(servers.serve(admin, admin_cancel.clone()));
    let until = cancel.clone();
    let ready = move |ready| can_sign.set(ready);
    let mut running = tokio::spawn(async move { controller.run(ready, until).await });
    tracing::info!(replica = %settings.node, "the controller runs");
    let ended = tokio::select! {
        told = until_told(&quit) => {
            told?;
            cancel.cancel();
            (&mut running).await
        }
        ended = &mut running => ended,
    };
    ended.context("the controller")??;
    admin_cancel.cancel();
    admin_task.await.context("administration")?;
    tracing::info!("the controller ends");
    Ok(())
}

async fn until_told(quit: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = quit.cancelled() => {}
    }
    Ok(())
}

/// What the controller shows of itself.
struct View {
    settings: Settings,
    controller: Arc<Controller>,
    telemetry: Telemetry,
}

impl Dump for View {
    fn dump(&self) -> Value {
        json!({ "settings": self.settings, "controller": self.status() })
    }

    fn status(&self) -> Value {
        json!({
            "replica": self.settings.node,
            "version": env!("CARGO_PKG_VERSION"),
            "leads": self.controller.leadership().is_held(),
            "ca": self.controller.ca_status(),
            "exchange": self.controller.exchange(),
        })
    }

    /// It carries none.
    fn connections(&self, _: &ConnectionFilter) -> Value {
        json!({ "total": 0, "leftOut": 0, "connections": [] })
    }

    fn pending(&self) -> usize {
        0
    }

    fn refresh(&self) {
        let leads = self.controller.leadership().is_held();
        let metrics = self.telemetry.controller();
        metrics.leads.set(leads.into());
        let Census { nodes, limits, keys } = self.controller.exchange();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.exchange_nodes.set(count(nodes));
        metrics.exchange_limits.set(count(limits));
        metrics.exchange_keys.set(count(keys));
    }
}
