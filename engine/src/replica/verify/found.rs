//! What a verification found.

use tallymesh_schemas::{Actor, NodeName, StructureName, Version};

use crate::replica::PeerClock;

/// What a verification found. All lists of members are in order of name.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Verification {
    /// Who answered, this node included.
    pub members: Vec<NodeName>,
    /// Who has a link to this node and said nothing at all since it was asked.
    pub silent: Vec<NodeName>,
    /// Who said something since it was asked, but has not given its whole answer.
    pub late: Vec<NodeName>,
    /// Who does not answer the membership either, and has not left.
    pub dead: Vec<NodeName>,
    /// Who lives and has no link to this node, though it should have one.
    pub unlinked: Vec<NodeName>,
    /// Who lives and is heard of through others, as is usual in large clusters. Copies of its rows were compared with each
    /// other; what it holds itself is for those to compare who have a link to it.
    pub beyond: Vec<NodeName>,
    /// Members that have another kind for a structure, which is not exchanged with them.
    pub mismatched: Vec<(NodeName, StructureName)>,
    /// What is not held because a bound was reached.
    pub unheld: Vec<Unheld>,
    /// There is more of that than is named.
    pub more_unheld: bool,
    /// Structures that were compared.
    pub structures: usize,
    /// Actors whose rows were compared.
    pub actors: usize,
    /// Copies that were compared with what their owner says, or, where the owner is away, with each other.
    pub copies: usize,
    /// Copies that are not as they should be.
    pub findings: Vec<Finding>,
    /// Peers whose clocks are off by more than [`Replica::clock_bound`](crate::Replica::clock_bound). Rows are compared all the
    /// same; but a node with such a clock counts in other windows, and its writes in caches may be refused.
    pub clocks: Vec<PeerClock>,
}

/// What a verification comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Outcome {
    /// Every member answered, and holds what every owner has.
    Converged,
    /// A copy differs or lags, or a member is away, or something is not held.
    NotConverged,
    /// Nothing is known to be wrong, and not everything could be compared in the time that there was.
    NotCompared,
}

impl Verification {
    /// What it comes to.
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

    /// Whether every member answered, and holds what every owner has.
    pub fn converged(&self) -> bool {
        self.outcome() == Outcome::Converged
    }

    /// Takes those who are reached through others and should have a link (`linked`) for unlinked.
    pub(super) fn expect_links(&mut self, linked: impl Fn(&NodeName) -> bool) {
        let (unlinked, beyond) = std::mem::take(&mut self.beyond).into_iter().partition(|name| linked(name));
        self.beyond = beyond;
        self.unlinked.extend::<Vec<_>>(unlinked);
        self.unlinked.sort();
    }
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Fault {
    /// It has less than its owner had when it was first asked.
    Lags,
    /// It has what its owner had when it was first asked, and the owner has changed more since: the two could not be
    /// compared at the same version.
    Changes,
    /// At the same version as its owner it holds other rows.
    Differs,
}

/// A copy that is not what its owner has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Where.
    pub structure: StructureName,
    /// Whose rows.
    pub actor: Actor,
    /// Who holds the copy.
    pub member: NodeName,
    /// The version that it has.
    pub applied: Version,
    /// The version that the owner has.
    pub head: Version,
    /// What is wrong with it.
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
    /// The other nodes do not get all that this one counts in a structure: it has more rows than one run may have.
    Untold {
        /// The structure.
        structure: StructureName,
    },
}
