//! The node that a service embeds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::replica::{Confirmed, Counters, Verification};
use tallymesh_engine::{Difference, Structure};
use tallymesh_schemas::{Actor, Class, NodeName, Position, StructureSpec, ThrottleSpec};
use tallymesh_transport::Joining;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::audit::Audit;
use crate::builder::Builder;
use crate::cache::Cache;
use crate::changes::Changes;
use crate::cidr::Cidr;
use crate::command::{Command, Forgetting, ask};
use crate::events::{Events, NodeGone};
use crate::gauge::GaugeCache;
use crate::limits::Limits;
use crate::member::Member;
use crate::names::{BindingDomains, Domains};
use crate::object::Object;
use crate::object_error::ObjectError;
use crate::plan::{ConfigChange, ReloadMode};
use crate::reload::{self, ReloadError};
use crate::series::Series;
use crate::settings;
use crate::shared::Shared;
#[cfg(feature = "state")]
use crate::state::StateStanding;
use crate::throttle::{Permits, Throttle, ThrottleError};

/// A running node. Cheap to clone. When the last clone is dropped, the node leaves the cluster as with [`Node::shutdown`].
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// node.joined().await?; // there is a link to another node
/// for member in node.members().await? {
///     println!("{member}");
/// }
/// let found = node.verify(Duration::from_secs(5)).await?;
/// println!("{found}; {} deltas came in", node.counters().await?.deltas_in);
/// for difference in node.differences() {
///     println!("configured differently: {difference}");
/// }
/// node.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// The connection to the driver task, and the end of the node.
impl Node {
    /// A node whose driver runs as `driver` and takes `commands`.
    pub(crate) fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>, driver: JoinHandle<()>) -> Self {
        Self { shared, commands, driver: Arc::new(Mutex::new(Some(driver))) }
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

    /// The TCP address at which the node serves HTTP; `None` for a node without [`Builder::http`](crate::Builder::http), or with
    /// a Unix socket.
    #[cfg(feature = "http")]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        *self.shared.http.lock()
    }

    /// The status of the saved state; `None` for a node without a
    /// [`Builder::data_dir`](crate::Builder::data_dir).
    #[cfg(feature = "state")]
    pub fn state(&self) -> Option<StateStanding> {
        self.shared.saving.as_ref().map(|saving| saving.read(self.shared.clock.time()))
    }

    /// The structures and caches that this node replicates, in order of name.
    pub fn structures(&self) -> Vec<StructureSpec> {
        self.shared.objects().iter().map(|object| object.spec().clone()).collect()
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

    /// The handle of a cache.
    ///
    /// # Errors
    /// [`ObjectError`] when no object has that name, or when the object is not a cache.
    pub fn cache(&self, name: &str) -> Result<Cache, ObjectError> {
        self.shared.object(name)?.into_cache()
    }

    /// The handle of a gauge cache.
    ///
    /// # Errors
    /// [`ObjectError`] lists the names that exist.
    pub fn gauge_cache(&self, name: &str) -> Result<GaugeCache, ObjectError> {
        self.shared.gauge_cache(name)
    }

    /// The handle of a named series.
    ///
    /// # Errors
    /// [`ObjectError`] lists the names that exist.
    pub fn series(&self, name: &str) -> Result<Series, ObjectError> {
        let series = self.shared.series_named(name)?;
        Ok(Series::new(series, self.shared.clock))
    }

    /// The handle of the audit.
    pub fn audit(&self) -> Audit {
        let clock = self.shared.clock;
        Audit::new(self.shared.current.get().series.iter().map(|series| Series::new(Arc::clone(series), clock)))
    }

    /// A throttle that the configuration declares, or that is in use.
    ///
    /// # Errors
    /// [`ObjectError`] lists the throttles that exist, or says that there is no room for a declared one.
    pub fn throttle(&self, name: &str) -> Result<Throttle, ObjectError> {
        self.shared.throttle(name)
    }

    /// Returns the throttle of this name. Creates it if it does not exist, and updates it to `spec`: a changed rate keeps the
    /// tokens counted so far. An idle throttle without handles is removed automatically. All nodes must use the same `spec`, and
    /// [`Node::differences`] lists the throttles of which they do not.
    ///
    /// # Errors
    /// [`ThrottleError`] when the name is invalid, when the throttle is hard and no founders are configured, or when this node
    /// does not replicate `shared_named_throttles`.
    pub fn create_throttle(&self, name: &str, spec: ThrottleSpec) -> Result<Throttle, ThrottleError> {
        let limiter = self.shared.limiter(Class::SharedNamedThrottles)?;
        let known = limiter.find(name).is_some_and(|known| known.spec() == spec);
        let throttle = limiter.throttle(name, spec, self.shared.clock.time())?;
        if !known {
            settings::state_throttle(&self.shared.settings, name, spec);
        }
        Ok(Throttle::new(throttle, limiter, self.shared.clock))
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
        Ok(Permits::new(pool, limiter, self.shared.clock))
    }

    /// The differences between this node's configuration and those of other live nodes, in order of node and setting. Empty
    /// when all are equal. Includes the throttles and permits that programs have created on both nodes. It compares the rows
    /// that this node has now: O(settings of all nodes).
    pub fn differences(&self) -> Vec<Difference> {
        self.shared.differences()
    }

    /// The configured limits for outbound and inbound traffic.
    pub fn limits(&self) -> Limits {
        self.shared.limits.clone()
    }

    fn of_class(&self, name: &str, classes: &[Class], by: &'static str) -> Result<Arc<Structure>, ObjectError> {
        let object = self.shared.object(name)?;
        let class = object.spec().class;
        match object {
            Object::Structure(structure) if classes.contains(&class) => Ok(structure),
            object => Err(ObjectError::Class { name: object.spec().name.to_string(), class: class.name(), by }),
        }
    }
}

/// Another configuration.
impl Node {
    /// Gives the node the configuration of a builder for the same node: with other objects, limits, budgets, seeds, another HTTP
    /// address or another certificate. Makes all changes in one step, or none. Rows stay, and a changed rate or bound keeps what
    /// was counted. Returns all changes; a change whose effect is [`Effect::Restart`](crate::Effect::Restart) is not made.
    ///
    /// Handles of an object that goes count down, and return an error for anything else. When the object comes back in the same
    /// run, it has the rows that it had.
    ///
    /// # Errors
    /// [`ReloadError`] says why the node keeps the configuration that it has.
    pub async fn reload(&self, wanted: Builder, mode: ReloadMode) -> Result<Vec<ConfigChange>, ReloadError> {
        reload::reload(&self.shared, &self.commands, wanted, mode).await
    }

    /// As [`Node::reload`], from the file of [`Builder::config_file`]: reads it again.
    ///
    /// # Errors
    /// As [`Node::reload`]; [`ReloadError::NoFile`] when the builder did not name a file.
    #[cfg(feature = "config")]
    pub async fn reload_file(&self, mode: ReloadMode) -> Result<Vec<ConfigChange>, ReloadError> {
        reload::reload_file(&self.shared, &self.commands, mode).await
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

    /// Waits until `nodes` other nodes hold all changes that were made on this node before the call, at most for `patience`.
    ///
    /// A change returns at once, and other nodes receive it a moment later. A program that must not lose a change when this node
    /// dies waits here before it goes on. Only nodes with a link to this node can confirm; in a cluster of more than 64 nodes these
    /// are ten. A node that does not replicate one of the objects never confirms. With 0 for `nodes` the call returns at once, with
    /// the position for [`Node::reach`].
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(node: tallymesh::Node, other: tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// node.series("logins")?.add("alice", 1)?;
    /// let confirmed = node.flush_until(2, Duration::from_secs(1)).await?;
    /// if !confirmed.is_reached() {
    ///     println!("only {} other nodes hold it", confirmed.holders.len());
    /// }
    /// // On another node: read what was written there.
    /// if other.reach(&confirmed.position, Duration::from_secs(1)).await? {
    ///     println!("{} logins", other.series("logins")?.count("alice", 0..=9)?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn flush_until(&self, nodes: usize, patience: Duration) -> Result<Confirmed, NodeGone> {
        self.ask(|reply| Command::Flush { nodes, patience, reply }).await.ok_or(NodeGone)
    }

    /// Waits until this node holds the changes of a position, which another node has returned. Returns whether it holds them
    /// before `patience` is over. Counts that ended with their run, such as open connections of a node that has restarted, are
    /// left out, and so are objects that this node does not replicate.
    ///
    /// # Errors
    /// [`NodeGone`] when the node has been shut down.
    pub async fn reach(&self, position: &Position, patience: Duration) -> Result<bool, NodeGone> {
        let position = position.clone();
        self.ask(|reply| Command::Reach { position, patience, reply }).await.ok_or(NodeGone)
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

    /// Subscribes to the keys of an object that change from now on, on this node or on another one.
    ///
    /// # Errors
    /// [`ObjectError`] when there is no object of that name.
    pub fn changes(&self, name: &str) -> Result<Changes, ObjectError> {
        Ok(Changes::new(self.shared.object(name)?, self.shared.announced.clone(), self.shared.clock))
    }
}
