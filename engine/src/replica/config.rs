//! The configuration of a replica.

use std::time::Duration;

use tallymesh_schemas::{Budget, Version, bounds};

/// The configuration of a replica. The defaults suit clusters of up to 64 nodes.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two digests on a link, with a jitter of a fifth. A shorter time detects losses sooner and costs more
    /// messages.
    pub digest_interval: Duration,
    /// Time between two full digests, which list all entries.
    pub full_digest_interval: Duration,
    /// Bytes of rows in one delta. Larger deltas cost less per row. Smaller deltas delay the other streams less.
    pub delta_bytes: usize,
    /// How long a row stays zero before it is retired.
    pub idle_after: Duration,
    /// How long the replica remembers retired rows for peers that have not applied the retirement. A peer that is away for
    /// longer needs a snapshot when it is back.
    pub retention: Duration,
    /// How long the runs of a forgotten node are refused: longer than the longest partition.
    pub tombstone_life: Duration,
    /// The version above which this node renews as a new run, whose versions start at 1 again.
    pub last_version: Version,
    /// What the objects of the node may hold together. Without it, there is no bound.
    pub budget: Budget,
    /// The seed of jitter and hash seeds.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            digest_interval: Duration::from_secs(1),
            full_digest_interval: Duration::from_secs(30),
            delta_bytes: 256 << 10,
            idle_after: Duration::from_secs(60),
            retention: Duration::from_secs(600),
            tombstone_life: Duration::from_secs(7 * 24 * 3600),
            last_version: bounds::VERSION.before(1 << 32),
            budget: Budget::default(),
            seed: 0,
        }
    }
}
