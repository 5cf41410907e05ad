//! Series: counts of events per time window. Windows are numbered since 1970, so a number means the same window on all nodes.
//!
//! Each window of a series is a structure of its own. Its name is derived from the series and the window's number. Each node
//! creates it when the window begins and drops it when it is too old, without any message.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::actor::NameError;
use crate::bounds;
use crate::structure::{Class, Kind, OnDead, StructureName, StructureSpec};
use crate::unix_ms::UnixMs;

/// The number of a window: milliseconds since 1970 divided by the interval, rounded down.
pub type Window = u64;

/// The name of a series, 1 to 40 bytes of letters, digits, `_`, `-` and `.`, and its origin: an audit metric and a named series
/// may have the same name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesName {
    name: StructureName,
    metric: bool,
}

impl SeriesName {
    /// The name of a series that a configuration or a program defines.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() > bounds::SERIES_NAME_BYTES {
            return Err(NameError::TooLong { len: name.len(), max: bounds::SERIES_NAME_BYTES });
        }
        Ok(Self { name: StructureName::new(name)?, metric: false })
    }

    /// The name of the series of an audit metric.
    pub(crate) fn audited(metric: &str) -> Self {
        Self { name: StructureName::derived(metric.to_owned()), metric: true }
    }

    /// Whether it is the name of an audit metric.
    pub fn is_metric(&self) -> bool {
        self.metric
    }

    /// The name as text, without its origin.
    pub fn as_str(&self) -> &str {
        self.name.as_str()
    }
}

impl fmt::Display for SeriesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The configuration of one series on a node. Nodes with different intervals for one series keep two series. A node that keeps
/// fewer windows reads fewer of them; nodes report that difference.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SeriesSpec {
    /// Its name.
    pub name: SeriesName,
    /// The kind of its keys: addresses and blocks, or names.
    pub kind: Kind,
    /// Seconds of a window.
    pub interval: u32,
    /// Number of windows kept, the current one included.
    pub windows: u32,
    /// Whether the cluster replicates it; otherwise each node counts for itself.
    pub replicate: bool,
    /// Whether its counts survive a restart of the whole cluster, on nodes that save their state.
    pub persist: bool,
    /// Longest time that a change waits so that several are sent together.
    pub max_delay: Duration,
    /// Maximum number of changes that wait. When there are more, they are sent at once.
    pub max_pending: usize,
    /// Maximum number of keys that this node holds in all windows together; `None` means no bound.
    pub max_keys: Option<NonZeroU64>,
}

impl SeriesSpec {
    /// A series that the cluster replicates and that is not saved.
    pub fn new(name: SeriesName, kind: Kind, interval: u32, windows: u32) -> Self {
        let (max_delay, max_pending) = (StructureSpec::MAX_DELAY, StructureSpec::MAX_PENDING);
        let (replicate, persist, max_keys) = (true, false, None);
        Self { name, kind, interval, windows, replicate, persist, max_delay, max_pending, max_keys }
    }

    /// Its counts survive a restart of the whole cluster, on nodes that save their state.
    ///
    /// ```
    /// use tallymesh_schemas::{Kind, SeriesName, SeriesSpec};
    ///
    /// let logins = SeriesSpec::new(SeriesName::new("logins")?, Kind::GaugeTable, 300, 6).persistent();
    /// assert!(logins.persist && logins.replicate);
    /// # Ok::<(), tallymesh_schemas::NameError>(())
    /// ```
    #[must_use]
    pub fn persistent(self) -> Self {
        Self { persist: true, ..self }
    }

    /// Each node counts for itself.
    #[must_use]
    pub fn unreplicated(self) -> Self {
        Self { replicate: false, ..self }
    }

    /// With at most this many keys in all windows together. A change that needs a further key fails.
    #[must_use]
    pub fn with_max_keys(self, max: NonZeroU64) -> Self {
        Self { max_keys: Some(max), ..self }
    }

    /// With another longest wait and maximum number of waiting changes.
    #[must_use]
    pub fn with_pace(self, max_delay: Duration, max_pending: usize) -> Self {
        Self { max_delay, max_pending, ..self }
    }

    /// The class of its windows.
    pub fn class(&self) -> Class {
        match self.kind {
            Kind::CidrTree => Class::AddressEvents,
            Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => Class::NamedEvents,
        }
    }

    /// Milliseconds of a window.
    pub fn interval_ms(&self) -> u64 {
        u64::from(self.interval.max(1)) * 1000
    }

    /// The window that contains a moment, in milliseconds since 1970.
    pub fn window_at(&self, unix_ms: UnixMs) -> Window {
        unix_ms.0 / self.interval_ms()
    }

    /// The structure of one of its windows.
    pub fn structure(&self, window: Window) -> StructureSpec {
        let owner = if self.name.metric { "audit" } else { "series" };
        let name = StructureName::derived(format!("{owner}/{}/{}@{window}", self.name, self.interval));
        StructureSpec {
            on_dead: OnDead::Hold,
            max_delay: self.max_delay,
            max_pending: self.max_pending,
            ..StructureSpec::new(name, self.class())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Metric;

    #[test]
    fn every_name_fits_the_wire() {
        let name = "n".repeat(bounds::SERIES_NAME_BYTES);
        for name in [SeriesName::new(&name).unwrap(), Metric::Reception.series()] {
            for interval in [1, 60, 99_999, *bounds::MONITOR_INTERVAL.end()] {
                let spec = SeriesSpec::new(name.clone(), Kind::CidrTree, interval, 6);
                // The year 4000.
                let structure = spec.structure(spec.window_at(UnixMs(64_060_588_800_000)));
                assert!(structure.name.as_str().len() <= bounds::STRUCTURE_NAME_BYTES, "{}", structure.name);
            }
        }
        assert!(SeriesName::new(&"n".repeat(bounds::SERIES_NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn windows_and_series_have_ids_of_their_own() {
        let spec = |name: SeriesName, interval| SeriesSpec::new(name, Kind::CidrTree, interval, 6);
        let (named, metric) = (SeriesName::new("connect").unwrap(), Metric::Connect.series());
        let ids = [spec(named.clone(), 300), spec(named, 60), spec(metric, 300)]
            .iter()
            .flat_map(|spec| [spec.structure(7), spec.structure(8)])
            .map(|structure| structure.name.id())
            .collect::<std::collections::BTreeSet<_>>();
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn a_window_is_counted_from_1970() {
        let spec = SeriesSpec::new(SeriesName::new("x").unwrap(), Kind::GaugeTable, 300, 6);
        assert_eq!((spec.window_at(UnixMs(299_999)), spec.window_at(UnixMs(300_000))), (0, 1));
    }
}
