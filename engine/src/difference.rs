//! A difference between the configurations of two nodes.

use tallymesh_schemas::NodeName;

/// A difference between this node's configuration and another node's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Difference {
    /// The other node.
    pub node: NodeName,
    /// The name of the setting.
    pub what: String,
    /// The value on this node; empty if there is none.
    pub here: String,
    /// The value on the other node; empty if there is none, or if it is not known yet.
    pub there: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, what, here, there } = self;
        let or_none = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
        write!(f, "{what} is {} here and {} on {node}", or_none(here), or_none(there))
    }
}
