//! Gauge caches: counters by name that expire when no node updates them for a configured time.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::actor::NameError;
use crate::bounds;
use crate::structure::{Class, StructureName, StructureSpec};

/// The configuration of one gauge cache on a node. It is the same on all nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GaugeCacheSpec {
    /// Its name.
    pub name: StructureName,
    /// Maximum number of entries; `None` means no bound.
    pub max_elements: Option<NonZeroU64>,
    /// Time to live of an entry after its last change; zero means that it never expires.
    pub ttl: Duration,
    /// Whether the cluster replicates it.
    pub replicate: bool,
    /// Longest time that a change waits so that several are sent together.
    pub max_delay: Duration,
    /// Maximum number of changes that wait.
    pub max_pending: usize,
    /// Maximum number of keys that this node holds, removed ones included; `None` means no bound.
    pub max_keys: Option<NonZeroU64>,
}

/// Prefix of the structure's name, before the gauge cache's name. A configured name has no colon.
const PREFIX: &str = "gauge:";

impl GaugeCacheSpec {
    /// A replicated gauge cache without bounds.
    ///
    /// # Errors
    /// [`NameError`] when the name is no valid object name, or longer than [`bounds::GAUGE_CACHE_NAME_BYTES`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        let max = bounds::GAUGE_CACHE_NAME_BYTES;
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
            max_keys: None,
        })
    }

    /// Its entries expire this long after their last change; zero means never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tallymesh_schemas::GaugeCacheSpec;
    ///
    /// let sessions = GaugeCacheSpec::new("sessions")?.with_ttl(Duration::from_secs(3600));
    /// assert_eq!(sessions.max_elements, None);
    /// # Ok::<(), tallymesh_schemas::NameError>(())
    /// ```
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// With at most this many entries.
    #[must_use]
    pub fn with_max_elements(self, max: NonZeroU64) -> Self {
        Self { max_elements: Some(max), ..self }
    }

    /// With at most this many keys, removed ones included. A change that needs a further key fails.
    #[must_use]
    pub fn with_max_keys(self, max: NonZeroU64) -> Self {
        Self { max_keys: Some(max), ..self }
    }

    /// Each node counts for itself.
    #[must_use]
    pub fn unreplicated(self) -> Self {
        Self { replicate: false, ..self }
    }

    /// With another longest wait and maximum number of waiting changes.
    #[must_use]
    pub fn with_pace(self, max_delay: Duration, max_pending: usize) -> Self {
        Self { max_delay, max_pending, ..self }
    }

    /// The structure that counts its entries.
    pub fn structure(&self) -> StructureSpec {
        let name = StructureName::derived(format!("{PREFIX}{}", self.name));
        let spec = StructureSpec::new(name, Class::GaugeCache);
        let (max_delay, max_pending, max_keys) = (self.max_delay, self.max_pending, self.max_keys);
        StructureSpec { max_delay, max_pending, max_keys, ..spec }
    }
}
