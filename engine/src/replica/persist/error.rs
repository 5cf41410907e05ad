//! Why saved rows are not restored.

use tallymesh_schemas::Actor;

use crate::counter::join::ApplyError;

/// Why saved rows are not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The structure has another class now.
    #[error(
        "\"{name}\" was saved as {saved} and is configured as {configured}: give it another name, or make it what it was"
    )]
    Class {
        /// The structure.
        name: String,
        /// The class in the saved state.
        saved: &'static str,
        /// The configured class.
        configured: &'static str,
    },
    /// The rows cannot be read.
    #[error("the rows of {actor} in \"{name}\" cannot be read: {error}")]
    Rows {
        /// The structure.
        name: String,
        /// The actor that owns the rows.
        actor: Actor,
        /// The fault.
        error: ApplyError,
    },
    /// Rows are missing or changed.
    #[error("the rows of {actor} in \"{name}\" are not those that were saved")]
    Differs {
        /// The structure.
        name: String,
        /// The actor that owns the rows.
        actor: Actor,
    },
}
