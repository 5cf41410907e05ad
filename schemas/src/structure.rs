//! A replicated structure: its name, class, kind and parameters.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::NameError;
use crate::bounds;

/// The name of a structure: 1 to 64 bytes of letters, digits, `_`, `-` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct StructureName(String);

impl StructureName {
    /// Checks a name and converts it.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > bounds::STRUCTURE_NAME_BYTES {
            return Err(NameError::TooLong { len: name.len(), max: bounds::STRUCTURE_NAME_BYTES });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match name.chars().find(|c| !allowed(*c)) {
            None => Ok(Self(name.to_owned())),
            Some(character) => Err(NameError::Character {
                name: name.to_owned(),
                character,
                allowed: "letters, digits, '_', '-' and '.'",
            }),
        }
    }

    /// A name derived from others. It contains characters that a configured name cannot have.
    pub(crate) fn derived(name: String) -> Self {
        debug_assert!(name.len() <= bounds::STRUCTURE_NAME_BYTES, "{name} does not fit");
        Self(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that represents the name on the wire.
    pub fn id(&self) -> StructureId {
        StructureId::of(&self.0)
    }
}

impl fmt::Display for StructureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A structure's name on the wire: the 64-bit FNV-1a hash of its name. So a receiver needs no earlier message to understand it.
/// The configuration refuses two names of one node that share an id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StructureId(pub u64);

impl StructureId {
    /// The id of a name.
    pub fn of(name: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }
}

/// The kind of key and of aggregation of a structure. Two nodes with different kinds for one name do not exchange it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Addresses and CIDR blocks, summed under any prefix.
    CidrTree,
    /// Names, each with a count.
    GaugeTable,
    /// Throttles by name, each with its admissions.
    ThrottleTable,
    /// Keys of arbitrary bytes, each with a value of arbitrary bytes.
    Cache,
}

impl Kind {
    /// The console's word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::CidrTree => "cidrtree",
            Self::GaugeTable => "gauge table",
            Self::ThrottleTable => "throttle table",
            Self::Cache => "cache",
        }
    }
}

/// What a count measures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cell {
    /// A gauge: something that is open. It ends with the run of the node that holds it. So a newer run supersedes the rows of
    /// older ones, a node that leaves sets its own rows to zero, and the owner retires a key that is idle at zero.
    Gauge,
    /// Events: the rows of a run continue to count when the node restarts, leaves or dies, as long as the structure exists.
    Events,
    /// A cache: the last write of each key wins, and it stays when its run ends. A cache has no rows.
    Register,
}

/// What a structure counts. It determines the key format, and what happens to a dead node's counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Class {
    /// Inbound connections by address.
    InboundCidr,
    /// Outbound connections by address.
    OutboundCidr,
    /// Outbound connections by domain.
    OutboundDomains,
    /// Outbound connections by binding and domain.
    OutboundBindingDomains,
    /// Events by address, in one window of a series.
    AddressEvents,
    /// Events by name, in one window of a series.
    NamedEvents,
    /// Throttles that the cluster shares, by name.
    SharedNamedThrottles,
    /// Throttles of outbound messages, by scope.
    OutboundMessages,
    /// Throttles of outbound connections, by scope.
    OutboundConnections,
    /// Values by key; the last writer wins.
    Cache,
    /// Counters by name, of a gauge cache.
    GaugeCache,
    /// The configuration of the nodes, one row for each setting.
    Settings,
}

impl Class {
    /// The classes that a `Replicate` stanza can name. (A series brings the class of its windows.)
    pub const ALL: [Self; 4] =
        [Self::InboundCidr, Self::OutboundCidr, Self::OutboundDomains, Self::OutboundBindingDomains];

    /// The classes of throttles; each has one structure, with the name of the class.
    pub const THROTTLES: [Self; 3] = [Self::SharedNamedThrottles, Self::OutboundMessages, Self::OutboundConnections];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::InboundCidr => "inbound_cidr",
            Self::OutboundCidr => "outbound_cidr",
            Self::OutboundDomains => "outbound_domains",
            Self::OutboundBindingDomains => "outbound_binding_domains",
            Self::AddressEvents => "address_events",
            Self::NamedEvents => "named_events",
            Self::SharedNamedThrottles => "shared_named_throttles",
            Self::OutboundMessages => "OBTM",
            Self::OutboundConnections => "OBTC",
            Self::Cache => "cache",
            Self::GaugeCache => "gauge_cache",
            Self::Settings => "settings",
        }
    }

    /// Whether it is the class of the windows of a series.
    pub fn is_window(self) -> bool {
        matches!(self, Self::AddressEvents | Self::NamedEvents)
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The kind: how its keys are ordered and summed.
    pub fn kind(self) -> Kind {
        match self {
            Self::InboundCidr | Self::OutboundCidr | Self::AddressEvents => Kind::CidrTree,
            Self::OutboundDomains
            | Self::OutboundBindingDomains
            | Self::NamedEvents
            | Self::GaugeCache
            | Self::Settings => Kind::GaugeTable,
            Self::SharedNamedThrottles | Self::OutboundMessages | Self::OutboundConnections => Kind::ThrottleTable,
            Self::Cache => Kind::Cache,
        }
    }

    /// What its counts measure. It determines whether they survive the run that counted.
    pub fn cell(self) -> Cell {
        match self {
            Self::InboundCidr | Self::OutboundCidr | Self::OutboundDomains | Self::OutboundBindingDomains => {
                Cell::Gauge
            }
            Self::Settings => Cell::Gauge,
            Self::AddressEvents | Self::NamedEvents | Self::GaugeCache => Cell::Events,
            // Other nodes need a throttle's admissions while they grow. The rows go when the throttle is idle.
            Self::SharedNamedThrottles | Self::OutboundMessages | Self::OutboundConnections => Cell::Gauge,
            Self::Cache => Cell::Register,
        }
    }

    /// The default for a dead node's counts. An inbound connection ends with the node that held it. An outbound connection may
    /// still be held open by the other side.
    pub fn on_dead(self) -> OnDead {
        match self {
            Self::InboundCidr => OnDead::Drop(Duration::from_secs(10)),
            _ => OnDead::Hold,
        }
    }
}

impl From<Class> for StructureSpec {
    /// The structure that has its class's name and defaults.
    fn from(class: Class) -> Self {
        Self::new(StructureName(class.name().to_owned()), class)
    }
}

/// What happens to the counts of a node that was declared dead. This is a filter on reads; the stored rows do not change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnDead {
    /// They stop counting this long after the node was declared dead.
    Drop(Duration),
    /// They continue to count until the node returns or is forgotten.
    Hold,
}

/// The configuration of one replicated structure on a node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StructureSpec {
    /// Its name.
    pub name: StructureName,
    /// Its class.
    pub class: Class,
    /// Whether a joining node receives counts from before. Without it, the node receives only later changes.
    pub snapshot: bool,
    /// What happens to a dead node's counts.
    pub on_dead: OnDead,
    /// Longest time that a change waits so that several are sent together. The first change after an idle time does not wait.
    pub max_delay: Duration,
    /// Maximum number of changes that wait. When there are more, they are sent at once.
    pub max_pending: usize,
    /// Maximum size of a cache.
    pub bounds: Bounds,
    /// Maximum number of keys that this node holds, if it is not a cache; `None` means no bound.
    pub max_keys: Option<NonZeroU64>,
}

/// Maximum size of a cache. `None` means no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Entries.
    pub elements: Option<NonZeroU64>,
    /// Bytes of all keys and values together.
    pub bytes: Option<NonZeroU64>,
}

impl StructureSpec {
    /// Default for the longest wait of a change.
    pub const MAX_DELAY: Duration = Duration::from_millis(10);

    /// Default for the number of changes that may wait.
    pub const MAX_PENDING: usize = 4096;

    /// A structure of the class, with the class's defaults.
    pub fn new(name: StructureName, class: Class) -> Self {
        Self {
            name,
            class,
            snapshot: true,
            on_dead: class.on_dead(),
            max_delay: Self::MAX_DELAY,
            max_pending: Self::MAX_PENDING,
            bounds: Bounds::default(),
            max_keys: None,
        }
    }

    /// With this rule for the counts of a dead node.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tallymesh_schemas::{Class, OnDead, StructureName, StructureSpec};
    ///
    /// let spec = StructureSpec::new(StructureName::new("open")?, Class::InboundCidr)
    ///     .with_on_dead(OnDead::Drop(Duration::from_secs(10)))
    ///     .with_pace(Duration::from_millis(50), 1000)
    ///     .without_snapshot();
    /// assert!(!spec.snapshot);
    /// # Ok::<(), tallymesh_schemas::NameError>(())
    /// ```
    #[must_use]
    pub fn with_on_dead(self, on_dead: OnDead) -> Self {
        Self { on_dead, ..self }
    }

    /// With this maximum size, if it is a cache.
    #[must_use]
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// With at most this many keys on this node, if it is not a cache. A change that needs a further key fails.
    #[must_use]
    pub fn with_max_keys(self, max: NonZeroU64) -> Self {
        Self { max_keys: Some(max), ..self }
    }

    /// With another longest wait and maximum number of waiting changes.
    #[must_use]
    pub fn with_pace(self, max_delay: Duration, max_pending: usize) -> Self {
        Self { max_delay, max_pending, ..self }
    }

    /// A joining node receives only later changes.
    #[must_use]
    pub fn without_snapshot(self) -> Self {
        Self { snapshot: false, ..self }
    }

    /// The cache in which a node keeps the fill levels of the throttles that a structure counts. It is not replicated.
    pub fn levels(of: &StructureName) -> Self {
        Self::new(StructureName::derived(format!("level:{of}")), Class::Cache)
    }

    /// The structure in which each node announces its configuration. No configured name has a colon.
    pub fn settings() -> Self {
        let name = StructureName::derived("node:settings".to_owned());
        Self { on_dead: OnDead::Drop(Duration::ZERO), ..Self::new(name, Class::Settings) }
    }

    /// Its description in the console: `lazy, cidrtree w/ snapshots`.
    pub fn label(&self) -> String {
        format!("lazy, {}{}", self.class.kind().label(), if self.snapshot { " w/ snapshots" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_by_their_names() {
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_name("inbound"), None);
    }

    #[test]
    fn ids_differ_between_the_classes() {
        let ids: std::collections::BTreeSet<_> = Class::ALL.iter().map(|c| StructureId::of(c.name())).collect();
        assert_eq!(ids.len(), Class::ALL.len());
    }
}
