//! The view of one node: `from NODE`, as on Momentum's console.

use clap::Args;
use tallymesh_schemas::NodeName;

use crate::failure::Failure;

/// `from NODE`, or `--from NODE`.
#[derive(Debug, Args)]
pub(crate) struct FromNode {
    /// `from` and the name of the node whose view is shown, instead of the cluster's
    #[arg(value_name = "from NODE", num_args = 0..=2, conflicts_with = "from")]
    pub(crate) words: Vec<String>,
    /// The same as an option
    #[arg(long, value_name = "NODE")]
    pub(crate) from: Option<String>,
}

impl FromNode {
    /// The node, if one was named.
    pub(crate) fn node(&self) -> Result<Option<NodeName>, Failure> {
        let name = match (self.words.as_slice(), &self.from) {
            ([], None) => return Ok(None),
            ([], Some(name)) => name,
            ([from, name], _) if from == "from" => name,
            (words, _) => {
                let words = words.join(" ");
                return Err(Failure::Input(format!("\"{words}\" is not understood here: write from NODE")));
            }
        };
        node_name(name).map(Some)
    }
}

/// The name of a node.
pub(crate) fn node_name(name: &str) -> Result<NodeName, Failure> {
    NodeName::new(name).map_err(|error| Failure::Input(format!("\"{name}\" is not the name of a node: {error}")))
}
