//! The life of nodes and the status of runs.

/// The state of a node, as the membership reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// The node answers probes.
    Alive,
    /// The node has not answered lately. Its rows become stale; nothing else changes.
    Suspect,
    /// The membership declared the node dead, or this node never saw it alive.
    Dead,
    /// The node said goodbye.
    Left,
}

/// The status of a run on this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RunStatus {
    /// The run is forgotten, or the report about it is not credible.
    Refused,
    /// The node is in a later run: the gauges of this run are superseded, its events stay counted.
    Earlier,
    /// The node is in this run.
    Current,
}
