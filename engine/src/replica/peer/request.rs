//! What a node asks a peer for.

use tallymesh_schemas::Version;
use tallymesh_schemas::message::Want;

use crate::replica::stream::StreamId;

/// Which rows of a stream to ask for. The asking node knows the keys of rows that were created after version `since`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    /// The rows after version `after`.
    Rows {
        /// The start of this node's copy.
        since: Version,
        /// The version that this node has reached.
        after: Version,
    },
    /// A snapshot.
    Snapshot {
        /// The start of the staging copy.
        since: Version,
        /// The version that the staging copy has reached.
        after: Version,
    },
}

impl Request {
    /// All rows, as a snapshot.
    pub(crate) const WHOLE: Self = Self::Snapshot { since: Version::ZERO, after: Version::ZERO };

    /// All rows, without a snapshot.
    pub(crate) const FROM_START: Self = Self::Rows { since: Version::ZERO, after: Version::ZERO };

    /// The message that asks for rows of a stream.
    pub(crate) fn want(self, (structure, actor): StreamId) -> Want {
        match self {
            Self::Rows { since, after } => Want { structure, actor, since, after, snapshot: false },
            Self::Snapshot { since, after } => Want { structure, actor, since, after, snapshot: true },
        }
    }
}
