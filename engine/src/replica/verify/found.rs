//! The result of a verification.

use tallymesh_schemas::{Actor, NodeName, StructureName, Version};

use crate::replica::peer::clock::PeerClock;

/// The result of a verification. All lists of members are in order of name.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Verification {
    /// The nodes that answered, including this node.
    pub members: Vec<NodeName>,
    /// Nodes with a link to this node that sent nothing at all since the probe.
    pub silent: Vec<NodeName>,
    /// Nodes that sent a message since the probe, but have not sent their complete answer.
    pub late: Vec<NodeName>,
    /// Nodes that do not answer the membership either, and have not left.
    pub dead: Vec<NodeName>,
    /// Live nodes without a link to this node that should have one.
    pub unlinked: Vec<NodeName>,
    /// Live nodes that this node reaches through other nodes, as is usual in large clusters. Copies of their rows were compared
    /// with each other. Only nodes with a link to them can check what they hold themselves.
    pub beyond: Vec<NodeName>,
    /// Members that have another kind for a structure, or a build of a protocol version that is too old for it. The nodes do not
    /// exchange it.
    pub mismatched: Vec<(NodeName, StructureName)>,
    /// What this node does not hold because a bound was reached.
    pub unheld: Vec<Unheld>,
    /// There is more of that than `unheld` lists.
    pub more_unheld: bool,
    /// Structures that were compared.
    pub structures: usize,
    /// Actors whose rows were compared.
    pub actors: usize,
    /// Copies that were compared with their owner's rows, or, if the owner is away, with each other.
    pub copies: usize,
    /// Copies that differ, lag or could not be compared.
    pub findings: Vec<Finding>,
    /// Peers whose clocks are off by more than [`Replica::clock_bound`](crate::replica::Replica::clock_bound). Their rows are compared
    /// anyway. But a node with such a clock counts in other windows, and other nodes may refuse its cache writes.
    pub clocks: Vec<PeerClock>,
}

/// The outcome of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Outcome {
    /// Every member answered, and holds all rows of every owner.
    Converged,
    /// A copy differs or lags, or a member is away, or something is not held.
    NotConverged,
    /// No fault is known, and not everything could be compared in the available time.
    NotCompared,
}

impl Verification {
    /// The outcome of this verification.
    pub fn outcome(&self) -> Outcome {
        let away = [&self.silent, &self.dead, &self.unlinked].iter().any(|members| !members.is_empty());
        let unheld = !self.unheld.is_empty() || self.more_unheld || !self.mismatched.is_empty();
        let wrong = self.findings.iter().any(|finding| finding.fault != Fault::Changes);
        if away || unheld || wrong {
            Outcome::NotConverged
        } else if !self.late.is_empty() || !self.findings.is_empty() {
            Outcome::NotCompared
        } else {
            Outcome::Converged
        }
    }

    /// Whether every member answered, and holds all rows of every owner.
    pub fn converged(&self) -> bool {
        self.outcome() == Outcome::Converged
    }

    /// Moves the members that should have a link (`linked`) from `beyond` to `unlinked`.
    pub(crate) fn expect_links(&mut self, linked: impl Fn(&NodeName) -> bool) {
        let (unlinked, beyond) = std::mem::take(&mut self.beyond).into_iter().partition(|name| linked(name));
        self.beyond = beyond;
        self.unlinked.extend::<Vec<_>>(unlinked);
        self.unlinked.sort();
    }
}

/// The fault of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Fault {
    /// It has less than its owner had at the first probe.
    Lags,
    /// It has what its owner had at the first probe, and the owner has changed more since. The two could not be compared at the
    /// same version.
    Changes,
    /// It holds other rows than its owner at the same version.
    Differs,
}

/// A copy that is not equal to its owner's rows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The structure.
    pub structure: StructureName,
    /// The actor that owns the rows.
    pub actor: Actor,
    /// The member that holds the copy.
    pub member: NodeName,
    /// The applied version of the copy.
    pub applied: Version,
    /// The owner's version.
    pub head: Version,
    /// The fault.
    pub fault: Fault,
}

/// Something that is not held because a bound was reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Unheld {
    /// This node has no place for a run's rows in a structure.
    Run {
        /// The structure.
        structure: StructureName,
        /// The run.
        actor: Actor,
    },
    /// This node has no place for a node.
    Node {
        /// The node.
        node: NodeName,
    },
    /// The other nodes do not receive all counts of this node in a structure: it has more rows than one run may have.
    Unsent {
        /// The structure.
        structure: StructureName,
    },
    /// This node has no room for all keys of a structure: its budget is used up.
    NoRoom {
        /// The structure.
        structure: StructureName,
    },
}
