//! Gauge caches: counters by name that go when nobody has changed them for long.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::actor::NameError;
use crate::limits;
use crate::structure::{Class, StructureName, StructureSpec};

/// One gauge cache as a node is configured for it; the same on all nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GaugeCacheSpec {
    /// Its name.
    pub name: StructureName,
    /// Entries that it holds; `None` is without bound.
    pub max_elements: Option<NonZeroU64>,
    /// How long an entry stays after its last change; zero for good.
    pub ttl: Duration,
    /// Whether the cluster shares it.
    pub replicate: bool,
    /// Longest time that a change waits to be sent with others.
    pub max_delay: Duration,
    /// Changes that may wait.
    pub max_pending: usize,
}

/// What stands before its name in that of its structure. No name that is given has a colon.
const PREFIX: &str = "gauge:";

impl GaugeCacheSpec {
    /// A gauge cache without bounds that the cluster shares.
    ///
    /// # Errors
    /// [`NameError`] when the name is no name of an object, or longer than [`limits::GAUGE_CACHE_NAME_BYTES`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let max = limits::GAUGE_CACHE_NAME_BYTES;
        let name = StructureName::new(name)?;
        if name.as_str().len() > max {
            return Err(NameError::TooLong { len: name.as_str().len(), max });
        }
        Ok(Self {
            name,
            max_elements: None,
            ttl: Duration::ZERO,
            replicate: true,
            max_delay: StructureSpec::MAX_DELAY,
            max_pending: StructureSpec::MAX_PENDING,
        })
    }

    /// The structure that its entries are counted in.
    pub fn structure(&self) -> StructureSpec {
        let name = StructureName::derived(format!("{PREFIX}{}", self.name));
        let spec = StructureSpec::new(name, Class::GaugeCache);
        StructureSpec { max_delay: self.max_delay, max_pending: self.max_pending, ..spec }
    }
}
