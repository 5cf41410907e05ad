//! Budgets: how much the objects of a node may hold together.

use std::fmt;
use std::num::NonZeroU64;

/// What all objects of a node may hold together. `None` means no bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Keys of all objects, with the entries of caches.
    pub keys: Option<NonZeroU64>,
    /// Bytes of the keys and values of all caches.
    pub bytes: Option<NonZeroU64>,
}

/// What a budget counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Keys.
    Keys,
    /// Bytes of keys and values of caches.
    Bytes,
}

impl Unit {
    /// The setting that bounds it.
    fn setting(self) -> &'static str {
        match self {
            Self::Keys => "max_keys",
            Self::Bytes => "max_bytes",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keys => "keys",
            Self::Bytes => "bytes",
        })
    }
}

/// A change that does not fit within a budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} has {used} {unit} and may have {max}: raise {setting}, or wait until keys are removed",
    place = object.as_ref().map_or_else(|| "this node".to_owned(), |object| format!("\"{object}\"")),
    setting = unit.setting()
)]
pub struct OverBudget {
    /// The object; `None` for the total of the node.
    pub object: Option<String>,
    /// What the budget counts.
    pub unit: Unit,
    /// How much is in use.
    pub used: u64,
    /// How much may be in use.
    pub max: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_object_its_use_and_its_budget() {
        let mut over = OverBudget { object: Some("inbound_cidr".to_owned()), unit: Unit::Keys, used: 10, max: 10 };
        let shown = "\"inbound_cidr\" has 10 keys and may have 10: raise max_keys, or wait until keys are removed";
        assert_eq!(over.to_string(), shown);
        (over.object, over.unit) = (None, Unit::Bytes);
        let shown = "this node has 10 bytes and may have 10: raise max_bytes, or wait until keys are removed";
        assert_eq!(over.to_string(), shown);
    }
}
