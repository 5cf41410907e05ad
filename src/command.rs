//! The commands that handles and the admin socket send to the driver.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::Life;
#[cfg(any(feature = "admin", feature = "http"))]
use tallymesh_engine::replica::PeerClock;
use tallymesh_engine::replica::{Confirmed, Counters, Verification};
#[cfg(feature = "admin")]
use tallymesh_engine::replica::{LinkPlace, Standings};
#[cfg(feature = "admin")]
use tallymesh_schemas::StructureId;
#[cfg(feature = "admin")]
use tallymesh_schemas::inspect::{ActorView, LinkView};
use tallymesh_schemas::{Actor, Incarnation, NodeName, Position};
use tokio::sync::{mpsc, oneshot};

use crate::builder::StartError;
use crate::configuration::Declared;
#[cfg(any(feature = "admin", feature = "http"))]
use crate::convergence::Convergence;
use crate::plan::{ConfigChange, ReloadMode};
#[cfg(any(feature = "admin", feature = "http"))]
use crate::reached;
#[cfg(feature = "http")]
use crate::work::Work;

/// A command, with the channel for its answer.
#[derive(Debug)]
pub(crate) enum Command {
    Status(oneshot::Sender<Status>),
    Forget {
        node: NodeName,
        reply: oneshot::Sender<Forgetting>,
    },
    Verify {
        patience: Duration,
        reply: oneshot::Sender<Verification>,
    },
    /// Waits until so many other nodes hold this node's changes.
    Flush {
        nodes: usize,
        patience: Duration,
        reply: oneshot::Sender<Confirmed>,
    },
    /// Waits until this node holds the changes of a position.
    Reach {
        position: Position,
        patience: Duration,
        reply: oneshot::Sender<bool>,
    },
    /// What the replica knows of the runs.
    #[cfg(feature = "admin")]
    Standings(oneshot::Sender<Standings>),
    /// A page of the actors of an object, behind an actor.
    #[cfg(feature = "admin")]
    Actors {
        id: StructureId,
        after: Option<Actor>,
        reply: oneshot::Sender<Vec<ActorView>>,
    },
    /// The next link of an object behind a place, and the place behind it.
    #[cfg(feature = "admin")]
    Link {
        id: StructureId,
        place: LinkPlace,
        reply: oneshot::Sender<Option<(LinkView, LinkPlace)>>,
    },
    Reload {
        wanted: Box<Declared>,
        mode: ReloadMode,
        reply: oneshot::Sender<Result<Vec<ConfigChange>, StartError>>,
    },
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
    /// What the verification in the background has found.
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) convergence: Convergence,
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
