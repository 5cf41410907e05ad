//! The handle of a cache, and read-through loading.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::{CacheEntry, CacheError, CacheValue, Stamp};
use tallymesh_schemas::UnixMs;
use tokio::sync::watch;

use crate::clock::unix_ms;

/// A replicated cache: keys and values are arbitrary bytes. On all nodes, the last write of a key wins.
///
/// Cheap to clone; usable from any thread, with or without tokio. A write copies the value once; reads share it.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let sessions = node.cache("sessions")?;
/// sessions.set("user:7", *b"signed in", Duration::from_secs(3600))?;
/// assert_eq!(sessions.get("user:7").as_deref(), Some(&b"signed in"[..]));
/// if let Some(entry) = sessions.entry("user:7") {
///     println!("{} wrote it", entry.actor);
/// }
/// println!("{} entries of {} bytes", sessions.len(), sessions.value_bytes());
/// sessions.remove("user:7")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    inner: tallymesh_engine::Cache,
    loads: Arc<Mutex<Loads>>,
}

/// Loads that are running or have failed recently, by key.
type Loads = HashMap<Vec<u8>, Load>;

#[derive(Debug)]
enum Load {
    /// Receives the result, for callers that wait.
    Running(watch::Receiver<Ended>),
    /// The error, and until when it is remembered, in milliseconds since 1970.
    Failed(LoadError, UnixMs),
}

/// The result of a load; `None` while the load runs, and permanently if the task that ran it was dropped.
type Ended = Option<Result<CacheValue, LoadError>>;

/// What a cache does with the error of a load.
///
/// ```no_run
/// # async fn example(cache: &tallymesh::Cache) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tallymesh::Errors;
///
/// // A key that cannot be loaded is not tried again for ten seconds.
/// let keep = Errors::Keep(Duration::from_secs(10));
/// let load = || async { std::fs::read("user-7.json") };
/// let loaded = cache.get_or_load_with("user:7", Duration::from_secs(60), keep, load).await?;
/// println!("{} bytes", loaded.value.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Errors {
    /// The callers that wait for the load receive the error; the next caller loads again.
    #[default]
    Forget,
    /// For this time, all callers on this node receive the error, and no caller loads.
    Keep(Duration),
}

/// A value that was read through a cache.
///
/// ```no_run
/// # async fn example(cache: &tallymesh::Cache) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// let load = || async { std::fs::read("user-7.json") };
/// let user = cache.get_or_load("user:7", Duration::from_secs(60), load).await?;
/// println!("{} bytes, {}", user.value.len(), if user.loaded { "from the file" } else { "from the cache" });
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The value.
    pub value: CacheValue,
    /// Whether this call or a concurrent one loaded the value now; otherwise it was read from the cache.
    pub loaded: bool,
}

/// Why there is no value: the error of the load, or the reason why the value could not be written. All callers that waited for
/// the load have the same error, and `source` returns it.
///
/// ```no_run
/// # async fn example(cache: &tallymesh::Cache) -> Result<(), Box<dyn std::error::Error>> {
/// use std::error::Error;
/// use std::time::Duration;
///
/// let load = || async { std::fs::read("user-7.json") };
/// if let Err(error) = cache.get_or_load("user:7", Duration::from_secs(60), load).await {
///     let missing = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
///     println!("{error}: {:?}", missing.map(std::io::Error::kind));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(#[source] Arc<dyn std::error::Error + Send + Sync>);

impl LoadError {
    fn of(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }
}

/// Removes a running load when the task that runs it is dropped. A waiting caller then runs the load itself.
struct Running<'a> {
    cache: &'a Cache,
    key: &'a [u8],
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut loads = self.cache.loads.lock();
        if matches!(loads.get(self.key), Some(Load::Running(_))) {
            loads.remove(self.key);
        }
    }
}

enum Part {
    Read(CacheValue),
    Run(watch::Sender<Ended>),
    Wait(watch::Receiver<Ended>),
    Failed(LoadError),
}

impl Cache {
    pub(crate) fn new(inner: tallymesh_engine::Cache) -> Self {
        Self { inner, loads: Arc::default() }
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<CacheValue> {
        self.inner.get(key.as_ref(), unix_ms())
    }

    /// The entry of a key: its value, writer, time of the write, and expiry.
    pub fn entry(&self, key: impl AsRef<[u8]>) -> Option<CacheEntry> {
        self.inner.entry(key.as_ref(), unix_ms())
    }

    /// Writes a value that expires after `ttl`. A `ttl` of zero means that it never expires.
    ///
    /// # Errors
    /// [`CacheError`]. Nothing was written in that case.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Duration) -> Result<Stamp, CacheError> {
        self.inner.set(key.as_ref(), value, ttl, unix_ms())
    }

    /// Removes an entry on all nodes. Returns whether there was one.
    ///
    /// # Errors
    /// [`CacheError`]. Nothing was removed in that case.
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool, CacheError> {
        Ok(self.inner.remove(key.as_ref(), unix_ms())?.is_some())
    }

    /// At most `limit` entries in order of key, beginning after the key `after`, or at the first key if it is `None`.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize) -> Vec<CacheEntry> {
        self.inner.entries(after, limit, unix_ms())
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.inner.len(unix_ms())
    }

    /// Whether the cache has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of all keys and values, in bytes.
    pub fn value_bytes(&self) -> u64 {
        self.inner.value_bytes()
    }

    /// The cache of the engine, for measurements of the replication.
    #[doc(hidden)]
    pub fn engine(&self) -> &tallymesh_engine::Cache {
        &self.inner
    }

    /// Reads the value of a key. If there is none, runs `load`, writes the result to the cache with `ttl`, and so shares it
    /// with the cluster. One load per key runs on a node at a time, and concurrent callers receive its result. If the caller
    /// that runs the load is dropped, a waiting caller runs its own load. If the load fails, all waiting callers receive the
    /// error, and the cache does not keep it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get_or_load<E, F>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: Duration,
        load: impl FnOnce() -> F,
    ) -> Result<Loaded, LoadError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Future<Output = Result<Vec<u8>, E>>,
    {
        self.get_or_load_with(key, ttl, Errors::Forget, load).await
    }

    /// As [`Cache::get_or_load`]; `errors` states how an error is handled.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get_or_load_with<E, F>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: Duration,
        errors: Errors,
        load: impl FnOnce() -> F,
    ) -> Result<Loaded, LoadError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Future<Output = Result<Vec<u8>, E>>,
    {
        let key = key.as_ref();
        loop {
            match self.part(key) {
                Part::Read(value) => return Ok(Loaded { value, loaded: false }),
                Part::Failed(error) => return Err(error),
                Part::Wait(mut end) => {
                    // An error of the channel: the caller that ran the load was dropped.
                    let ended = end.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
                    if let Some(ended) = ended {
                        return ended.map(|value| Loaded { value, loaded: true });
                    }
                }
                Part::Run(ended) => {
                    let running = Running { cache: self, key };
                    let result = load().await.map_err(LoadError::of);
                    let result = result.and_then(|value| self.keep(key, value, ttl));
                    drop(running);
                    if let (Err(error), Errors::Keep(time)) = (&result, errors) {
                        self.remember(key, error, time);
                    }
                    ended.send_replace(Some(result.clone()));
                    return result.map(|value| Loaded { value, loaded: true });
                }
            }
        }
    }

    /// The role of a caller that asks for a key: read, wait, or load.
    fn part(&self, key: &[u8]) -> Part {
        if let Some(value) = self.get(key) {
            return Part::Read(value);
        }
        let mut loads = self.loads.lock();
        match loads.get(key) {
            Some(Load::Running(end)) => return Part::Wait(end.clone()),
            Some(Load::Failed(error, until)) if *until > unix_ms() => return Part::Failed(error.clone()),
            Some(Load::Failed(..)) | None => {}
        }
        // Another load may have ended since this caller read the key.
        if let Some(value) = self.get(key) {
            return Part::Read(value);
        }
        let (ended, end) = watch::channel(None);
        loads.insert(key.to_vec(), Load::Running(end));
        Part::Run(ended)
    }

    fn keep(&self, key: &[u8], value: Vec<u8>, ttl: Duration) -> Result<CacheValue, LoadError> {
        self.set(key, &value, ttl).map_err(LoadError::of)?;
        Ok(value.into())
    }

    /// Remembers an error, and removes expired ones.
    fn remember(&self, key: &[u8], error: &LoadError, time: Duration) {
        let now = unix_ms();
        let until = now.after(time);
        let mut loads = self.loads.lock();
        loads.retain(|_, load| !matches!(load, Load::Failed(_, until) if *until <= now));
        if !matches!(loads.get(key), Some(Load::Running(_))) {
            loads.insert(key.to_vec(), Load::Failed(error.clone(), until));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tallymesh_engine::Replica;
    use tallymesh_schemas::{Class, Incarnation, NodeName, StructureSpec};
    use tokio::sync::oneshot;

    use super::*;

    fn cache() -> (Replica, Cache) {
        let mut replica = Replica::new(Default::default(), NodeName::new("a").unwrap(), Incarnation(1));
        let cache = replica.replicate_cache(StructureSpec::from(Class::Cache), Arc::new(|| ())).unwrap();
        (replica, Cache::new(cache))
    }

    const FOREVER: Duration = Duration::ZERO;

    /// Polls a future once, so that it is running.
    async fn begin(future: &mut (impl Future + Unpin)) {
        std::future::poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut *future).poll(context).is_pending(), "it waits");
            std::task::Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn one_load_at_a_time_serves_all_who_ask() {
        let (_replica, cache) = cache();
        let loads = AtomicU32::new(0);
        let (end, ends) = oneshot::channel::<Vec<u8>>();
        let mut first = Box::pin(cache.get_or_load("k", FOREVER, || async {
            loads.fetch_add(1, Ordering::Relaxed);
            ends.await.map_err(|error| error.to_string())
        }));
        begin(&mut first).await;
        let mut second = Box::pin(cache.get_or_load("k", FOREVER, || async {
            loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, String>(b"not this one".to_vec())
        }));
        begin(&mut second).await;
        end.send(b"value".to_vec()).unwrap();
        assert_eq!(first.await.unwrap(), Loaded { value: b"value".to_vec().into(), loaded: true });
        assert_eq!(&*second.await.unwrap().value, b"value");
        let third = cache.get_or_load("k", FOREVER, || async { Err::<Vec<u8>, _>("not asked") }).await.unwrap();
        assert_eq!((&*third.value, third.loaded), (&b"value"[..], false));
        assert_eq!(loads.load(Ordering::Relaxed), 1);
        assert!(cache.loads.lock().is_empty());
    }

    /// When the caller that runs a load is dropped, a waiting caller runs its own.
    #[tokio::test]
    async fn a_load_that_is_dropped_is_run_by_who_waits() {
        let (_replica, cache) = cache();
        let never = || std::future::pending::<Result<Vec<u8>, String>>();
        let mut first = Box::pin(cache.get_or_load("k", FOREVER, never));
        begin(&mut first).await;
        let mut second = Box::pin(cache.get_or_load("k", FOREVER, || async { Ok::<_, String>(b"second".to_vec()) }));
        begin(&mut second).await;
        drop(first);
        assert_eq!(&*second.await.unwrap().value, b"second");
        assert!(cache.loads.lock().is_empty());
    }

    #[tokio::test]
    async fn an_error_is_kept_only_if_that_is_asked_for() {
        let (_replica, cache) = cache();
        let fails = || async { Err::<Vec<u8>, _>("the table is locked") };
        let loads = || async { Ok::<_, String>(b"value".to_vec()) };
        assert_eq!(cache.get_or_load("k", FOREVER, fails).await.unwrap_err().to_string(), "the table is locked");
        assert_eq!(&*cache.get_or_load("k", FOREVER, loads).await.unwrap().value, b"value");
        cache.remove("k").unwrap();
        let keep = Errors::Keep(Duration::from_secs(3600));
        assert!(cache.get_or_load_with("k", FOREVER, keep, fails).await.is_err());
        assert_eq!(cache.get_or_load("k", FOREVER, loads).await.unwrap_err().to_string(), "the table is locked");
        cache.set("k", *b"written", FOREVER).unwrap();
        assert_eq!(&*cache.get_or_load("k", FOREVER, loads).await.unwrap().value, b"written", "a value is better");
        let long = || async { Ok::<_, String>(vec![0; tallymesh_schemas::bounds::VALUE_BYTES + 1]) };
        let error = cache.get_or_load("long", FOREVER, long).await.unwrap_err().to_string();
        assert!(error.contains("a cache takes values of up to"), "{error}");
    }
}
