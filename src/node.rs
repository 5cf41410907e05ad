//! The node that a service embeds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::replica::{Counters, Verification};
use tallymesh_engine::{Life, Replica, Structure, Time};
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureId};
use tallymesh_transport::Endpoint;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::builder::{Builder, StartError};
use crate::cidr::Cidr;
use crate::clock::Clock;
use crate::driver::{Command, Driver};
use crate::names::{BindingDomains, Domains};

/// Commands that wait for the driver.
const COMMANDS: usize = 64;

/// A running node. Cheap to clone; when the last clone is dropped the node leaves as with [`Node::shutdown`].
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What a node's handles share with its admin socket. Holds no way to the driver, so that the driver notices when the
/// last handle is gone.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) endpoint: Endpoint,
    pub(crate) structures: BTreeMap<StructureId, Arc<Structure>>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

/// Why there is no handle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No such structure.
    #[error("no object \"{name}\"; this node replicates {}", list(known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// More than one structure begins like that.
    #[error("\"{name}\" may be {}: write more of the name", list(candidates))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it may be.
        candidates: Vec<String>,
    },
    /// The structure counts by something else.
    #[error("\"{name}\" is of class {class}, which does not count by {by}")]
    Class {
        /// The structure.
        name: String,
        /// Its class.
        class: &'static str,
        /// What was wanted.
        by: &'static str,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// A member of the cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which run of which node.
    pub actor: Actor,
    /// Whether it lives. This node itself is alive.
    pub life: Life,
    /// Where the others reach it; `None` when unknown.
    pub addr: Option<SocketAddr>,
    /// Whether there is a link to it.
    pub linked: bool,
    /// The round trip time of the link.
    pub rtt: Option<Duration>,
    /// Its build; empty when unknown.
    pub build: String,
}

/// What the driver knows and others ask for.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) actor: Actor,
    pub(crate) nodes: Vec<(NodeName, Incarnation, Life)>,
    pub(crate) builds: BTreeMap<NodeName, String>,
    pub(crate) counters: Counters,
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
        let admin = builder.admin.map(|path| Admin::bind(&path)).transpose()?;
        let gate = builder.transport.gate.clone();
        let (endpoint, events) = Endpoint::bind(identity, builder.transport)?;
        let (commands, received) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared { clock, endpoint: endpoint.clone(), structures, driver: Mutex::default() });
        let admin = admin.map(|admin| admin.serve(Arc::clone(&shared), commands.downgrade()));
        let driver = Driver::new(replica, endpoint, gate, events, received, changed, clock, admin);
        *shared.driver.lock() = Some(tokio::spawn(driver.run()));
        Ok(Self { shared, commands })
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
        let driver = self.shared.driver.lock().take();
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::error!(%error, "the driver ended badly");
        }
    }
}

pub(crate) async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
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

impl Shared {
    pub(crate) fn actor(&self) -> Actor {
        Actor::new(self.endpoint.name().clone(), self.endpoint.incarnation())
    }

    pub(crate) fn objects(&self) -> Vec<Arc<Structure>> {
        let mut list: Vec<_> = self.structures.values().cloned().collect();
        list.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
        list
    }

    pub(crate) fn object(&self, name: &str) -> Result<Arc<Structure>, ObjectError> {
        let objects = self.objects();
        if let Some(exact) = objects.iter().find(|object| object.spec().name.as_str() == name) {
            return Ok(Arc::clone(exact));
        }
        let names = |objects: &[&Arc<Structure>]| objects.iter().map(|o| o.spec().name.to_string()).collect();
        let begin: Vec<_> = objects.iter().filter(|object| object.spec().name.as_str().starts_with(name)).collect();
        match begin.as_slice() {
            [one] if !name.is_empty() => Ok(Arc::clone(one)),
            [] => {
                Err(ObjectError::Unknown { name: name.to_owned(), known: names(&objects.iter().collect::<Vec<_>>()) })
            }
            several => Err(ObjectError::Ambiguous { name: name.to_owned(), candidates: names(several) }),
        }
    }

    /// The members with what the transport and the engine know of each.
    pub(crate) fn members(&self, status: &Status) -> Vec<Member> {
        let mut members: BTreeMap<NodeName, Member> = BTreeMap::new();
        for (name, incarnation, life) in &status.nodes {
            let actor = Actor::new(name.clone(), *incarnation);
            let build = status.builds.get(name).cloned().unwrap_or_default();
            let member = Member { actor, life: *life, addr: None, linked: false, rtt: None, build };
            members.insert(name.clone(), member);
        }
        for known in self.endpoint.members() {
            if let Some(member) = members.get_mut(&known.name) {
                (member.addr, member.linked, member.rtt) = (Some(known.addr), known.linked, known.rtt);
            }
        }
        let us = Member {
            actor: status.actor.clone(),
            life: Life::Alive,
            addr: Some(self.endpoint.advertised()),
            linked: false,
            rtt: None,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        members.insert(status.actor.node.clone(), us);
        members.into_values().collect()
    }
}
