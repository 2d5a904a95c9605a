//! What bounds requests, attacked by the clients whom it bounds and by the application that helps to count: streams that are reset
//! before they are answered, keys without number, costs that are none, sessions that a client makes up, and storms of retries.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::memory::{self, agents};
use crate::siege::{
    END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, read_answer,
};
use crate::support::lab::curl::curl;
use crate::support::lab::manifests::Key;
use crate::support::lab::netns::Namespace;
use crate::support::lab::{Lab, PORT, wait};
use crate::{WAYPOINT, besieged, captured_in, settle};

const DETAILS: &str = "http://details.bookinfo:9080/details/0";
const VAULT: &str = include_str!("http.yaml");
const RESET: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(10);

/// Bookinfo behind its waypoint, the attacker beside it, and this.
fn guarded(more: &str) -> Result<Lab> {
    let mut lab = besieged(&[WAYPOINT])?;
    let namespace = Key::new("Namespace", "", "bookinfo");
    lab.manifests.label(&namespace, &["istio.io/use-waypoint=waypoint"])?;
    settle(&lab, "attacker", &[DETAILS], 200)?;
    lab.manifests.apply(more)?;
    Ok(lab)
}

/// A TrafficPolicy for a Service.
fn policy((namespace, service): (&str, &str), spec: &str) -> String {
    format!(
        "apiVersion: isthmus.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: bound, namespace: {namespace}}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, name: {service}}}]\n  {spec}\n"
    )
}

/// Has the application be slow, or fail.
fn trouble(lab: &Lab, how: &str) -> Result<()> {
    let url = format!("http://127.0.0.1:{PORT}/trouble?{how}");
    let answer = curl(&lab.pod("details-v1")?.attachment.namespace, &["-X", "POST", &url])?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

fn details(lab: &Lab) -> Result<SocketAddr> {
    Ok(SocketAddr::new(lab.service("bookinfo", "details")?[0], PORT))
}

/// Opens streams and resets each at once, as far as the server lets it; how many.
fn rapid_resets(to: SocketAddr) -> Result<usize> {
    const STREAMS: u32 = 100;
    let head = block(0x82, "/details/0", "details.bookinfo");
    let streams = (0..STREAMS).flat_map(|number| {
        let stream = 2 * number + 1;
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        // CANCEL.
        [opened, frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()
    });
    let all: Vec<u8> =
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat().into_iter().chain(streams).collect();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let sent = stream.write_all(&all).is_ok();
    _ = stream.read(&mut [0; 1024]);
    Ok(if sent { STREAMS as usize } else { 0 })
}

/// Places in a concurrency limit and in a circuit breaker come back, however many streams begin and are reset.
#[test]
fn streams_that_are_reset_leave_no_place_taken() -> Result<()> {
    const LIMIT: f64 = 8.0;
    let lab = guarded(&policy(
        ("bookinfo", "details"),
        "concurrencyLimit: {fixed: {requests: 8}}\n  circuitBreaker: {maxRequests: 40, endpoint: {maxRequests: 40}}",
    ))?;
    // So slow that all are in progress when they are reset.
    trouble(&lab, "delay=2000")?;
    wait::until("the limit", || {
        lab.curl("curl", &[DETAILS])?;
        Ok((lab.metrics()?.sum("isthmus_concurrency_limit", &[]) == LIMIT).then_some(()))
    })?;
    let to = details(&lab)?;
    let attacker = &lab.pod("attacker")?.attachment.namespace;
    let opened: usize = attacker.run(|| -> Result<usize> {
        let all = std::thread::scope(|scope| {
            let attacks = [(); 4].map(|()| {
                scope.spawn(move || (0..40).map(|_| rapid_resets(to)).sum::<Result<usize>>())
            });
            attacks.map(|it| it.join().unwrap_or_else(|_| anyhow::bail!("it panicked")))
        });
        all.into_iter().sum()
    })??;
    println!("{opened} streams were opened and reset");
    ensure!(opened > 40 * 10, "the attack itself: {opened}");
    trouble(&lab, "")?;
    wait::until("all places to be given back", || {
        let in_progress = lab.metrics()?.sum("isthmus_concurrency_in_progress", &[]);
        Ok((in_progress == 0.0).then_some(()))
    })?;
    // The attacker, too, is a client as any other from now on: what it took has come back.
    for pod in ["curl", "attacker"] {
        for _ in 0..10 {
            let answer = lab.curl(pod, &[DETAILS])?;
            ensure!(answer.status == 200, "{pod}: {answer:?}");
        }
    }
    Ok(())
}

/// Requests of one connection, several on their way at a time: how many were answered 200, with this value of `x-user` each.
fn asked(to: SocketAddr, users: impl Iterator<Item = String>) -> Result<usize> {
    const AT_ONCE: usize = 16;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut passed, mut users) = (0, users.peekable());
    while users.peek().is_some() {
        let batch: Vec<String> = users.by_ref().take(AT_ONCE).collect();
        let requests = batch.iter().map(|user| {
            format!("GET /details/0 HTTP/1.1\r\nHost: details.bookinfo\r\nx-user: {user}\r\n\r\n")
        });
        stream.write_all(requests.collect::<String>().as_bytes())?;
        let (mut text, mut buffer) = (String::new(), [0; 16 * 1024]);
        while text.matches("HTTP/1.1 ").count() < batch.len() {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "the connection ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        // Answers are short, and what is left of the last one is read with the next.
        passed += text.matches("HTTP/1.1 200").count();
    }
    Ok(passed)
}

/// The attacker makes up values of the header that a limit is keyed by. No more pass than the buckets have, whoever has used up its own
/// does not get it back, and the agents hold no more than before.
#[test]
fn keys_without_number_are_bounded_and_wash_no_bucket_clean() -> Result<()> {
    const KEYS: usize = 12_000;
    /// Buckets of a limit.
    const BUCKETS: usize = 8_192;
    let spec =
        "rateLimit: {local: {requests: 2, interval: 1h, keys: [{type: Header, header: x-user}]}}";
    let mut lab = guarded(&policy(("bookinfo", "details"), spec))?;
    let alice = ["-H", "x-user: alice", DETAILS];
    settle(&lab, "attacker", &alice, 429)?;
    let to = details(&lab)?;
    let processes = agents(&mut lab);
    let before = memory::all(&processes)?;
    let attacker = &lab.pod("attacker")?.attachment.namespace;
    let passed: usize = attacker.run(|| -> Result<usize> {
        let all = std::thread::scope(|scope| {
            let attacks = [0, 1, 2, 3].map(|part| {
                let users = (part..KEYS).step_by(4).map(|key| format!("{key}-{}", "x".repeat(200)));
                // Each twice, and once more.
                let users = users.flat_map(|user| [user.clone(), user.clone(), user]);
                scope.spawn(move || asked(to, users))
            });
            attacks.map(|it| it.join().unwrap_or_else(|_| anyhow::bail!("it panicked")))
        });
        all.into_iter().sum()
    })??;
    let after = memory::all(&processes)?;
    println!("{passed} of {} passed; KiB {before:?}, then {after:?}", 3 * KEYS);
    ensure!(passed <= 2 * BUCKETS, "{passed} passed");
    ensure!(passed >= BUCKETS, "{passed}: the attack itself");
    for (before, after) in before.iter().zip(after) {
        ensure!(after.saturating_sub(*before) < 24 * 1024, "{after} KiB of {before}");
    }
    // The bucket that is emptiest is forgotten last.
    ensure!(lab.curl("attacker", &alice)?.status == 429, "the flood has filled a bucket");
    Ok(())
}

/// What an application says that its response has cost, and what counts of it: at most 10.
const COSTS: [(&[&str], u64); 13] = [
    (&["3"], 3),
    (&["0"], 0),
    (&[], 0),
    (&["-1"], 10),
    (&["NaN"], 10),
    (&["inf"], 10),
    (&["1e3"], 10),
    (&["18446744073709551616"], 10),
    (&["99999999999999999999999999999"], 10),
    (&["4294967296"], 10),
    (&["0x1"], 10),
    (&["2", "3"], 5),
    (&["18446744073709551615", "18446744073709551615"], 10),
];

/// Answers `/N` with the N-th of these.
fn lying_application(namespace: &Namespace) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", PORT)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || _ = lie(stream));
        }
    });
    Ok(())
}

fn lie(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let number = head.strip_prefix("GET /").and_then(|it| it.split(' ').next()?.parse().ok());
        let costs = number.and_then(|number: usize| COSTS.get(number)).map_or(&[][..], |it| it.0);
        let fields: String = costs.iter().map(|cost| format!("x-cost: {cost}\r\n")).collect();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok");
        stream.write_all(answer.as_bytes())?;
    }
}

#[test]
fn a_response_that_lies_about_its_cost_costs_what_is_stated_at_most() -> Result<()> {
    let spec = "rateLimit:\n    headers: RateLimit\n    local:\n      requests: 1000\n      interval: 1h\n      keys: [{type: Identity}]\n      \
                cost: {request: 0, response: {header: x-cost, max: 10}}";
    let lab = besieged(&[VAULT, &policy(("vault", "vault-far"), spec)])?;
    captured_in(&lab, "vault")?;
    lying_application(&lab.pod("vault-far")?.attachment.namespace)?;
    let host = SocketAddr::new(lab.service("vault", "vault-far")?[0], PORT);
    // What is left of the client's bucket before this request costs anything.
    let left = |pod: &str, path: usize| -> Result<u64> {
        let answer = settle(&lab, pod, &[&format!("http://{host}/{path}")], 200)?;
        let told = answer.header("ratelimit").context("the state of the limit")?.to_owned();
        let left = told.split(';').find_map(|it| it.strip_prefix("r=")?.parse().ok());
        left.with_context(|| told.clone())
    };
    const NOTHING: usize = 2;
    left("attacker", NOTHING)?;
    for (number, (costs, expected)) in COSTS.iter().enumerate() {
        let before = left("attacker", number)?;
        let after = left("attacker", NOTHING)?;
        let cost = before - after.min(before);
        // Of a thousand an hour one comes back in 3.6 s.
        let comes_back = expected.saturating_sub(3)..=*expected;
        ensure!(comes_back.contains(&cost), "{costs:?} cost {cost}, not {expected}");
    }
    ensure!(left("stranger", NOTHING)? == 1000, "another client's bucket");
    Ok(())
}

/// Every token that a client may make up leads to an endpoint of the Service, and to nobody else.
#[test]
fn a_session_that_a_client_makes_up_leads_to_nobody_else() -> Result<()> {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let session = "sessionPersistence: {sessionName: s}";
    let both = [("bookinfo", "reviews"), ("bookinfo", "details")].map(|of| policy(of, session));
    let lab = guarded(&both.join("---\n").replacen("name: bound", "name: first", 1))?;
    let cookie = |service: &str| -> Result<String> {
        let url = format!("http://{service}.bookinfo:9080/headers");
        let found = wait::until("a session", || {
            let answer = lab.curl("attacker", &[&url])?;
            Ok(answer.header("set-cookie").map(str::to_owned))
        })?;
        Ok(found.split(';').next().unwrap_or_default().to_owned())
    };
    let (own, of_details) = (cookie("reviews")?, cookie("details")?);
    let bytes = |token: &[u8]| format!("s={}", URL_SAFE_NO_PAD.encode(token));
    let hashes = (0..64u32).map(|at| {
        let mut token = [0u8; 17];
        token[0] = 1;
        token[1..9].copy_from_slice(&fastrand::u64(..).to_be_bytes());
        // Of any time.
        token[9..].fill((at % 3) as u8 * 0x7f);
        bytes(&token)
    });
    let addresses = ["details-v1", "ratings-v1", "attacker"].map(|pod| lab.address(pod));
    let addresses = addresses.into_iter().collect::<Result<Vec<_>>>()?;
    let plain = addresses.iter().flat_map(|it| {
        let address = SocketAddr::new(*it, PORT).to_string();
        [format!("s={address}"), bytes(address.as_bytes())]
    });
    let made_up =
        [of_details, format!("{own}A"), "s=".to_owned(), bytes(&[1; 17]), bytes(&[0xff; 17])];
    let made_up: Vec<String> = made_up.into_iter().chain(hashes).chain(plain).collect();
    for (number, cookie) in made_up.iter().enumerate() {
        let url = format!("http://reviews.bookinfo:9080/headers?made-up-{number}-");
        let answer = lab.curl("attacker", &["-H", &format!("Cookie: {cookie}"), &url])?;
        ensure!(answer.status == 200, "{cookie}: {answer:?}");
    }
    let seen = |pod: &str| -> Result<usize> { Ok(lab.pod_log(pod)?.matches("made-up-").count()) };
    for pod in ["details-v1", "ratings-v1", "productpage-v1"] {
        ensure!(seen(pod)? == 0, "{pod} was reached");
    }
    wait::until("the endpoints to have seen all of them", || {
        let all = ["reviews-v1", "reviews-v2", "reviews-v3"].map(seen);
        let all: usize = all.into_iter().sum::<Result<usize>>()?;
        Ok((all == made_up.len()).then_some(()))
    })
}

/// As often as it may, over and over.
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: details, namespace: bookinfo}
spec:
  parentRefs: [{group: '', kind: Service, name: details}]
  rules:
  - backendRefs: [{name: details, port: 9080}]
    retry: {codes: [503], attempts: 3, backoff: 1ms}
";
/// A retry for each ten requests of an hour, and one besides.
const BUDGET: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: details, namespace: bookinfo}
spec:
  targetRefs: [{group: '', kind: Service, name: details}]
  retryConstraint:
    budget: {percent: 10, interval: 1h}
    minRetryRate: {count: 1, interval: 1h}
";

/// Requests to an application that fails, with this in their paths and these headers.
fn storm(lab: &Lab, mark: &str, headers: &str) -> Result<usize> {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    let to = details(lab)?;
    let request =
        format!("GET /details/0?{mark} HTTP/1.1\r\nHost: details.bookinfo\r\n{headers}\r\n");
    let send = || -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..EACH {
            stream.write_all(request.as_bytes())?;
            let answer = read_answer(&mut stream)?;
            ensure!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        }
        Ok(())
    };
    lab.pod("attacker")?.attachment.namespace.run(|| {
        std::thread::scope(|scope| {
            let clients = [(); CLIENTS].map(|()| scope.spawn(send));
            let ended =
                clients.map(|it| it.join().unwrap_or_else(|_| anyhow::bail!("it panicked")));
            ended.into_iter().collect::<Result<()>>()
        })
    })??;
    Ok(CLIENTS * EACH)
}

/// Whether the route asks for retries or the client does in its own headers, the application gets no more than the budget allows.
#[test]
fn a_storm_of_retries_stays_within_the_budget() -> Result<()> {
    let mut lab = guarded(ROUTE)?;
    trouble(&lab, "status=503")?;
    let came = |lab: &Lab, mark: &str| -> Result<usize> {
        Ok(lab.pod_log("details-v1")?.matches(&format!("?{mark}")).count())
    };
    wait::until("the route", || {
        settle(&lab, "curl", &[&format!("{DETAILS}?first")], 503)?;
        Ok((came(&lab, "first")? >= 4).then_some(()))
    })?;
    let sent = storm(&lab, "without", "")?;
    ensure!(came(&lab, "without")? == 4 * sent, "without a budget each is sent four times");
    lab.manifests.apply(BUDGET)?;
    // The budget is there when a request is sent once: the first ones use up what there is.
    let mut number = 0;
    wait::until("the budget", || {
        number += 1;
        let mark = format!("before-{number}-");
        settle(&lab, "attacker", &[&format!("{DETAILS}?{mark}")], 503)?;
        Ok((came(&lab, &mark)? == 1).then_some(()))
    })?;
    let greedy = "x-envoy-retry-on: 5xx,reset,retriable-4xx\r\nx-envoy-max-retries: 100\r\n";
    for (mark, headers) in [("by-route", ""), ("by-client", greedy)] {
        let sent = storm(&lab, mark, headers)?;
        let came = came(&lab, mark)?;
        println!("{mark}: {came} came of {sent}");
        // A few of those before may have left something of the budget.
        ensure!((sent..=sent + sent / 10 + 4).contains(&came), "{mark}: {came} of {sent}");
    }
    // Without a route the client's own wish is bounded alike.
    lab.manifests.delete(&Key::new("HTTPRoute", "bookinfo", "details"))?;
    std::thread::sleep(Duration::from_millis(500));
    let sent = storm(&lab, "no-route", greedy)?;
    let came = came(&lab, "no-route")?;
    ensure!((sent..=sent + sent / 10 + 4).contains(&came), "no route: {came} of {sent}");
    Ok(())
}
