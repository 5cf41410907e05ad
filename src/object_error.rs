//! Why a look-up of an object fails.

use tallymesh_engine::limiter::LimitError;

/// Why there is no handle.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::ObjectError;
///
/// if let Err(ObjectError::Unknown { known, .. }) = node.cidr("inbound_cdir") {
///     println!("this node replicates {}", known.join(", "));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// No structure has this name.
    #[error("no object \"{name}\"; this node replicates {}", list(known))]
    Unknown {
        /// The requested name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// No throttle has this name.
    #[error("no throttle \"{name}\"; this node has {}", list(known))]
    NoThrottle {
        /// The requested name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A throttle of this name is declared, or its scope has a limit, and there is no room for it.
    #[error(transparent)]
    Throttle(#[from] LimitError),
    /// No permits have this name.
    #[error("no permits \"{name}\"; this node has {}", list(known))]
    NoPermits {
        /// The requested name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The structure is not a cache.
    #[error("\"{name}\" is of class {class}, which is no cache")]
    NoCache {
        /// The structure.
        name: String,
        /// Its class.
        class: &'static str,
    },
    /// The structure has another kind of key.
    #[error("\"{name}\" is of class {class}, which does not count by {by}")]
    Class {
        /// The structure.
        name: String,
        /// Its class.
        class: &'static str,
        /// The requested kind of key.
        by: &'static str,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
