//! Why a limit cannot be created.

use tallymesh_schemas::bounds;
use tallymesh_schemas::key::KeyError;

/// Why a limit cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The name is not valid, or there is no room for another one.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// A hard limit needs founders to be divided among.
    #[error(
        "\"{0}\" is to be hard, and there are no founders to divide it among: list them in limits, on all nodes alike"
    )]
    NoFounders(String),
    /// A throttle and a pool of permits cannot have the same name.
    #[error(
        "\"{0}\" is the name of a throttle or of permits already, and cannot be that of the other: choose another name"
    )]
    Taken(String),
    /// The number of permits is zero or too large.
    #[error("{0} permits: there are {min} to {max}", min = bounds::PERMITS.start(), max = bounds::PERMITS.end())]
    Permits(u64),
}
