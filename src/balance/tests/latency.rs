//! Peak EWMA over simulated time: three endpoints, of which one gets slow and fast again, and a stream of requests.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::traffic::{Balancer, OutlierDetection, Policy, Ports};
use http::StatusCode;

const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_millis(500);
/// Between two requests: five are in flight while all endpoints are fast.
const STEP: Duration = Duration::from_millis(2);

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8080))
}

/// What a client sees of three endpoints.
struct Simulation {
    world: Arc<World>,
    destination: Arc<Destination>,
    /// Each with the time of its response.
    in_flight: VecDeque<(Instant, Picked, Ended)>,
}

impl Simulation {
    fn new(outliers: Option<OutlierDetection>) -> Self {
        let world = three();
        let mut echo = Service::clone(world.service(&key("echo")).unwrap());
        let policy = Policy { balancer: Some(Balancer::PeakEwma), outliers, ..Policy::default() };
        let destination = Arc::new(Destination::new("web".into(), policy));
        echo.traffic.set(None, Ports::from([(80, destination.clone())]));
        let pods = (1..=3).map(|n| workload(&format!("pod-{n}"), &format!("10.0.0.{n}")));
        let world = pods.fold(Fixture::default().service(echo), Fixture::workload).build();
        Self { world, destination, in_flight: VecDeque::new() }
    }

    /// Sends requests for so long. Gives the share of the third endpoint, and its greatest number of requests in flight.
    async fn run(&mut self, duration: Duration, third: (Duration, StatusCode)) -> (f64, usize) {
        let ends = Instant::now() + duration;
        let (mut all, mut of_third, mut most) = (0u32, 0u32, 0);
        while Instant::now() < ends {
            self.finish();
            let picked = pick_from(&self.world, &[]).unwrap();
            let is_third = picked.address == address(3);
            let (takes, status) = if is_third { third } else { (FAST, StatusCode::OK) };
            let done = Instant::now() + takes;
            self.in_flight.push_back((done, picked, Ended::Answered(status)));
            all += 1;
            of_third += u32::from(is_third);
            let now = self.in_flight.iter().filter(|(_, picked, _)| picked.address == address(3));
            most = most.max(now.count());
            tokio::time::advance(STEP).await;
        }
        (f64::from(of_third) / f64::from(all), most)
    }

    fn finish(&mut self) {
        let now = Instant::now();
        for (done, mut picked, how) in std::mem::take(&mut self.in_flight) {
            match done <= now {
                true => picked.ended(how),
                false => self.in_flight.push_back((done, picked, how)),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_is_left_and_comes_back_without_a_herd() {
    fastrand::seed(11);
    let ok = StatusCode::OK;
    let mut simulation = Simulation::new(None);
    let (share, _) = simulation.run(Duration::from_secs(5), (FAST, ok)).await;
    assert!((0.25..0.42).contains(&share), "{share}");
    let (share, most) = simulation.run(Duration::from_secs(20), (SLOW, ok)).await;
    assert!(share < 0.02, "{share}");
    assert!(most <= 8, "{most} at once");
    // Its estimate falls with time, a request is tried, and more of them as it answers.
    let mut last = 0.0;
    for _ in 0..12 {
        let (share, most) = simulation.run(Duration::from_secs(5), (FAST, ok)).await;
        assert!(most <= 6, "{most} at once");
        last = share;
    }
    assert!((0.25..0.42).contains(&last), "{last}");
}

/// It answers at once, with errors: neither is it fast, nor does it draw all requests when its ejection has ended.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_is_left_and_one_that_returns_draws_no_herd() {
    fastrand::seed(12);
    let fails = (Duration::from_millis(1), StatusCode::SERVICE_UNAVAILABLE);
    let mut simulation = Simulation::new(None);
    simulation.run(Duration::from_secs(2), (FAST, StatusCode::OK)).await;
    let (share, _) = simulation.run(Duration::from_secs(20), fails).await;
    assert!(share < 0.02, "{share}");

    let outliers = OutlierDetection { consecutive_errors: 1, ..OutlierDetection::default() };
    let mut simulation = Simulation::new(Some(outliers));
    simulation.run(Duration::from_secs(2), (FAST, StatusCode::OK)).await;
    simulation.run(Duration::from_secs(15), fails).await;
    assert!(simulation.destination.ejected().is_some());
    let (_, most) = simulation.run(Duration::from_secs(40), (FAST, StatusCode::OK)).await;
    assert!(simulation.destination.ejected().is_none());
    assert!(most <= 6, "{most} at once");
    let (share, _) = simulation.run(Duration::from_secs(5), (FAST, StatusCode::OK)).await;
    assert!((0.25..0.42).contains(&share), "{share}");
}
