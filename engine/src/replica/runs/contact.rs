//! Whether a node speaks for itself.

use tallymesh_schemas::Incarnation;

/// The link between this node and another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    Unlinked,
    /// There is a link, and the run that the node stated on it, if any.
    Linked(Option<Incarnation>),
}

impl Contact {
    pub(crate) fn is_linked(self) -> bool {
        self != Self::Unlinked
    }

    /// The run that the node stated on the link.
    pub(crate) fn stated(self) -> Option<Incarnation> {
        match self {
            Self::Unlinked => None,
            Self::Linked(stated) => stated,
        }
    }
}
