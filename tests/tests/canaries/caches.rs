//! Cases of caches.

use std::cell::Cell;
use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Failure, Fault, spec};
use tallymesh_schemas::Class;

/// Three nodes with a cache, and what is wrong after a script and what is done in it.
fn a_cache_under(script: &str, work: impl Fn(&mut Cluster) -> Result<(), Failure>) -> Option<String> {
    let mut cluster = Builder::new(1).structures([]).caches([spec("c", Class::Cache)]).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(3))?;
        put(&mut cluster, "a", b"first");
        cluster.run_for(Duration::from_secs(3))?;
        cluster.script(script)?;
        cluster.run_for(Duration::from_millis(100))?;
        work(&mut cluster)?;
        cluster.fault(&Fault::Heal);
        cluster.settle().map(drop)
    })();
    result.err().map(|failure| failure.to_string())
}

pub(crate) fn put(cluster: &mut Cluster, label: &str, value: &[u8]) {
    cluster.with(label, |node| node.set("c", b"k", value, Duration::ZERO).map(drop)).unwrap().unwrap();
}

/// Two write the same key without hearing of each other, and what was written first comes last.
pub(crate) fn both_write() -> Option<String> {
    a_cache_under("at 0s cut a from b; at 0s cut a from c; at 8s heal", |cluster| {
        put(cluster, "a", b"earlier");
        cluster.run_for(Duration::from_secs(2))?;
        put(cluster, "b", b"later");
        cluster.run_for(Duration::from_secs(8))
    })
}

/// A node that is away has written what a removal supersedes. It is back long after the removal.
pub(crate) fn removed_while_away() -> Option<String> {
    a_cache_under("at 0s cut c from rest; at 200s heal", |cluster| {
        put(cluster, "c", b"while away");
        cluster.run_for(Duration::from_secs(5))?;
        cluster.with("a", |node| node.remove("c", b"k").map(drop));
        cluster.run_for(Duration::from_secs(196))
    })
}

/// A removal reaches all nodes while the write that it supersedes is still on its way.
pub(crate) fn write_behind_a_removal() -> Option<String> {
    crate::late::comes_after_a_removal().map(|value| format!("{value:?} is read, and was removed"))
}

/// Somebody's clock is an hour ahead.
pub(crate) fn an_hour_ahead() -> Option<String> {
    let read = Cell::new(false);
    let found = a_cache_under("at 0s set a 3600s", |cluster| {
        put(cluster, "a", b"future");
        cluster.run_for(Duration::from_secs(10))?;
        let (cache, now) = cluster.cache("b", "c");
        read.set(cache.get(b"k", now.unix_ms).is_some_and(|value| *value == *b"future"));
        cluster.fault(&Fault::Set("a".to_owned(), -3_600_000));
        Ok(())
    });
    read.get().then(|| "an hour ahead, and it was taken".to_owned()).or(found)
}
