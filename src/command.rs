//! The commands that handles and the admin socket send to the driver.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::Life;
#[cfg(any(feature = "admin", feature = "http"))]
use tallymesh_engine::replica::PeerClock;
use tallymesh_engine::replica::{Counters, Verification};
use tallymesh_schemas::{Actor, Incarnation, NodeName};
use tokio::sync::{mpsc, oneshot};

use crate::builder::StartError;
use crate::configuration::Declared;
use crate::plan::{ConfigChange, ReloadMode};
#[cfg(any(feature = "admin", feature = "http"))]
use crate::reached;
#[cfg(feature = "http")]
use crate::work::Work;

/// A command, with the channel for its answer.
#[derive(Debug)]
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    Forget { node: NodeName, reply: oneshot::Sender<Forgetting> },
    Verify { patience: Duration, reply: oneshot::Sender<Verification> },
    Reload { wanted: Box<Declared>, mode: ReloadMode, reply: oneshot::Sender<Result<Vec<ConfigChange>, StartError>> },
    Leave(oneshot::Sender<()>),
    Abort(oneshot::Sender<()>),
}

/// Status that the driver reports on request.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) actor: Actor,
    pub(crate) nodes: Vec<(NodeName, Incarnation, Life)>,
    pub(crate) builds: BTreeMap<NodeName, String>,
    pub(crate) counters: Counters,
    /// The bounds that were reached.
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) bounds: Vec<reached::Entry>,
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) clocks: ClockStanding,
    /// What the driver has measured.
    #[cfg(feature = "http")]
    pub(crate) work: Work,
}

/// The result of a request to forget a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgetting {
    Done,
    /// The node is unknown.
    Unknown,
    /// It is this node.
    Ourselves,
}

/// How this node's clock compares with the clocks of its peers.
#[cfg(any(feature = "admin", feature = "http"))]
#[derive(Debug, Clone)]
pub(crate) struct ClockStanding {
    /// The largest allowed difference between clocks; `None` where nothing depends on it.
    pub(crate) bound: Option<Duration>,
    pub(crate) peers: Vec<PeerClock>,
    /// How far the clock for windows is ahead of the wall clock.
    pub(crate) windows_ahead: Duration,
}

/// Sends a command to the driver and waits for the answer; `None` when the driver has ended.
pub(crate) async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}
