//! Identities: node names, incarnations, actors, and the versions that order an actor's rows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// A position in the history of one actor's rows in one structure: dense, from 1; 0 is before the first change.
pub type Version = u64;

/// The name of a node: 1 to 64 bytes, a host name in lower case (letters, digits, `-`, `_`, labels joined by `.`).
///
/// The name is what the node's certificate says, so it has to be a name that a certificate can carry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// Why a node name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("a name needs at least one character")]
    Empty,
    /// The name is too long.
    #[error("a name may have {max} bytes at most, this one has {len}: shorten it")]
    TooLong {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("'{character}' cannot stand in the name \"{name}\": use {allowed}")]
    Character {
        /// The name.
        name: String,
        /// The first character that is not allowed.
        character: char,
        /// What is allowed instead.
        allowed: &'static str,
    },
    /// A label is empty or begins or ends with a hyphen.
    #[error("each part between the dots of \"{0}\" must begin and end with a letter or digit")]
    Label(String),
}

impl NodeName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > limits::NODE_NAME_BYTES {
            return Err(NameError::TooLong { len: name.len(), max: limits::NODE_NAME_BYTES });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if let Some(character) = name.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Character {
                name: name.to_owned(),
                character,
                allowed: "lower-case letters, digits, '-', '_' and '.'",
            });
        }
        if name.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
            return Err(NameError::Label(name.to_owned()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = NodeName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node name")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<NodeName, E> {
                NodeName::new(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Which run of a node: the wall clock's milliseconds since 1970 at its start, or one more than any run of that name
/// that it has heard of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One run of one node: the only writer of its rows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeName,
    /// The run.
    pub incarnation: Incarnation,
}

impl Actor {
    /// An actor from its parts.
    pub fn new(node: NodeName, incarnation: Incarnation) -> Self {
        Self { node, incarnation }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.incarnation)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names_in_lower_case() {
        for good in ["a", "relay-0-1", "mx.example.net", "node_7"] {
            assert_eq!(NodeName::new(good).unwrap().as_str(), good);
        }
        assert_eq!(NodeName::new(""), Err(NameError::Empty));
        assert!(matches!(NodeName::new("Relay"), Err(NameError::Character { character: 'R', .. })));
        assert!(matches!(NodeName::new("a b"), Err(NameError::Character { character: ' ', .. })));
        for bad in ["-a", "a-", "a..b", ".a", "a."] {
            assert_eq!(NodeName::new(bad), Err(NameError::Label(bad.to_owned())));
        }
        assert!(matches!(NodeName::new(&"a".repeat(65)), Err(NameError::TooLong { len: 65, max: 64 })));
    }
}
