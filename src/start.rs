//! Starts a node: creates its parts and connects them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tallymesh_engine::{Replica, Series, Settings, Structure};
use tallymesh_schemas::{Class, NodeName, StructureId, StructureSpec, bound};
use tallymesh_transport::{Endpoint, Identity};
use tokio::sync::{Notify, mpsc};

use crate::admin::Admin;
use crate::builder::{Builder, StartError};
use crate::cache::Cache;
use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::configuration::Declared;
use crate::declared;
use crate::driver::{Driver, Parts, wake};
use crate::events::announcer;
#[cfg(feature = "http")]
use crate::http::Facts;
use crate::http::Http;
use crate::limiters::Making;
use crate::limits::Limits;
use crate::node::Node;
use crate::objects::{Current, Objects};
use crate::scopes::Scopes;
use crate::settings;
use crate::shared::Shared;
use crate::state::{Earlier, Saving};
use crate::topology::Topology;

/// Commands that may wait for the driver.
const COMMANDS: usize = 64;

impl Node {
    /// Configures a node with this name. The node's certificate must be for the same name.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }
}

/// What a node has before it meets others.
struct Prepared {
    replica: Replica,
    saving: Option<Saving>,
    settings: Arc<Settings>,
    objects: Objects,
    /// Notified when handles have changed something.
    changed: Arc<Notify>,
}

impl Builder {
    /// Starts the node. Must be called within a tokio runtime, on which the node's tasks then run.
    ///
    /// # Errors
    /// [`StartError`] states why the node cannot start. No task runs in that case.
    pub async fn start(mut self) -> Result<Node, StartError> {
        let clock = Clock::start();
        self.transport.incarnation.checked()?;
        let identity = self.take_identity()?;
        self.limits = declared::checked(self.limits, &self.structures)?;
        let running = Declared::of(&self);
        let earlier = self.open_state(&identity).await?;
        let Prepared { replica, saving, settings, objects, changed } =
            self.prepare(identity.name(), &running, earlier, clock).await?;
        let admin = self.bind_admin()?;
        #[cfg(feature = "http")]
        let facts = self.facts();
        let http = self.bind_http()?;
        let (files, valid_until) = (self.files.take(), identity.valid_until());
        let gate = self.transport.gate.clone();
        let (announcer, announced) = announcer(&self.transport.seeds);
        let topology = Topology::new(identity.name().clone(), self.bound);
        let (endpoint, events) = Endpoint::bind(identity, self.transport)?;
        let (commands, received) = mpsc::channel(COMMANDS);
        let (limiters, current) = (objects.limiters.clone(), Current::new(objects));
        let certificates = Arc::new(Certificates::new(endpoint.clone(), valid_until, files));
        let shared = Arc::new(Shared {
            clock,
            endpoint: endpoint.clone(),
            limits: Limits::new(Arc::clone(&current), clock),
            current,
            seeds: Mutex::new(running.seeds.clone()),
            #[cfg(feature = "config")]
            source: self.source,
            settings: Arc::clone(&settings),
            #[cfg(feature = "state")]
            saving: saving.as_ref().map(Saving::standing),
            #[cfg(any(feature = "admin", feature = "http"))]
            budget: Arc::clone(replica.budget()),
            announced,
            certificates: Arc::clone(&certificates),
            #[cfg(feature = "http")]
            http: Mutex::new(http.as_ref().and_then(Http::local_addr)),
            tally: Arc::<bound::Tally>::default(),
        });
        let admin = admin.map(|admin| admin.serve(Arc::clone(&shared), commands.downgrade()));
        let http = http.map(|http| http.serve(Arc::clone(&shared), commands.downgrade()));
        let tally = Arc::clone(&shared.tally);
        let driver = Driver::new(Parts {
            replica,
            endpoint,
            gate,
            events,
            commands: received,
            changed,
            clock,
            admin,
            http,
            limiters,
            settings,
            saving,
            topology,
            announcer,
            tally,
            certificates: certificates.watch(),
            shared: Arc::clone(&shared),
            #[cfg(feature = "http")]
            sender: commands.downgrade(),
            #[cfg(feature = "http")]
            facts,
            running,
            set_log: self.set_log,
        });
        Ok(Node::new(shared, commands, tokio::spawn(driver.run())))
    }

    /// Makes the objects and their limiters, and restores the saved state, if the node has one.
    async fn prepare(
        &self,
        node: &NodeName,
        running: &Declared,
        earlier: Option<Earlier>,
        clock: Clock,
    ) -> Result<Prepared, StartError> {
        let mut replica = Replica::new(self.engine.clone(), node.clone(), self.transport.incarnation);
        let changed = Arc::new(Notify::new());
        let made = Made::replicate(&mut replica, running, &changed, clock)?;
        let mut levels = BTreeMap::new();
        let (replica, saving) = match earlier {
            Some(earlier) => {
                levels = made.keep_levels(&mut replica, &changed)?;
                let (replica, saving) = earlier.restore(replica, clock.now()).await?;
                (replica, Some(saving))
            }
            None => (replica, None),
        };
        let making = Making { config: &running.limits, node, changed: &changed, clock };
        let limiters = making.all(&made.structures)?;
        for (id, cache) in levels {
            limiters.get(&id).into_iter().for_each(|limiter| limiter.keep(cache.clone(), clock.now()));
        }
        let Made { settings, structures, caches, series, gauge_caches } = made;
        let scopes = Arc::new(Scopes::new(running.limits.clone()));
        let objects = Objects { structures, caches, series, gauge_caches, limiters, scopes };
        Ok(Prepared { replica, saving, settings, objects, changed })
    }

    /// Opens the saved state, if the node has one, and takes the incarnation that follows the saved one.
    #[cfg(feature = "state")]
    async fn open_state(&mut self, identity: &Identity) -> Result<Option<Earlier>, StartError> {
        let Some(dir) = self.data_dir.take() else { return Ok(None) };
        let earlier = Earlier::open(dir, identity.name().clone(), self.on_full_disk).await?;
        self.transport.incarnation = earlier.next_run(self.transport.incarnation).map_err(StartError::LastRun)?;
        Ok(Some(earlier))
    }

    #[cfg(not(feature = "state"))]
    async fn open_state(&mut self, _identity: &Identity) -> Result<Option<Earlier>, StartError> {
        Ok(None)
    }

    /// Opens the admin socket, if the node has one.
    #[cfg(feature = "admin")]
    fn bind_admin(&mut self) -> Result<Option<Admin>, StartError> {
        Ok(self.admin.take().map(|path| Admin::bind(&path)).transpose()?)
    }

    #[cfg(not(feature = "admin"))]
    fn bind_admin(&mut self) -> Result<Option<Admin>, StartError> {
        Ok(None)
    }

    /// Opens the HTTP listener, if the node has one.
    #[cfg(feature = "http")]
    fn bind_http(&mut self) -> Result<Option<Http>, StartError> {
        let facts = self.facts();
        Ok(self.http.take().map(|address| Http::bind(&address, facts)).transpose()?)
    }

    /// What the HTTP listener has to know.
    #[cfg(feature = "http")]
    fn facts(&self) -> Facts {
        #[cfg(feature = "state")]
        let needs_disk = self.on_full_disk == tallymesh_schemas::config::OnFullDisk::Refuse;
        #[cfg(not(feature = "state"))]
        let needs_disk = false;
        Facts { needs_disk }
    }

    #[cfg(not(feature = "http"))]
    fn bind_http(&mut self) -> Result<Option<Http>, StartError> {
        Ok(None)
    }
}

/// The replicated objects of a node that starts.
struct Made {
    settings: Arc<Settings>,
    structures: BTreeMap<StructureId, Arc<Structure>>,
    /// In order of name.
    caches: Vec<Cache>,
    series: Vec<Arc<Series>>,
    gauge_caches: Vec<Arc<tallymesh_engine::GaugeCache>>,
}

impl Made {
    /// Replicates the configured objects, and publishes their settings.
    fn replicate(
        replica: &mut Replica,
        declared: &Declared,
        changed: &Arc<Notify>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(Settings::replicate(replica, wake(changed))?);
        settings::publish(&settings, &BTreeMap::new(), &settings::stated(declared));
        let mut structures = BTreeMap::new();
        for spec in &declared.structures {
            if spec.class == Class::Cache {
                replica.replicate_cache(spec.clone(), wake(changed))?;
                continue;
            }
            let structure = replica.replicate(spec.clone(), wake(changed))?;
            structures.insert(structure.id(), structure);
        }
        let caches = replica.caches().into_iter().map(Cache::new).collect();
        let mut series = Vec::new();
        for spec in &declared.series {
            series.push(replica.replicate_series(clock.now(), spec.clone(), wake(changed))?);
        }
        let mut gauge_caches = Vec::new();
        for spec in &declared.gauge_caches {
            let gauge_cache = replica.replicate_gauge_cache(spec.clone(), wake(changed))?;
            structures.insert(gauge_cache.structure().id(), Arc::clone(gauge_cache.structure()));
            gauge_caches.push(gauge_cache);
        }
        Ok(Self { settings, structures, caches, series, gauge_caches })
    }

    /// The caches in which the limiters keep their levels over a restart, by the structure that counts the throttles.
    fn keep_levels(
        &self,
        replica: &mut Replica,
        changed: &Arc<Notify>,
    ) -> Result<BTreeMap<StructureId, tallymesh_engine::Cache>, StartError> {
        let mut levels = BTreeMap::new();
        for structure in self.structures.values().filter(|of| Class::THROTTLES.contains(&of.spec().class)) {
            let kept = replica.keep_cache(StructureSpec::levels(&structure.spec().name), wake(changed))?;
            levels.insert(structure.id(), kept);
        }
        Ok(levels)
    }
}
