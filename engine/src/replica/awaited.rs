//! What a starting node still waits for: its peers' reports, and what they hold that this node lacks.

use tallymesh_schemas::{NodeName, StructureName};

use crate::replica::Replica;

/// Something that a node waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// A linked peer has not listed yet what it holds.
    Digest {
        /// The peer.
        peer: NodeName,
    },
    /// Rows that a peer has reported and this node lacks.
    Rows {
        /// The structure.
        structure: StructureName,
        /// The node that owns the rows.
        node: NodeName,
    },
    /// Entries of a cache that a peer has not sent to their end.
    Entries {
        /// The cache.
        cache: StructureName,
        /// The peer.
        peer: NodeName,
    },
}

impl Replica {
    /// What this node waits for, as far as its linked peers have reported it; at most `most` of it. While the peers count,
    /// some of it is there most of the time. Empty once means that this node has held all that its peers had.
    pub fn awaited(&self, most: usize) -> Vec<Awaited> {
        let silent = self.peers.links.iter().filter(|(_, link)| link.completes == 0);
        let silent = silent.map(|(peer, _)| Awaited::Digest { peer: peer.clone() });
        let rows = self.peers.links.values().flat_map(|link| &link.behind).filter_map(|(part, behind)| {
            let structure = &self.structures.get(&part.0)?.structure;
            let is_behind = structure.progress(&part.1)?.applied < behind.target;
            let structure = structure.spec().name.clone();
            is_behind.then(|| Awaited::Rows { structure, node: part.1.node.clone() })
        });
        let entries = self.caches.iter().filter(|(_, held)| held.shared).flat_map(|(_, held)| {
            let cache = &held.cache.spec().name;
            held.awaited().map(|peer| Awaited::Entries { cache: cache.clone(), peer: peer.clone() })
        });
        silent.chain(rows).chain(entries).take(most).collect()
    }
}
