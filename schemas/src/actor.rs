//! Identities: node names, incarnations and actors.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds;
use crate::unix_ms::UnixMs;

/// The name of a node: 1 to 64 bytes, a host name in lower case (letters, digits, `-`, `_`, labels joined by `.`).
///
/// The node's certificate states this name, so a certificate must be able to contain it.
#[derive(Clone)]
pub struct NodeName {
    /// The first bytes as a big-endian number, padded with zeros. They decide most comparisons.
    start: u64,
    text: Arc<str>,
}

/// How many bytes of a name are compared at once. No byte of a name is zero, so the padding is unambiguous.
const START: usize = size_of::<u64>();

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
    /// Checks a name and converts it.
    ///
    /// # Errors
    /// [`NameError`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > bounds::NODE_NAME_BYTES {
            return Err(NameError::TooLong { len: name.len(), max: bounds::NODE_NAME_BYTES });
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
        let mut start = [0; START];
        name.bytes().zip(&mut start).for_each(|(byte, at)| *at = byte);
        Ok(Self { start: u64::from_be_bytes(start), text: name.into() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for NodeName {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.start == other.start && (self.text.len() < START || self.text == other.text)
    }
}

impl Eq for NodeName {}

impl PartialOrd for NodeName {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the names as text.
impl Ord for NodeName {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = || if self.text.len() < START { Ordering::Equal } else { self.text.cmp(&other.text) };
        self.start.cmp(&other.start).then_with(rest)
    }
}

impl Hash for NodeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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
        serializer.serialize_str(&self.text)
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

/// The number of a run of a node: the wall clock's milliseconds since 1970 at its start, or a number that is higher than any
/// run of that name that the process has received: see [`Incarnation::successor`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// A node cannot have a run with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no number of a run: the last one is {last}", last = bounds::INCARNATION - 1)]
pub struct NoSuchRun(pub u64);

/// The bounds of incarnations. Every path by which a number enters uses these checks: `--incarnation`, saved states, hellos,
/// close reasons, gossip, digests and tombstones. A number beyond a bound is refused and never changed into another one.
impl Incarnation {
    /// The greatest distance between a run and its successor. Within this distance the wall clock's millisecond selects the
    /// number.
    pub const STEP: u64 = 1 << 20;

    /// Returns the incarnation itself, if a node can have it.
    ///
    /// # Errors
    /// [`NoSuchRun`] for [`bounds::INCARNATION`] and all higher numbers.
    pub fn checked(self) -> Result<Self, NoSuchRun> {
        if self.0 < bounds::INCARNATION { Ok(self) } else { Err(NoSuchRun(self.0)) }
    }

    /// The next incarnation, which supersedes this one.
    ///
    /// # Errors
    /// [`NoSuchRun`] when this one is the last, or beyond.
    pub fn next(self) -> Result<Self, NoSuchRun> {
        Self(self.0.saturating_add(1)).checked()
    }

    /// The run that a process begins when it learns of this one: the first later number that equals the wall clock's
    /// milliseconds modulo [`Self::STEP`]. Two processes with the same name that learn of the same run therefore begin
    /// different runs, although they do not know of each other. If other nodes have to believe the number, it stays below the
    /// bound that they apply one millisecond later.
    ///
    /// # Errors
    /// [`NoSuchRun`] when this one is the last, or beyond.
    pub fn successor(self, unix_ms: UnixMs) -> Result<Self, NoSuchRun> {
        let least = self.next()?;
        let last = bounds::INCARNATION - 1;
        let highest = if self.is_credible(unix_ms) { Self::reported(unix_ms).min(last) } else { last };
        // At least one: a credible number lies below the reported one, and this run is not the last one.
        let step = (highest - self.0).min(Self::STEP);
        let further = (unix_ms.0 % step + step - least.0 % step) % step;
        Self(least.0 + further).checked()
    }

    /// The first number that a node does not believe about its own name.
    fn reported(unix_ms: UnixMs) -> u64 {
        bounds::INCARNATION_REPORTED.saturating_add(unix_ms.0)
    }

    /// Whether a node believes a report of other nodes that its own name has this run, and then begins a later one. The bound
    /// grows with the wall clock, faster than a node begins runs. So a process that has forgotten the node's later run still
    /// believes other nodes that report it.
    pub fn is_credible(self, unix_ms: UnixMs) -> bool {
        self.next().is_ok() && self.0 < Self::reported(unix_ms)
    }
}

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
    fn names_are_ordered_as_their_text() {
        let mut texts = vec!["a", "ab", "a-b", "node-01", "node-001", "node-0011", "node-0010", "node-001.b", "z"];
        let mut names: Vec<_> = texts.iter().map(|text| NodeName::new(text).unwrap()).collect();
        texts.sort_unstable();
        names.sort_unstable();
        assert_eq!(names.iter().map(NodeName::as_str).collect::<Vec<_>>(), texts);
        for (name, other) in texts.iter().flat_map(|name| texts.iter().map(move |other| (name, other))) {
            assert_eq!(NodeName::new(name) == NodeName::new(other), name == other, "{name} and {other}");
        }
    }

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

    #[test]
    fn runs_end_at_their_bound_and_no_number_is_changed_into_another() {
        let last = Incarnation(bounds::INCARNATION - 1);
        assert_eq!(last.checked(), Ok(last));
        assert_eq!(last.next(), Err(NoSuchRun(bounds::INCARNATION)));
        for beyond in [bounds::INCARNATION, u64::MAX] {
            assert_eq!(Incarnation(beyond).checked(), Err(NoSuchRun(beyond)));
            assert!(Incarnation(beyond).next().is_err());
        }
    }

    /// Other nodes can force a node up to some run. They can report that run later to a process that does not know it.
    #[test]
    fn the_answer_to_a_credible_claim_is_credible_a_millisecond_later() {
        assert!(!Incarnation(bounds::INCARNATION_REPORTED).is_credible(UnixMs::ZERO));
        for unix_ms in [1, 1_700_000_000_000].map(UnixMs) {
            let highest = Incarnation(bounds::INCARNATION_REPORTED + unix_ms.0 - 1);
            assert!(highest.is_credible(unix_ms));
            let answer = highest.successor(unix_ms).unwrap();
            assert!(!answer.is_credible(unix_ms));
            assert!(answer.is_credible(UnixMs(unix_ms.0 + 2)));
        }
        assert!(!Incarnation(bounds::INCARNATION - 1).is_credible(UnixMs(u64::MAX)));
    }

    #[test]
    fn processes_that_hear_of_the_same_run_begin_different_ones() {
        let known = Incarnation(1_735_690_601_237);
        let begun = |unix_ms| known.successor(UnixMs(unix_ms)).unwrap();
        for unix_ms in [0, 1, known.0 - 1, known.0, known.0 + 1, known.0 + 60_000, known.0 * 2] {
            assert!(begun(unix_ms) > known);
            assert!(begun(unix_ms).0 <= known.0 + Incarnation::STEP);
            for later in [1, 1_000, 60_000, Incarnation::STEP - 1] {
                assert_ne!(begun(unix_ms), begun(unix_ms + later), "{later} ms after {unix_ms}");
            }
        }
        assert_eq!(begun(known.0 + 60_000).0, known.0 + 60_000, "that of the clock, if it is ahead by little");
    }

    #[test]
    fn a_successor_is_a_run_wherever_there_is_a_later_one() {
        for unix_ms in [0, 1, 1_700_000_000_000, bounds::INCARNATION, u64::MAX].map(UnixMs) {
            let beyond = bounds::INCARNATION_REPORTED.saturating_add(unix_ms.0).min(bounds::INCARNATION - 1);
            for run in [0, 1, beyond - 1, beyond, bounds::INCARNATION - 3, bounds::INCARNATION - 2] {
                let run = Incarnation(run);
                let Ok(next) = run.next() else { continue };
                let successor = run.successor(unix_ms).unwrap();
                assert!(successor >= next && successor.checked().is_ok(), "{successor} of {run} at {unix_ms}");
            }
            assert!(Incarnation(bounds::INCARNATION - 1).successor(unix_ms).is_err());
        }
    }
}
