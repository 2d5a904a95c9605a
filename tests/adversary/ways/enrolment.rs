//! The race of leaving and joining the mesh: while a namespace is enrolled, nothing passes that its policies forbid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use parking_lot::RwLock;

use super::{DETAILS, VICTIM, ask, bookinfo, guarded, in_force, seen};
use crate::captured_in;
use crate::settle;
use crate::support::lab::curl::curl;
use crate::support::lab::{Lab, wait};

const ROUNDS: u32 = 3;
/// Requests of each attacker that a round takes at least.
const REQUESTS: u32 = 5;

/// For so many, on a machine that does much else; those that are refused in silence take their time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the namespace is enrolled and every pod of it captured. Written with no request under way.
type Enrolled = Arc<RwLock<bool>>;

/// Asks without end, on a connection for each request; the path says whether the namespace was enrolled.
struct Attack {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Attack {
    fn start(lab: &Lab, pod: &'static str, to: String, enrolled: Enrolled) -> Result<Self> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let namespace = lab.pod(pod)?.attachment.namespace.clone();
        let (stopped, count) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let enrolled = enrolled.read();
                let when = if *enrolled { "enrolled" } else { "left" };
                let url = format!("http://{to}/details/0?race={when}-{pod}");
                curl(&namespace, &["--max-time", "1", &url])?;
                count.fetch_add(1, Ordering::Relaxed);
                drop(enrolled);
                // Who wants to write must get its turn.
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        Ok(Self { stop, asked, thread })
    }

    fn wait_for_more(&self) -> Result<()> {
        let before = self.asked.load(Ordering::Relaxed);
        wait::within(PATIENCE, "the attackers' requests", || {
            let done = self.asked.load(Ordering::Relaxed);
            Ok((done >= before + REQUESTS).then_some(()))
        })
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("an attacker panicked"))?
    }
}

fn switch(enrolled: &Enrolled, to: bool) -> Result<()> {
    *enrolled.write() = to;
    Ok(())
}

#[test]
fn leaving_and_joining_the_mesh_lets_nobody_slip_through() -> Result<()> {
    let mut lab = guarded()?;
    let enrolled: Enrolled = Arc::new(RwLock::new(true));
    let pod = format!("{}:9080", lab.address(VICTIM)?);
    let service = "details.bookinfo:9080".to_owned();
    let attacks = [("attacker", pod.clone()), ("outsider", pod), ("accomplice", service)];
    let attacks = attacks.map(|(who, to)| Attack::start(&lab, who, to, enrolled.clone()));
    let attacks: Vec<Attack> = attacks.into_iter().collect::<Result<_>>()?;
    for _ in 0..ROUNDS {
        attacks.iter().try_for_each(Attack::wait_for_more)?;
        switch(&enrolled, false)?;
        lab.manifests.label(&bookinfo(), &["istio.io/dataplane-mode-"])?;
        settle(&lab, "outsider", &[DETAILS], 200)?;
        attacks.iter().try_for_each(Attack::wait_for_more)?;
        lab.manifests.label(&bookinfo(), &["istio.io/dataplane-mode=ambient"])?;
        captured_in(&lab, "bookinfo")?;
        switch(&enrolled, true)?;
    }
    attacks.iter().try_for_each(Attack::wait_for_more)?;
    attacks.into_iter().try_for_each(Attack::end)?;
    // It was open in between, so that there was something to slip through.
    ensure!(!seen(&lab, "race=left-outsider")?.is_empty());
    let slipped = seen(&lab, "race=enrolled")?;
    ensure!(slipped.is_empty(), "{} requests slipped through: {slipped:?}", slipped.len());
    in_force(&lab)?;
    ensure!(ask(&lab, ("curl", "GET"), ("details.bookinfo:9080", ""), "race-curl")? == 200);
    Ok(())
}
