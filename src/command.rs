//! What handles and the admin socket ask of the driver, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::Life;
use tallymesh_engine::replica::{Counters, PeerClock, Verification};
use tallymesh_schemas::{Actor, Incarnation, NodeName};
use tokio::sync::{mpsc, oneshot};

use crate::bounds;

/// A command, with where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    Forget { node: NodeName, reply: oneshot::Sender<Forgetting> },
    Verify { patience: Duration, reply: oneshot::Sender<Verification> },
    Leave(oneshot::Sender<()>),
    Abort(oneshot::Sender<()>),
}

/// What the driver knows and others ask for.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) actor: Actor,
    pub(crate) nodes: Vec<(NodeName, Incarnation, Life)>,
    pub(crate) builds: BTreeMap<NodeName, String>,
    pub(crate) counters: Counters,
    /// The bounds that were reached.
    pub(crate) bounds: Vec<bounds::Entry>,
    pub(crate) clocks: ClockStanding,
}

/// What became of the wish to forget a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgetting {
    Done,
    /// Nothing is known of it.
    Unknown,
    /// It is this node.
    Ourselves,
}

/// How this node's clock compares with its peers' clocks.
#[derive(Debug, Clone)]
pub(crate) struct ClockStanding {
    /// By how much clocks may differ; `None` where nothing goes by them.
    pub(crate) bound: Option<Duration>,
    pub(crate) peers: Vec<PeerClock>,
    /// By how much the clock for windows is ahead of the wall clock.
    pub(crate) windows_ahead: Duration,
}

/// Asks the driver; `None` when it has ended.
pub(crate) async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}
