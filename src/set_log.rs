//! What the program does when the level of its log changes.

use std::fmt;
use std::sync::Arc;

use tallymesh_schemas::config::LogLevel;

/// Changes what the program logs.
#[derive(Clone)]
pub(crate) struct SetLog(pub(crate) Arc<dyn Fn(LogLevel) + Send + Sync>);

impl fmt::Debug for SetLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetLog")
    }
}
