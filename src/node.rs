//! The node that a service embeds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::replica::Verification;
use tallymesh_engine::{Replica, Structure, Time};
use tallymesh_schemas::{Actor, Class, NodeName};
use tallymesh_transport::Endpoint;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::audit::Audit;
use crate::builder::{Builder, StartError};
use crate::cidr::Cidr;
use crate::clock::Clock;
use crate::command::{Command, ask};
use crate::driver::Driver;
use crate::names::{BindingDomains, Domains};
use crate::series::Series;
use crate::shared::{Member, ObjectError, Shared};

/// Commands that wait for the driver.
const COMMANDS: usize = 64;

/// A running node. Cheap to clone; when the last clone is dropped the node leaves as with [`Node::shutdown`].
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// The way to the driver, and what to do when it is gone.
impl Node {
    /// A node of that name, which has to be the one in its certificate.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) async fn start(mut builder: Builder) -> Result<Self, StartError> {
        let clock = Clock::start();
        let identity = builder.take_identity()?;
        let name = identity.name().clone();
        let mut replica = Replica::new(builder.engine, name, builder.transport.incarnation);
        let changed = Arc::new(Notify::new());
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
        let admin = builder.admin.map(|path| Admin::bind(&path)).transpose()?;
        let gate = builder.transport.gate.clone();
        let (endpoint, events) = Endpoint::bind(identity, builder.transport)?;
        let (commands, received) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared { clock, endpoint: endpoint.clone(), structures, series });
        let admin = admin.map(|admin| admin.serve(Arc::clone(&shared), commands.downgrade()));
        let driver = Driver::new(replica, endpoint, gate, events, received, changed, clock, admin);
        let driver = Arc::new(Mutex::new(Some(tokio::spawn(driver.run()))));
        Ok(Self { shared, commands, driver })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        ask(&self.commands, command).await
    }

    /// Leaves the cluster: what this node counts becomes zero everywhere, the others are told goodbye, and all tasks of
    /// the node have ended when this returns. Counting afterwards has no effect.
    pub async fn shutdown(&self) {
        self.ask(Command::Leave).await;
        self.join().await;
    }

    /// Ends at once and without a word, as if the process had been killed: for tests of what the others do then.
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

/// Reading and counting.
impl Node {
    /// The name that its certificate gives it.
    pub fn name(&self) -> &NodeName {
        self.shared.endpoint.name()
    }

    /// This run of it.
    pub fn actor(&self) -> Actor {
        self.shared.actor()
    }

    /// The UDP address that it listens on.
    pub fn listen_addr(&self) -> SocketAddr {
        self.shared.endpoint.local_addr()
    }

    /// The address under which the others reach it.
    pub fn advertised(&self) -> SocketAddr {
        self.shared.endpoint.advertised()
    }

    /// The node's monotonic clock, for reads of a [`Structure`].
    pub fn time(&self) -> Time {
        self.shared.clock.time()
    }

    /// The structures that it replicates, in order of name.
    pub fn structures(&self) -> Vec<Arc<Structure>> {
        self.shared.objects()
    }

    /// A structure by its name, or by a beginning of the name that no other one has.
    ///
    /// # Errors
    /// [`ObjectError`] says what there is instead.
    pub fn structure(&self, name: &str) -> Result<Arc<Structure>, ObjectError> {
        self.shared.object(name)
    }

    /// The handle of a structure that counts by address.
    ///
    /// # Errors
    /// [`ObjectError`] when there is none of that name, or it counts by something else.
    pub fn cidr(&self, name: &str) -> Result<Cidr, ObjectError> {
        let classes = [Class::InboundCidr, Class::OutboundCidr];
        Ok(Cidr::new(self.of_class(name, &classes, "address")?, self.shared.clock))
    }

    /// The handle of a structure that counts by domain.
    ///
    /// # Errors
    /// [`ObjectError`] when there is none of that name, or it counts by something else.
    pub fn domains(&self, name: &str) -> Result<Domains, ObjectError> {
        Ok(Domains::new(self.of_class(name, &[Class::OutboundDomains], "domain")?, self.shared.clock))
    }

    /// The handle of a structure that counts by binding and domain.
    ///
    /// # Errors
    /// [`ObjectError`] when there is none of that name, or it counts by something else.
    pub fn binding_domains(&self, name: &str) -> Result<BindingDomains, ObjectError> {
        let structure = self.of_class(name, &[Class::OutboundBindingDomains], "binding and domain")?;
        Ok(BindingDomains::new(structure, self.shared.clock))
    }

    /// The handle of a named series, by its name, or by a beginning of the name that no other one has.
    ///
    /// # Errors
    /// [`ObjectError`] says what there is instead.
    pub fn series(&self, name: &str) -> Result<Series, ObjectError> {
        let series = self.shared.series_named(name, false, None)?;
        Ok(Series::new(series, self.shared.clock))
    }

    /// The handle of the audit.
    pub fn audit(&self) -> Audit {
        let clock = self.shared.clock;
        Audit::new(self.shared.series.iter().map(|series| Series::new(Arc::clone(series), clock)))
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

/// The cluster.
impl Node {
    /// The members that are known, this node included, in order of name.
    pub async fn members(&self) -> Vec<Member> {
        match self.ask(Command::Status).await {
            Some(status) => self.shared.members(&status),
            None => Vec::new(),
        }
    }

    /// Compares what all members hold with what each owner has, and asks again for up to `patience` while some lag or do
    /// not answer. `None` when the node has been shut down.
    pub async fn verify(&self, patience: Duration) -> Option<Verification> {
        self.ask(|reply| Command::Verify { patience, reply }).await
    }

    /// Forgets a node: its counts so far are gone everywhere and are not taken back for seven days. One that lives comes
    /// back as a new run. Returns whether anything was known of it.
    pub async fn forget(&self, node: &NodeName) -> bool {
        let node = node.clone();
        self.ask(|reply| Command::Forget { node, reply }).await.unwrap_or(false)
    }
}
