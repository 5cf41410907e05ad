//! Spans of versions.

use tallymesh_schemas::Version;

/// The versions in `(since, upto]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: Version,
    pub(crate) upto: Version,
}
