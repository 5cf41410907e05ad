//! A cluster with one cache, "sessions", and what a test does with it.

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Failure, quick_config, spec};
use tallymesh_schemas::{Class, StructureSpec};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const NEVER: Duration = Duration::ZERO;

pub(crate) fn cache() -> StructureSpec {
    spec("sessions", Class::Cache)
}

pub(crate) fn cluster(seed: u64, names: &[&str]) -> Builder {
    Builder::new(seed)
        .nodes(names.iter().copied())
        .structures([])
        .caches([cache()])
        .config(tallymesh_engine::Config { delta_bytes: 200, ..quick_config() })
}

pub(crate) fn set(cluster: &mut Cluster, label: &str, key: &str, value: &str) {
    cluster
        .with(label, |node| node.set("sessions", key.as_bytes(), value.as_bytes(), NEVER).map(drop))
        .unwrap()
        .unwrap();
}

pub(crate) fn remove(cluster: &mut Cluster, label: &str, key: &str) {
    assert!(cluster.with(label, |node| node.remove("sessions", key.as_bytes())).unwrap().unwrap(), "{key} is there");
}

pub(crate) fn get(cluster: &Cluster, label: &str, key: &str) -> Option<String> {
    cluster.cached(label, "sessions", key.as_bytes()).map(|value| String::from_utf8(value).unwrap())
}

pub(crate) fn play<R>(result: Result<R, Failure>) -> R {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

/// Entries that a node holds of a key, removed ones included: one or none.
pub(crate) fn held(cluster: &Cluster, label: &str, key: &str) -> usize {
    let (cache, _) = cluster.cache(label, "sessions");
    cache.held_entries(None, usize::MAX).iter().filter(|entry| entry.key == key.as_bytes()).count()
}
