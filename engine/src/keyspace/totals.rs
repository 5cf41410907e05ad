//! The two totals of a count.

use tallymesh_schemas::bounds;

/// The count of two totals: additions minus removals, within [`bounds::COUNT`].
#[inline(always)]
pub(crate) fn value((added, removed): (u64, u64)) -> i64 {
    let by = i64::try_from(added.abs_diff(removed)).unwrap_or(i64::MAX).min(bounds::COUNT);
    if added < removed { -by } else { by }
}
