//! What a replicated structure is: its name, class, kind and parameters.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::NameError;
use crate::limits;

/// The name of a structure: 1 to 64 bytes of letters, digits, `_`, `-` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct StructureName(String);

impl StructureName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > limits::STRUCTURE_NAME_BYTES {
            return Err(NameError::TooLong { len: name.len(), max: limits::STRUCTURE_NAME_BYTES });
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

    /// A name that is made from others, of characters that no other name has.
    pub(crate) fn derived(name: String) -> Self {
        debug_assert!(name.len() <= limits::STRUCTURE_NAME_BYTES, "{name} does not fit");
        Self(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for the name on the wire.
    pub fn id(&self) -> StructureId {
        StructureId::of(&self.0)
    }
}

impl fmt::Display for StructureName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A structure's name on the wire: the 64-bit FNV-1a hash of its name, so that no message depends on another having
/// arrived before it. Two names of one node that share an id are refused when the node is configured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StructureId(pub u64);

impl StructureId {
    /// The id of a name.
    pub fn of(name: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }
}

/// What kind of key and of aggregation a structure has; two nodes that call one name by different kinds do not
/// exchange it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Addresses and CIDR blocks, summed under any prefix.
    CidrTree,
    /// Names, each with its count.
    GaugeTable,
    /// Throttles by name, each with what it has admitted.
    ThrottleTable,
    /// Keys of any bytes, each with a value of any bytes.
    Cache,
}

impl Kind {
    /// As the console calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::CidrTree => "cidrtree",
            Self::GaugeTable => "gauge table",
            Self::ThrottleTable => "throttle table",
            Self::Cache => "cache",
        }
    }
}

/// What a count is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cell {
    /// Something that is open: it ends with the run of the node that holds it, so a newer run supersedes the rows of the
    /// older ones, a node that leaves sets its own to zero, and a key that is idle at zero is retired.
    Gauge,
    /// Something that has happened: the rows of a run go on counting when the node restarts, leaves or dies, for as long
    /// as the structure lasts.
    Events,
    /// A value that the last writer decides: it outlives the run that wrote it.
    Register,
}

/// What is counted: decides the key, and what becomes of a dead node's counts.
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
    /// What the nodes are configured for, one row for each setting.
    Settings,
}

impl Class {
    /// The classes that a `Replicate` stanza can name. (Windows of series come with their series.)
    pub const ALL: [Self; 4] =
        [Self::InboundCidr, Self::OutboundCidr, Self::OutboundDomains, Self::OutboundBindingDomains];

    /// The classes of throttles; each has one structure, of its name.
    pub const THROTTLES: [Self; 3] = [Self::SharedNamedThrottles, Self::OutboundMessages, Self::OutboundConnections];

    /// The name that a configuration calls it by.
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

    /// Whether it is the class of a series' windows.
    pub fn is_window(self) -> bool {
        matches!(self, Self::AddressEvents | Self::NamedEvents)
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// How its keys are ordered and summed.
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

    /// What its counts are of: it decides whether they outlive the run that counted.
    pub fn cell(self) -> Cell {
        match self {
            Self::InboundCidr | Self::OutboundCidr | Self::OutboundDomains | Self::OutboundBindingDomains => {
                Cell::Gauge
            }
            Self::Settings => Cell::Gauge,
            Self::AddressEvents | Self::NamedEvents | Self::GaugeCache => Cell::Events,
            // What a throttle has admitted matters to those who hear it as it grows; its rows go when it is idle.
            Self::SharedNamedThrottles | Self::OutboundMessages | Self::OutboundConnections => Cell::Gauge,
            Self::Cache => Cell::Register,
        }
    }

    /// What becomes of a dead node's counts unless the configuration says otherwise: an inbound connection ends with
    /// the node that held it, an outbound one may still be held open by the other side.
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

/// What becomes of the counts of a node that was declared dead. A filter on what is read: nothing that is stored changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnDead {
    /// They stop counting this long after the node was declared dead.
    Drop(Duration),
    /// They go on counting until the node returns or is forgotten.
    Hold,
}

/// One replicated structure as a node is configured for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StructureSpec {
    /// Its name.
    pub name: StructureName,
    /// What it counts.
    pub class: Class,
    /// Whether a node that joins gets what was counted before; without it only what changes from then on.
    pub snapshot: bool,
    /// What becomes of a dead node's counts.
    pub on_dead: OnDead,
    /// Longest time that a change waits to be sent with others. The first change after idle does not wait.
    pub max_delay: Duration,
    /// Changes that may wait; when there are more, they are sent at once.
    pub max_pending: usize,
    /// How large a cache may grow.
    pub bounds: Bounds,
}

/// How large a cache may grow. `None` is without bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Entries.
    pub elements: Option<NonZeroU64>,
    /// Bytes of all keys and values together.
    pub bytes: Option<NonZeroU64>,
}

impl StructureSpec {
    /// Longest wait of a change unless the configuration says otherwise.
    pub const MAX_DELAY: Duration = Duration::from_millis(10);

    /// Changes that may wait unless the configuration says otherwise.
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
        }
    }

    /// The cache in which a node keeps how full the throttles are that are counted in a structure. It is not replicated.
    pub fn levels(of: &StructureName) -> Self {
        Self::new(StructureName::derived(format!("level:{of}")), Class::Cache)
    }

    /// The structure in which each node states what it is configured for. No name that is given has a colon.
    pub fn settings() -> Self {
        let name = StructureName::derived("node:settings".to_owned());
        Self { on_dead: OnDead::Drop(Duration::ZERO), ..Self::new(name, Class::Settings) }
    }

    /// As the console lists it: `lazy, cidrtree w/ snapshots`.
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
