//! Open connections that share a decision, and what wakes them.
//!
//! Fifty thousand open connections must not be re-evaluated because another tenant's route changed. The decision about
//! a connection depends on a few facts that most connections of a workload share (the port, the addressed service).
//! Such a class has one decision, which is re-evaluated once for all of its connections when a world is published. The
//! connections are woken only if it differs from the previous one.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{World, WorldStore};

/// Changes when connections must be re-evaluated.
pub type JudgementChanges = watch::Receiver<u64>;

/// The most classes of one workload. Unused ones are evicted; a connection that gets no class is woken by any change
/// that may affect the workload.
const MAX_CLASSES: usize = 1024;
/// The most classes of one tenant: a tenant that creates many names for another tenant's workload uses up its own
/// classes, and takes none from others.
const MAX_OF_TENANT: usize = 256;

/// The key of a class, and the tenant that caused it.
pub trait Classed: Hash + Eq + Send + Sync + 'static {
    /// The namespace that caused the class.
    fn tenant(&self) -> &str;
}

/// Computes the decision of a class over a world.
type Make<V> = Box<dyn Fn(&World) -> V + Send + Sync>;

/// The classes of one workload's connections, by key.
pub struct Judged<K, V> {
    store: Weak<WorldStore>,
    classes: papaya::HashMap<K, Arc<Class<V>>>,
    /// Held while classes are removed, which is rare.
    removing: Mutex<()>,
    /// Wakes connections without a class.
    any: watch::Sender<u64>,
}

struct Class<V> {
    make: Make<V>,
    /// The generation and the decision. Locked when a class is created and when a world is published, never for a
    /// connection.
    current: Mutex<(u64, V)>,
    told: watch::Sender<u64>,
    /// It is removed, or about to be: a caller that finds it looks again.
    retired: AtomicBool,
}

/// An object whose decisions depend on worlds.
pub(super) trait Follow: Send + Sync {
    /// Re-evaluates over a world that is published already.
    fn follow(&self, world: &World);
}

impl<V: PartialEq> Class<V> {
    /// `None` for a removed class.
    fn join(&self) -> Option<JudgementChanges> {
        let changes = self.told.subscribe();
        // Either this sees that the class was retired, or the retiring thread sees the receiver.
        fence(Ordering::SeqCst);
        (!self.retired.load(Ordering::Relaxed)).then_some(changes)
    }

    /// Whether it has no connections, from now on.
    fn retire(&self) -> bool {
        if !self.told.is_closed() {
            return false;
        }
        self.retired.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let nobody = self.told.is_closed();
        self.retired.store(nobody, Ordering::Relaxed);
        nobody
    }

    /// Wakes the connections of the class if their decision has changed.
    fn follow(&self, world: &World) {
        let mut current = self.current.lock();
        if current.0 >= world.generation {
            return;
        }
        current.0 = world.generation;
        let judged = (self.make)(world);
        if current.1 != judged {
            current.1 = judged;
            self.told.send_modify(|count| *count += 1);
        }
    }
}

impl<K, V> Judged<K, V>
where
    K: Classed,
    V: PartialEq + Send + 'static,
{
    pub(super) fn new(store: &Arc<WorldStore>) -> Arc<Self> {
        let (store, any) = (Arc::downgrade(store), watch::Sender::new(0));
        Arc::new(Self { store, classes: papaya::HashMap::new(), removing: Mutex::new(()), any })
    }

    /// Announces when connections of this class must be re-evaluated. Subscribe before you load the world for the
    /// decision, so that no change is missed.
    pub fn changes<M>(&self, key: K, make: impl FnOnce() -> M) -> JudgementChanges
    where
        M: Fn(&World) -> V + Send + Sync + 'static,
    {
        let classes = self.classes.pin();
        if let Some(changes) = classes.get(&key).and_then(|class| class.join()) {
            return changes;
        }
        let Some(store) = self.store.upgrade() else { return self.any.subscribe() };
        if self.is_full_for(key.tenant()) {
            self.remove_unused();
        }
        if self.is_full_for(key.tenant()) {
            return self.any.subscribe();
        }
        let world = store.snapshot();
        let told = watch::Sender::new(0);
        let changes = told.subscribe();
        let make = Box::new(make());
        let current = Mutex::new((world.generation, make(&world)));
        let class = Arc::new(Class { make, current, told, retired: AtomicBool::new(false) });
        if let Err(found) = classes.try_insert(key, class.clone()) {
            return found.current.join().unwrap_or_else(|| self.any.subscribe());
        }
        // A world that was published before the class was registered did not reach it.
        let now = store.snapshot();
        if now.generation != world.generation {
            class.follow(&now);
        }
        changes
    }

    fn is_full_for(&self, tenant: &str) -> bool {
        let classes = self.classes.pin();
        let own = || classes.keys().filter(|key| key.tenant() == tenant).count();
        classes.len() >= MAX_CLASSES || classes.len() >= MAX_OF_TENANT && own() >= MAX_OF_TENANT
    }

    fn remove_unused(&self) {
        let _alone = self.removing.lock();
        self.classes.pin().retain(|_, class| !class.retire());
    }
}

impl<K, V> Follow for Judged<K, V>
where
    K: Classed,
    V: PartialEq + Send + 'static,
{
    fn follow(&self, world: &World) {
        self.remove_unused();
        self.classes.pin().values().for_each(|class| class.follow(world));
        if !self.any.is_closed() {
            self.any.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::base::Str;
    use crate::model::{
        Action, AuthorizationPolicy, HttpRoute, Mesh, PolicyTarget, Scope, Service,
    };
    use crate::world::fixture::{Fixture, backend, key, policy, route, rule, service, workload};

    const CONNECTIONS: usize = 50_000;

    impl Classed for u16 {
        fn tenant(&self) -> &str {
            "shop"
        }
    }

    /// Of a namespace, by number.
    impl Classed for (&'static str, usize) {
        fn tenant(&self) -> &str {
            self.0
        }
    }

    fn web() -> Str {
        workload("web", "10.0.0.1").uid
    }

    /// A shop, and a namespace beside it; what does not change is shared, as sources do.
    fn base() -> Mesh {
        let (web, other) = (workload("web", "10.0.0.1"), workload("evil/other", "10.0.0.2"));
        let services =
            [service("web", "10.96.0.1", &[&web]), service("evil/shop", "10.96.0.2", &[&other])];
        let base = services.into_iter().fold(Fixture::default(), Fixture::service);
        base.workload(web).workload(other).route(own_route()).mesh
    }

    fn own_route() -> HttpRoute {
        route("own", "web", vec![rule(vec![backend("web", 1)])])
    }

    /// The same with a route of namespace `evil`.
    fn with(base: &Mesh, route: HttpRoute) -> Mesh {
        let mut mesh = base.clone();
        mesh.routes.insert(0, Arc::new(route));
        mesh
    }

    fn guarded(base: &Mesh) -> Mesh {
        let scope = Scope::Targets(vec![PolicyTarget::Service("web".into())]);
        let policy: AuthorizationPolicy = policy("p", Action::Deny, scope, Vec::new());
        Mesh { policies: vec![Arc::new(policy)], ..base.clone() }
    }

    /// Whether policies name the service.
    fn judge(world: &World) -> bool {
        world.service_policies(&key("web")).is_some_and(|set| !set.is_empty())
    }

    #[test]
    fn another_tenants_routes_wake_none_of_fifty_thousand_connections() {
        let (store, base, judgements) =
            (crate::world::fixture::store(), base(), Arc::new(AtomicUsize::new(0)));
        store.publish(base.clone());
        let judged: Arc<Judged<u16, bool>> = store.judged(Some(&web()));
        let count = judgements.clone();
        let open: Vec<JudgementChanges> = (0..CONNECTIONS)
            .map(|_| {
                let count = count.clone();
                judged.changes(8080, || {
                    move |world: &World| {
                        count.fetch_add(1, Ordering::Relaxed);
                        judge(world)
                    }
                })
            })
            .collect();
        let woken = || open.iter().filter(|it| it.has_changed().unwrap()).count();
        let own =
            |turn| route("evil/own", "evil/shop", vec![rule(vec![backend("evil/shop", turn)])]);
        (1..=100).for_each(|turn| _ = store.publish(with(&base, own(turn))));
        assert_eq!((woken(), judgements.load(Ordering::Relaxed)), (0, 1), "nothing to do with it");
        let consumer = |turn| route("evil/consumer", "web", vec![rule(vec![backend("web", turn)])]);
        (1..=100).for_each(|turn| _ = store.publish(with(&base, consumer(turn))));
        assert_eq!(woken(), 0);
        assert_eq!(judgements.load(Ordering::Relaxed), 101, "once for all of them each time");
        store.publish(guarded(&base));
        assert_eq!(woken(), CONNECTIONS, "a policy of their own");
    }

    #[test]
    fn what_the_workloads_namespace_says_is_told_apart_from_what_others_say() {
        let (store, base) = (crate::world::fixture::store(), base());
        store.publish(base.clone());
        let mut own = store.judgement_changes(&web());
        let mut told = |mesh: Mesh| {
            store.publish(mesh);
            let told = own.has_changed().unwrap();
            own.mark_unchanged();
            told
        };
        let consumer = route("evil/consumer", "web", vec![rule(vec![backend("web", 1)])]);
        assert!(!told(with(&base, consumer)), "a consumer's route");
        let mut led = base.clone();
        let leads = service("evil/leads", "10.96.0.3", &[&workload("web", "10.0.0.1")]);
        led.services.insert(0, Arc::new(leads));
        assert!(!told(led.clone()), "another namespace's service with the same endpoint");
        led.services[0] = Arc::new(Service { endpoints: Vec::new(), ..(*led.services[0]).clone() });
        assert!(!told(led), "its endpoints flap");
        let rerouted = Mesh { routes: Vec::new(), ..base.clone() };
        assert!(told(rerouted), "a route of its own namespace");
        assert!(told(base.clone()));
        assert!(told(guarded(&base)), "a policy");
    }

    #[test]
    fn classes_are_bounded_and_nobody_is_forgotten() {
        let (store, base) = (crate::world::fixture::store(), base());
        store.publish(base.clone());
        let judged: Arc<Judged<(&str, usize), bool>> = store.judged(Some(&web()));
        let tenants = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let join = |class: usize| judged.changes((tenants[class % tenants.len()], class), || judge);
        // Those that nobody is of any more give way.
        (0..2 * MAX_CLASSES).for_each(|class| drop(join(class)));
        assert!(judged.classes.len() <= MAX_CLASSES);
        let open: Vec<_> = (0..2 * MAX_CLASSES).map(join).collect();
        assert!(judged.classes.len() <= MAX_CLASSES);
        store.publish(guarded(&base));
        assert!(open.iter().all(|changes| changes.has_changed().unwrap()));
        drop(open);
        store.publish(base);
        assert_eq!(judged.classes.len(), 0);
    }

    /// A thousand names that a tenant made for somebody else's workload wake nobody but whoever uses them.
    #[test]
    fn no_tenant_takes_the_places_of_others() {
        let (store, base) = (crate::world::fixture::store(), base());
        store.publish(base.clone());
        let judged: Arc<Judged<(&str, usize), bool>> = store.judged(Some(&web()));
        let join = |class| judged.changes(class, || judge);
        let evil: Vec<_> = (0..2 * MAX_CLASSES).map(|name| join(("evil", name))).collect();
        let own: Vec<_> = (0..10).map(|name| join(("shop", name))).collect();
        let leads = service("evil/leads", "10.96.0.3", &[&workload("web", "10.0.0.1")]);
        let mut flapped = base.clone();
        flapped.services.insert(0, Arc::new(leads));
        store.publish(flapped);
        let woken = |all: &[JudgementChanges]| all.iter().any(|it| it.has_changed().unwrap());
        assert!(woken(&evil) && !woken(&own));
        store.publish(guarded(&base));
        assert!(evil.iter().chain(&own).all(|it| it.has_changed().unwrap()), "all are told");
    }

    /// Whoever joins while worlds are published, and is judged after that, is woken when the last one judges otherwise.
    #[test]
    fn no_change_is_missed_by_who_joins_meanwhile() {
        let (store, base) = (crate::world::fixture::store(), base());
        for _ in 0..300 {
            store.publish(base.clone());
            let judged: Arc<Judged<u16, bool>> = store.judged(Some(&web()));
            let (changes, seen) = std::thread::scope(|scope| {
                scope.spawn(|| store.publish(guarded(&base)));
                let changes = judged.changes(0, || judge);
                let seen = judge(&store.load());
                (changes, seen)
            });
            let now = judge(&store.load());
            assert!(now && (seen == now || changes.has_changed().unwrap()));
        }
    }
}
