//! Writes of a cache whose stamps are too far in the future.

use std::time::Duration;

use tallymesh_schemas::message::Delta;
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::{UnixMs, Version};

use crate::canary::{self, Canary};
use crate::counter::structure::Structure;
use crate::hlc::Stamp;

/// A delta contains a write whose stamp is too far ahead of this node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How far the write is ahead.
    pub(crate) by: Duration,
    /// Rows before that write have versions up to this one.
    pub(crate) upto: Version,
    /// Length in bytes of those rows in the delta.
    pub(crate) bytes: usize,
}

impl Structure {
    /// Returns the first write of a delta whose stamp is further ahead of this node's clock than allowed; `None` when there
    /// is none.
    pub(crate) fn ahead(&self, delta: &Delta<'_>, unix_ms: UnixMs) -> Option<Ahead> {
        if !self.shape.is_cache() || !future_is_refused() {
            return None;
        }
        let time = self.time(unix_ms);
        let mut rows = RowReader::new(delta.rows, delta.after);
        let (mut upto, mut bytes) = (delta.after, 0);
        // The join reports unreadable rows.
        while let Ok(Some(row)) = rows.next_row() {
            let stamp = match row.state {
                RowState::Live { added, .. } => added,
                RowState::Content { stamp, .. } => stamp,
                RowState::Vacant => 0,
            };
            let version = row.version;
            if let Some(by) = Stamp(stamp).beyond(time) {
                return Some(Ahead { by, upto, bytes });
            }
            (upto, bytes) = (version, delta.rows.len() - rows.remaining());
        }
        None
    }
}

/// Returns whether writes from clocks far ahead are refused.
fn future_is_refused() -> bool {
    !canary::broken(Canary::FutureTaken)
}
