//! Names below wildcards (ServiceEntry `DYNAMIC_DNS`): resolved when a client asks for them, as the client resolves names, and checked
//! before anybody connects to what the answer says.
//!
//! Clients choose the names, so that everything here has a bound for a workload, for its namespace, and in sum. A name that finds no
//! place is resolved each time that it is asked for. Whoever answers for a domain chooses the addresses: [`refused`] says which of
//! them lead nowhere.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::addresses::{self, Families};
use super::name::{Known, Name};
use super::{Own, Ready, Resolver, Unresolved, endpoints};
use crate::base::{Reason, Str, reachable};
use crate::model::{Binding, Service, Workload};
use crate::sock::SocketFactory;
use crate::world::{Owner, World};

/// Names of one workload.
const MOST_NAMES: usize = 512;
/// Names of all workloads of a namespace on this node.
const MOST_OF_NAMESPACE: usize = 4096;
/// Names of all workloads on this node.
const MOST_IN_SUM: usize = 32_768;
/// Names of one workload that are being asked for; others wait.
const MOST_QUESTIONS: usize = 64;
/// How long all resolvers together may take: Envoy's (`dns_query_timeout`).
const PATIENCE: Duration = Duration::from_secs(5);

/// How many names are kept.
#[derive(Default)]
pub(super) struct Counts {
    sum: Arc<AtomicUsize>,
    namespaces: papaya::HashMap<Str, Arc<AtomicUsize>>,
}

/// The names of one workload.
pub(super) struct Names {
    all: papaya::HashMap<Str, Arc<Below>>,
    questions: Semaphore,
    of_namespace: Arc<AtomicUsize>,
    sum: Arc<AtomicUsize>,
}

/// One name.
struct Below {
    name: Name,
    /// The entry that was last asked for it. Two entries rarely have the same names.
    ready: ArcSwapOption<Ready>,
    _place: Option<Place>,
}

/// Among the names that are kept.
struct Place([Arc<AtomicUsize>; 2]);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.iter().for_each(|count| _ = count.fetch_sub(1, Ordering::Relaxed));
    }
}

impl Counts {
    pub(super) fn names(&self, namespace: &Str) -> Names {
        let namespaces = self.namespaces.pin();
        Names {
            all: papaya::HashMap::new(),
            questions: Semaphore::new(MOST_QUESTIONS),
            of_namespace: namespaces.get_or_insert_with(namespace.clone(), Arc::default).clone(),
            sum: self.sum.clone(),
        }
    }

    /// Forgets namespaces that have no workload here any more.
    pub(super) fn tidy(&self) {
        self.namespaces.pin().retain(|_, count| Arc::strong_count(count) > 1);
    }
}

impl Names {
    /// `None`: all places are taken.
    fn place(&self) -> Option<Place> {
        let bounds = [(&self.of_namespace, MOST_OF_NAMESPACE), (&self.sum, MOST_IN_SUM)];
        for (count, _) in bounds {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let place = Place(bounds.map(|(count, _)| count.clone()));
        let fits = bounds.iter().all(|(count, most)| count.load(Ordering::Relaxed) <= *most);
        fits.then_some(place)
    }

    fn name(&self, text: &Str) -> Arc<Below> {
        let all = self.all.pin();
        if let Some(below) = all.get(text) {
            return below.clone();
        }
        if all.len() >= MOST_NAMES {
            all.retain(|_, below| below.name.is_in_use());
        }
        let place = if all.len() < MOST_NAMES { self.place() } else { None };
        let is_kept = place.is_some();
        let below = Below { name: Name::default(), ready: ArcSwapOption::empty(), _place: place };
        let below = Arc::new(below);
        match is_kept {
            true => all.get_or_insert(text.clone(), below).clone(),
            false => below,
        }
    }

    /// The names that are kept, and what is known of them.
    pub(super) fn known(&self) -> Vec<(Str, Arc<Known>)> {
        let all = self.all.pin();
        all.iter().filter_map(|(text, below)| Some((text.clone(), below.name.last()?))).collect()
    }
}

impl Resolver {
    /// As [`endpoints`](Self::endpoints), of a name that the service's wildcard covers, in lower case.
    ///
    /// # Errors
    /// The name has no address that may be connected to; the error says why, for the log.
    pub async fn below(
        &self,
        client: &Workload,
        sockets: &Arc<dyn SocketFactory>,
        service: &Arc<Service>,
        name: &str,
    ) -> Result<Arc<Service>, Unresolved> {
        let own = self.own(client);
        let generation = self.world.load().generation;
        let ready = own.below.all.pin().get(name).and_then(|below| below.ready.load_full());
        if let Some(ready) = ready.filter(|ready| ready.holds(service, generation)) {
            return Ok(ready.service.clone());
        }
        // Rare and large.
        Box::pin(self.make_below(&own, client, sockets.as_ref(), service, name)).await
    }

    async fn make_below(
        &self,
        own: &Own,
        client: &Workload,
        sockets: &dyn SocketFactory,
        service: &Arc<Service>,
        text: &str,
    ) -> Result<Arc<Service>, Unresolved> {
        let failed = |why| {
            let (service, reason) = (service.to_string(), Reason::DnsFailure);
            Unresolved { service, why, reason }
        };
        let name = Str::from(text);
        let below = own.below.name(&name);
        let families = Families::of(client);
        let asked = below.name.known(|| async {
            // The semaphore is never closed. Who waits for too long is not heard of again.
            let _question = own.below.questions.acquire().await.ok();
            addresses::ask(&own.resolvers, sockets, &name, families).await
        });
        let Ok(known) = timeout(PATIENCE, asked).await else {
            return Err(failed(format!("{name}: no resolver answered within {PATIENCE:?}")));
        };
        if let Some(why) = known.failure(&name) {
            return Err(failed(why));
        }
        let world = self.world.snapshot();
        let refused = |address: &IpAddr| refused(&world, service, &client.key.namespace, *address);
        let permitted = known.addresses.iter().copied().filter(|it| refused(it).is_none());
        let made = Arc::new(endpoints::below(&world, service, &name, permitted));
        if made.endpoints.iter().all(|endpoint| endpoint.addresses.is_empty()) {
            let address = known.addresses.iter().find_map(|it| Some((it, refused(it)?)));
            let why = match address {
                Some((address, why)) => format!("{name}: its address {address} {why}"),
                None => format!("{name}: a Service of the mesh has its address, and no endpoint"),
            };
            return Err(failed(why));
        }
        below.ready.store(Some(Arc::new(Ready {
            of: service.clone(),
            generation: world.generation,
            until: known.until,
            service: made.clone(),
        })));
        Ok(made)
    }
}

/// Why an address that somebody's DNS server gave is not connected to for clients of this namespace. What the mesh knows as a
/// Service or a workload is reached as such, and its own agent judges.
fn refused(world: &World, service: &Service, namespace: &str, address: IpAddr) -> Option<String> {
    if let Some(why) = reachable::refused(address, &[]) {
        return Some(why.to_owned());
    }
    if is_allotted(address) {
        return Some("is one that the mesh gives to ServiceEntries".to_owned());
    }
    for port in service.endpoints.iter().flat_map(|endpoint| &endpoint.ports) {
        let Some(Owner::Service(other)) = world.owner_of(address, port.target, namespace) else {
            continue;
        };
        if other.entry.is_some() && other.key != service.key && other.waypoint != Binding::None {
            return Some(format!("belongs to {other}, whose waypoint must not be passed by"));
        }
    }
    None
}

/// 2001:2::/48, of which ServiceEntries without an address get one. Those of IPv4 are reserved ones, which nobody connects to.
fn is_allotted(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    address.segments()[..3] == Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).segments()[..3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortMapping, Resolution};
    use crate::world::fixture::{Fixture, bound_to, service, workload};

    fn wildcard() -> Service {
        let pod = workload("x", "192.0.2.1");
        let mut entry = service("wide", "240.240.0.1", &[&pod]);
        let endpoint = &mut entry.endpoints[0];
        (endpoint.workload, endpoint.addresses) = (None, Vec::new());
        endpoint.ports = vec![PortMapping { port: 80, target: 443 }];
        Service {
            entry: Some("wide".into()),
            hostname: "*.example.org".into(),
            resolution: Resolution::Dynamic,
            waypoint: bound_to("wp"),
            ..entry
        }
    }

    fn entry(name: &str, address: &str, port: u16) -> Service {
        let mut entry = service(name, address, &[]);
        entry.ports[0].port = port;
        Service { entry: Some(name.into()), hostname: format!("{name}.example").into(), ..entry }
    }

    #[test]
    fn no_answer_leads_to_metadata_to_the_mesh_itself_or_past_another_entrys_waypoint() {
        let guarded = |entry: Service| Service { waypoint: bound_to("wp"), ..entry };
        let world = Fixture::default()
            .service(wildcard())
            .service(guarded(entry("guarded", "203.0.113.1", 443)))
            .service(guarded(entry("other-port", "203.0.113.2", 8443)))
            .service(entry("open", "203.0.113.3", 443))
            .workload(workload("pod", "10.0.0.5"))
            .service(service("web", "10.96.0.1", &[]))
            .build();
        let wide = wildcard();
        for (address, permitted) in [
            ("198.51.100.7", true),
            ("2001:db8::7", true),
            // Judged at their destinations.
            ("10.0.0.5", true),
            ("10.96.0.1", true),
            ("203.0.113.1", false),
            // It takes every port of its address, and has none like this.
            ("203.0.113.2", false),
            ("203.0.113.3", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("240.240.0.1", false),
            ("2001:2::1", false),
            ("2001:2:0:1::1", false),
            ("2001:3::1", true),
            ("224.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            let refused = refused(&world, &wide, "shop", address.parse().unwrap());
            assert_eq!(refused.is_none(), permitted, "{address}: {refused:?}");
        }
    }

    #[test]
    fn names_have_places_of_their_namespace_and_in_sum() {
        let counts = Counts::default();
        let (one, two) = (counts.names(&"a".into()), counts.names(&"a".into()));
        let of_other = counts.names(&"b".into());
        let places: Vec<_> = (0..MOST_OF_NAMESPACE).map(|_| one.place().unwrap()).collect();
        assert!(two.place().is_none(), "of the same namespace");
        assert!(of_other.place().is_some());
        drop(places);
        assert!(two.place().is_some());
        assert_eq!(counts.sum.load(Ordering::Relaxed), 0);
        for index in 0..2 * MOST_NAMES {
            one.name(&format!("{index}.example.org").into());
        }
        assert!(one.all.len() <= MOST_NAMES, "idle ones make room");
        drop((one, two));
        counts.tidy();
        assert_eq!(counts.namespaces.len(), 1);
        assert_eq!(counts.sum.load(Ordering::Relaxed), 0);
    }
}
