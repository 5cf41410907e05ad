//! What the node and its objects hold, and what they may hold.

use std::num::NonZeroU64;

use tallymesh_engine::Usage;
use tallymesh_schemas::admin::BudgetInfo;

use crate::cache::Cache;
use crate::shared::Shared;

/// The total of the node, and each object in order of name.
pub(super) fn budgets(shared: &Shared) -> Vec<BudgetInfo> {
    let (keys, bytes) = (shared.budget.keys(), shared.budget.bytes());
    let total = BudgetInfo { bytes: Some(bytes.used), max_bytes: bytes.max, ..counted(None, keys) };
    let current = shared.current.get();
    let structures = current.structures.values();
    let structures = structures.map(|structure| counted(Some(structure.spec().name.to_string()), structure.usage()));
    let series = current.series.iter().map(|series| {
        let window = series.spec().structure(0).name.to_string();
        let name = window.split_once('@').map_or(window.as_str(), |(name, _)| name);
        counted(Some(name.to_owned()), series.usage())
    });
    let mut objects: Vec<_> = structures.chain(series).chain(current.caches.iter().map(of_cache)).collect();
    objects.sort_by(|a, b| a.object.cmp(&b.object));
    objects.insert(0, total);
    objects
}

fn counted(object: Option<String>, Usage { used, max }: Usage) -> BudgetInfo {
    BudgetInfo { object, keys: used, max_keys: max, bytes: None, max_bytes: None }
}

fn of_cache(cache: &Cache) -> BudgetInfo {
    let bounds = cache.engine().bounds();
    BudgetInfo {
        object: Some(cache.engine().spec().name.to_string()),
        keys: cache.engine().held() as u64,
        max_keys: bounds.elements.map(NonZeroU64::get),
        bytes: Some(cache.value_bytes()),
        max_bytes: bounds.bytes.map(NonZeroU64::get),
    }
}
