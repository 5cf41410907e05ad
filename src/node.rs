//! The node that a service embeds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::limiter::{Founding, Limiter};
use tallymesh_engine::replica::{Counters, Verification, next_run};
use tallymesh_engine::{Difference, Now, Replica, Settings, Structure, Time};
use tallymesh_schemas::config::{LimitsConfig, OutboundLimits};
use tallymesh_schemas::saved::Facts;
use tallymesh_schemas::{Actor, Class, NodeName, Strength, StructureId, StructureSpec, ThrottleSpec, bound};
use tallymesh_transport::{Endpoint, Joining};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::audit::Audit;
use crate::builder::{Builder, StartError, rand_seed};
use crate::cache::Cache;
use crate::changes::Changes;
use crate::cidr::Cidr;
use crate::clock::Clock;
use crate::command::{Command, Forgetting, ask};
use crate::declared;
use crate::driver::Driver;
use crate::events::{Events, NodeGone, announcer};
use crate::gauge::GaugeCache;
use crate::limits::Limits;
use crate::names::{BindingDomains, Domains};
use crate::series::Series;
use crate::settings;
use crate::shared::{Member, ObjectError, Shared};
use crate::state::{NotTaken, Opened, Saving, StateError, StateStanding};
use crate::throttle::{Permits, Throttle, ThrottleError};
use crate::topology::Topology;

/// Commands that may wait for the driver.
const COMMANDS: usize = 64;

/// A running node. Cheap to clone. When the last clone is dropped, the node leaves the cluster as with [`Node::shutdown`].
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// The connection to the driver task, and the end of the node.
impl Node {
    /// Configures a node with this name. The node's certificate must be for the same name.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) async fn start(mut builder: Builder) -> Result<Self, StartError> {
        let clock = Clock::start();
        builder.transport.incarnation.checked()?;
        let identity = builder.take_identity()?;
        let name = identity.name().clone();
        builder.limits = declared::checked(builder.limits, &builder.structures)?;
        let state = match builder.data_dir.take() {
            Some(dir) => {
                let (name, full) = (name.clone(), builder.on_full_disk);
                Some(blocking(move || Opened::open(&dir, &name, full)).await?)
            }
            None => None,
        };
        let facts = state.as_ref().map(Opened::facts).transpose()?.flatten();
        if let Some(facts) = &facts {
            let next = next_run(facts, builder.transport.incarnation.0);
            builder.transport.incarnation = next.map_err(|_| StartError::LastRun(facts.incarnation))?;
        }
        let topology = Topology::new(name.clone(), builder.bound);
        let mut replica = Replica::new(builder.engine, name, builder.transport.incarnation);
        let changed = Arc::new(Notify::new());
        let settings = {
            let changed = Arc::clone(&changed);
            Arc::new(Settings::replicate(&mut replica, Arc::new(move || changed.notify_one()))?)
        };
        settings::state_objects(&settings, &builder.structures, &builder.series, &builder.gauge_caches);
        settings::state_limits(&settings, &builder.limits);
        let mut structures = BTreeMap::new();
        for spec in builder.structures {
            let changed = Arc::clone(&changed);
            let structure = replica.replicate(spec, Arc::new(move || changed.notify_one()))?;
            structures.insert(structure.id(), structure);
        }
        let mut series = Vec::new();
        for spec in builder.series {
            let changed = Arc::clone(&changed);
            series.push(replica.replicate_series(clock.now(), spec, Arc::new(move || changed.notify_one()))?);
        }
        let mut gauge_caches = Vec::new();
        for spec in builder.gauge_caches {
            let changed = Arc::clone(&changed);
            let gauge_cache = replica.replicate_gauge_cache(spec, Arc::new(move || changed.notify_one()))?;
            structures.insert(gauge_cache.structure().id(), Arc::clone(gauge_cache.structure()));
            gauge_caches.push(gauge_cache);
        }
        let mut levels = BTreeMap::new();
        let limited = structures.values().filter(|structure| Class::THROTTLES.contains(&structure.spec().class));
        for structure in limited.filter(|_| state.is_some()) {
            let (spec, changed) = (StructureSpec::levels(&structure.spec().name), Arc::clone(&changed));
            let kept = replica.keep(spec, Arc::new(move || changed.notify_one()))?;
            levels.extend(tallymesh_engine::Cache::of(&kept).map(|cache| (structure.id(), cache)));
        }
        let saving = match state {
            Some(state) => {
                let (restored, saving) = blocking(move || restore(replica, state, facts, clock.now())).await?;
                replica = restored;
                Some(saving)
            }
            None => None,
        };
        let limiters = limiters(&builder.limits, &structures, replica.actor(), &changed, clock)?;
        for (id, cache) in levels {
            limiters.get(&id).into_iter().for_each(|limiter| limiter.keep(cache.clone(), clock.now()));
        }
        let limits = Limits::new(builder.limits, structures.clone(), limiters.clone(), clock);
        let caches = structures.values().filter_map(|structure| Some((structure.id(), Cache::of(structure)?)));
        let caches = caches.collect();
        let admin = builder.admin.map(|path| Admin::bind(&path)).transpose()?;
        let gate = builder.transport.gate.clone();
        let (announcer, announced) = announcer(builder.transport.seeds.is_empty());
        let (endpoint, events) = Endpoint::bind(identity, builder.transport)?;
        let (commands, received) = mpsc::channel(COMMANDS);
        let (ours, endpoint_of) = (limiters.clone(), endpoint.clone());
        let tally = Arc::<bound::Tally>::default();
        let shared = Arc::new(Shared {
            clock,
            endpoint: endpoint_of,
            structures,
            series,
            caches,
            gauge_caches,
            limiters: ours,
            limits,
            settings: Arc::clone(&settings),
            saving: saving.as_ref().map(Saving::standing),
            announced,
            tally: Arc::clone(&tally),
        });
        let admin = admin.map(|admin| admin.serve(Arc::clone(&shared), commands.downgrade()));
        let driver = Driver::new(
            replica, endpoint, gate, events, received, changed, clock, admin, limiters, settings, saving, topology,
            announcer, tally,
        );
        let driver = Arc::new(Mutex::new(Some(tokio::spawn(driver.run()))));
        Ok(Self { shared, commands, driver })
    }

    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        ask(&self.commands, command).await
    }

    /// Leaves the cluster. The counts of this node become zero on all nodes, the node says goodbye to its peers, and all its
    /// tasks have ended when this function returns. Later changes to counters have no effect.
    pub async fn shutdown(&self) {
        self.ask(Command::Leave).await;
        self.join().await;
    }

    /// Stops at once without a goodbye, as if the process had been killed. For tests of how the other nodes react.
    pub async fn abort(&self) {
        self.ask(Command::Abort).await;
        self.join().await;
    }

    async fn join(&self) {
        let driver = self.driver.lock().take();
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::error!(%error, "the driver ended badly");
        }
    }
}

/// Reads and counts.
impl Node {
    /// The node's name, as its certificate states it.
    pub fn name(&self) -> &NodeName {
        self.shared.endpoint.name()
    }

    /// The actor of this run: the node's name and incarnation.
    pub fn actor(&self) -> Actor {
        self.shared.actor()
    }

    /// The UDP address that the node listens on.
    pub fn listen_addr(&self) -> SocketAddr {
        self.shared.endpoint.local_addr()
    }

    /// The address at which other nodes reach this one.
    pub fn advertised(&self) -> SocketAddr {
        self.shared.endpoint.advertised()
    }

    /// The node's monotonic clock, for reads of a [`Structure`].
    pub fn time(&self) -> Time {
        self.shared.clock.time()
    }

    /// The status of the saved state; `None` for a node without a [`Builder::data_dir`].
    pub fn state(&self) -> Option<StateStanding> {
        self.shared.saving.as_ref().map(|saving| saving.read(self.shared.clock.time()))
    }

    /// The structures that this node replicates, in order of name.
    pub fn structures(&self) -> Vec<Arc<Structure>> {
        self.shared.objects()
    }

    /// Finds a structure by its name, or by a prefix of the name that no other structure has.
    ///
    /// # Errors
    /// [`ObjectError`] lists the names that exist or match.
    pub fn structure(&self, name: &str) -> Result<Arc<Structure>, ObjectError> {
        self.shared.object(name)
    }

    /// The handle of a structure whose keys are addresses.
    ///
    /// # Errors
    /// [`ObjectError`] when no structure has that name, or when its keys are not addresses.
    pub fn cidr(&self, name: &str) -> Result<Cidr, ObjectError> {
        let classes = [Class::InboundCidr, Class::OutboundCidr];
        Ok(Cidr::new(self.of_class(name, &classes, "address")?, self.shared.clock))
    }

    /// The handle of a structure whose keys are domains.
    ///
    /// # Errors
    /// [`ObjectError`] when no structure has that name, or when its keys are not domains.
    pub fn domains(&self, name: &str) -> Result<Domains, ObjectError> {
        Ok(Domains::new(self.of_class(name, &[Class::OutboundDomains], "domain")?, self.shared.clock))
    }

    /// The handle of a structure whose keys are pairs of a binding and a domain.
    ///
    /// # Errors
    /// [`ObjectError`] when no structure has that name, or when its keys are of another kind.
    pub fn binding_domains(&self, name: &str) -> Result<BindingDomains, ObjectError> {
        let structure = self.of_class(name, &[Class::OutboundBindingDomains], "binding and domain")?;
        Ok(BindingDomains::new(structure, self.shared.clock))
    }

    /// The handle of a cache, by its name or by a prefix of the name that no other object has.
    ///
    /// # Errors
    /// [`ObjectError`] when no object has that name, or when the object is not a cache.
    pub fn cache(&self, name: &str) -> Result<Cache, ObjectError> {
        self.shared.cache(name)
    }

    /// The handle of a gauge cache, by its name or by a prefix of the name that no other gauge cache has.
    ///
    /// # Errors
    /// [`ObjectError`] lists the names that exist or match.
    pub fn gauge_cache(&self, name: &str) -> Result<GaugeCache, ObjectError> {
        self.shared.gauge_cache(name)
    }

    /// The handle of a named series, by its name or by a prefix of the name that no other series has.
    ///
    /// # Errors
    /// [`ObjectError`] lists the names that exist or match.
    pub fn series(&self, name: &str) -> Result<Series, ObjectError> {
        let series = self.shared.series_named(name, false, None)?;
        Ok(Series::new(series, self.shared.clock))
    }

    /// The handle of the audit.
    pub fn audit(&self) -> Audit {
        let clock = self.shared.clock;
        Audit::new(self.shared.series.iter().map(|series| Series::new(Arc::clone(series), clock)))
    }

    /// A throttle that the configuration declares, or that is in use.
    ///
    /// # Errors
    /// [`ObjectError`] lists the throttles that exist.
    pub fn throttle(&self, name: &str) -> Result<Throttle, ObjectError> {
        self.shared.throttle(name)
    }

    /// Returns the throttle of this name. Creates it if it does not exist, and updates it to `spec`: a changed rate keeps the
    /// tokens counted so far. An idle throttle without handles is removed automatically. All nodes must use the same `spec`.
    ///
    /// # Errors
    /// [`ThrottleError`] when the name is invalid, when the throttle is hard and no founders are configured, or when this node
    /// does not replicate `shared_named_throttles`.
    pub fn create_throttle(&self, name: &str, spec: ThrottleSpec) -> Result<Throttle, ThrottleError> {
        let limiter = self.shared.limiter(Class::SharedNamedThrottles)?;
        let throttle = limiter.throttle(name, spec, self.shared.clock.time())?;
        Ok(Throttle::new(throttle, Arc::clone(limiter), self.shared.clock))
    }

    /// Permits that the configuration declares, or that the program created: a limit on how many may be open at one time. The
    /// limit also holds during a network partition, provided that the service closes overdue permits.
    ///
    /// # Errors
    /// [`ObjectError`] lists the permits that exist.
    pub fn permits(&self, name: &str) -> Result<Permits, ObjectError> {
        self.shared.permits_named(name)
    }

    /// Returns the permits of this name and creates them if necessary: `maximum` of them in the whole cluster. Requires
    /// founders. All nodes must use the same `maximum`. The permits exist until the node stops.
    ///
    /// # Errors
    /// As for [`Node::create_throttle`], and when `maximum` is zero or too large, or when a throttle has the name.
    pub fn create_permits(&self, name: &str, maximum: u64) -> Result<Permits, ThrottleError> {
        let limiter = self.shared.limiter(Class::SharedNamedThrottles)?;
        let pool = limiter.pool(name, maximum, self.shared.clock.time())?;
        settings::state_permits(&self.shared.settings, name, maximum);
        Ok(Permits::new(pool, Arc::clone(limiter), self.shared.clock))
    }

    /// The differences between this node's configuration and those of other live nodes, in order of node and setting. Empty
    /// when all are equal. Compared once a second. Throttles that programs create are compared while they are used, and if they
    /// are hard.
    pub fn differences(&self) -> Vec<Difference> {
        settings::differences(&self.shared)
    }

    /// The configured limits for outbound and inbound traffic.
    pub fn limits(&self) -> Limits {
        self.shared.limits.clone()
    }

    fn of_class(&self, name: &str, classes: &[Class], by: &'static str) -> Result<Arc<Structure>, ObjectError> {
        let structure = self.structure(name)?;
        let class = structure.spec().class;
        if classes.contains(&class) {
            return Ok(structure);
        }
        let name = structure.spec().name.to_string();
        Err(ObjectError::Class { name, class: class.name(), by })
    }
}

/// Cluster membership.
impl Node {
    /// Waits until there is a link to another node. A node without seeds has joined at once, because it has no node to join.
    ///
    /// The counts of other nodes begin to arrive then; [`Node::verify`] waits for them. [`Node::settled`] also returns when no
    /// seed answers.
    ///
    /// # Errors
    /// [`NodeGone`] when the node is shut down before it has joined.
    pub async fn joined(&self) -> Result<(), NodeGone> {
        self.shared.announced.joined().await
    }

    /// The known members, including this node, in order of name.
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn members(&self) -> Result<Vec<Member>, NodeGone> {
        let status = self.ask(Command::Status).await.ok_or(NodeGone)?;
        Ok(self.shared.members(&status))
    }

    /// Counters of the replication so far.
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn counters(&self) -> Result<Counters, NodeGone> {
        self.ask(Command::Status).await.map(|status| status.counters).ok_or(NodeGone)
    }

    /// Waits until the first attempt to join has ended. Either the node has a link to another node, or it has no node to join,
    /// or it has tried all its seeds once without success; it keeps trying in that case. Returns which case applies.
    pub async fn settled(&self) -> Joining {
        let mut joining = self.shared.endpoint.joining();
        let settled = joining.wait_for(|joining| *joining != Joining::Trying).await.map(|joining| *joining);
        // The transport has ended, and has no peers.
        settled.unwrap_or(Joining::Nobody)
    }

    /// Verifies convergence: compares the data that each member holds with the data of each owner. Repeats the question for up
    /// to `patience` while some members lag or do not answer.
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn verify(&self, patience: Duration) -> Result<Verification, NodeGone> {
        self.ask(|reply| Command::Verify { patience, reply }).await.ok_or(NodeGone)
    }

    /// Forgets a node: removes its counts so far on all nodes, which reject them for seven days. A node that is alive
    /// renews: it continues as a new run. Returns `false` when the node is unknown, or when it is this node.
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn forget(&self, node: &NodeName) -> Result<bool, NodeGone> {
        let node = node.clone();
        let forgetting = self.ask(|reply| Command::Forget { node, reply }).await.ok_or(NodeGone)?;
        Ok(forgetting == Forgetting::Done)
    }

    /// Subscribes to the events that this node sees in the cluster from now on: links, member states, conflicts.
    pub fn events(&self) -> Events {
        self.shared.announced.events()
    }

    /// Subscribes to the keys of a structure whose counts change from now on, on this node or on another one.
    ///
    /// # Errors
    /// [`ObjectError`] when there is no structure of that name.
    pub fn changes(&self, name: &str) -> Result<Changes, ObjectError> {
        Ok(Changes::new(self.shared.object(name)?, self.shared.announced.clone(), self.shared.clock))
    }
}

/// Runs blocking disk work off the async tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Restores the state that an earlier run has saved, and durably records that this run has begun.
fn restore(
    mut replica: Replica,
    state: Opened,
    facts: Option<Facts>,
    now: Now,
) -> Result<(Replica, Saving), StateError> {
    replica.keep_state();
    if let Some((facts, file)) = facts.zip(state.file()) {
        replica.restore_facts(now, facts);
        let path = file.path().to_owned();
        let taken = file.each_head(|head, rows| replica.restore_rows(now, head, &rows));
        taken.map_err(|error| match error {
            NotTaken::File(error) => error,
            NotTaken::Rows(error) => StateError::Restore { path, error: Box::new(error) },
        })?;
        replica.restored(now);
    }
    let saving = Saving::start(state, &replica, now)?;
    Ok((replica, saving))
}

/// Creates the limiters of the structures that count throttles.
fn limiters(
    config: &LimitsConfig,
    structures: &BTreeMap<StructureId, Arc<Structure>>,
    actor: &Actor,
    changed: &Arc<Notify>,
    clock: Clock,
) -> Result<BTreeMap<StructureId, Arc<Limiter>>, StartError> {
    let founding = if config.founders.is_empty() {
        None
    } else {
        let founding = Founding::new(config.founders.iter().cloned(), config.reclaim_after)?;
        Some(if config.stand_in { founding } else { founding.without_stand_ins() })
    };
    let mut limiters = BTreeMap::new();
    for class in Class::THROTTLES {
        let id = StructureId::of(class.name());
        let Some(structure) = structures.get(&id).filter(|structure| structure.spec().class == class) else { continue };
        let (changed, now) = (Arc::clone(changed), clock.time());
        let wake = Arc::new(move || changed.notify_one());
        let hard = |spec: Option<ThrottleSpec>| spec.is_some_and(|spec| spec.strength == Strength::Hard);
        let needed = match class {
            Class::OutboundMessages => config.outbound.iter().any(|limits| hard(limits.messages)),
            Class::OutboundConnections => config.outbound.iter().any(|limits| hard(limits.connections)),
            // A program may create throttles and pools of this structure at any time.
            _ => true,
        };
        let founding = founding.clone().filter(|_| needed);
        let limiter = Limiter::new(Arc::clone(structure), founding, actor.node.clone(), rand_seed(), now, wake);
        if class == Class::SharedNamedThrottles {
            config.throttles.iter().try_for_each(|named| limiter.declare(&named.name, named.spec, now))?;
            config.permits.iter().try_for_each(|named| limiter.pool(&named.name, named.maximum, now).map(drop))?;
        }
        for limits in config.outbound.iter().filter(|limits| !limits.scope.is_pattern()) {
            let spec = match class {
                Class::OutboundMessages => limits.messages,
                Class::OutboundConnections => limits.connections,
                _ => None,
            };
            if let Some(spec) = spec {
                limiter.declare(&limits.scope.to_string(), spec, now)?;
            }
        }
        let patterns = config.outbound.iter().filter(|limits| limits.scope.is_pattern());
        let spec = |limits: &OutboundLimits| match class {
            Class::OutboundMessages => limits.messages,
            Class::OutboundConnections => limits.connections,
            _ => None,
        };
        let scopes: Vec<_> = patterns.filter_map(|limits| Some((limits.scope.to_string(), spec(limits)?))).collect();
        limiter.seal(&scopes);
        limiters.insert(id, Arc::new(limiter));
    }
    Ok(limiters)
}
