//! Requests about caches and gauge caches.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::CacheError;
use tallymesh_schemas::admin::{Answer, CacheInfo, CacheItem, GaugeInfo, PAGE_ITEMS, SHOWN_BYTES};
use tallymesh_schemas::{Actor, NodeName, key};

use crate::CacheEntry;
use crate::admin::session::{Refused, Served, Session, check_step, object_of, unknown_node};
use crate::admin::wire::{self, To};
use crate::cache::Cache;
use crate::command::Command;
use crate::object::Object;

/// A write that failed. If there is no room for it, that is no mistake of the client.
fn refused(error: CacheError) -> Refused {
    match error {
        CacheError::Budget(over) => Refused::no(over.to_string()),
        error => Refused::bad(error),
    }
}

impl Session {
    pub(super) fn cache_list(&self) -> Answer {
        let info = |cache: &Cache| {
            let (spec, bounds) = (cache.engine().spec(), cache.engine().bounds());
            CacheInfo {
                name: spec.name.to_string(),
                snapshot: spec.snapshot,
                entries: cache.len() as u64,
                bytes: cache.value_bytes(),
                max_size: bounds.elements.map(std::num::NonZeroU64::get),
                max_bytes: bounds.bytes.map(std::num::NonZeroU64::get),
            }
        };
        Answer::CacheList(self.shared().current.get().caches.iter().map(info).collect())
    }

    pub(super) fn cache_get(&self, cache: &str, key: &str) -> Result<Answer, Refused> {
        let entry = self.cache(cache)?.entry(key.as_bytes());
        let entry = entry.ok_or_else(|| Refused::no(format!("there is no \"{key}\"")))?;
        Ok(Answer::CacheItems(vec![item(entry, usize::MAX)]))
    }

    pub(super) fn cache_set(&self, cache: &str, key: &str, value: &[u8], ttl: Duration) -> Result<(), Refused> {
        self.cache(cache)?.set(key.as_bytes(), value, ttl).map(drop).map_err(refused)
    }

    pub(super) fn cache_remove(&self, cache: &str, key: &str) -> Result<(), Refused> {
        match self.cache(cache)?.remove(key.as_bytes()).map_err(Refused::bad)? {
            true => Ok(()),
            false => Err(Refused::no(format!("there is no \"{key}\""))),
        }
    }

    /// Sends the view of a cache: all entries, or those that the runs of one node wrote.
    pub(super) async fn cache_view(&self, cache: &Cache, from: Option<&NodeName>, to: &mut To) -> Served {
        let actor = match from {
            Some(node) => match self.writer(cache, node).await {
                Ok(actor) => Some(actor),
                Err(refused) => return Ok(Err(refused)),
            },
            None => None,
        };
        wire::write(to, &Answer::View { object: object_of(&Object::Cache(cache.clone())), actor }).await?;
        self.cache_pages(cache, from, to).await
    }

    /// The latest run of a node that has written to a cache, or else the run that the cluster knows.
    async fn writer(&self, cache: &Cache, node: &NodeName) -> Result<Actor, Refused> {
        if let Some(actor) = cache.engine().latest(node) {
            return Ok(actor);
        }
        let members = self.shared().members(&self.ask(Command::Status).await?);
        let member = members.into_iter().map(|member| member.actor).find(|actor| actor.node == *node);
        member.ok_or_else(|| unknown_node(Some(node)))
    }

    /// Sends all entries, or those that the runs of one node wrote, page by page.
    async fn cache_pages(&self, cache: &Cache, from: Option<&NodeName>, to: &mut To) -> Served {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = cache.entries(after.as_deref(), PAGE_ITEMS);
            let Some(last) = page.last() else { return Ok(Ok(())) };
            after = Some(last.key.clone());
            let page = page.into_iter().filter(|entry| from.is_none_or(|node| entry.actor.node == *node));
            wire::write_pages(to, page.map(|entry| item(entry, SHOWN_BYTES)), Answer::CacheItems).await?;
        }
    }

    pub(super) async fn cache_show(&self, cache: &str, to: &mut To) -> Served {
        match self.cache(cache) {
            Ok(cache) => self.cache_pages(&cache, None, to).await,
            Err(refused) => Ok(Err(refused)),
        }
    }

    pub(super) fn gauge_list(&self) -> Answer {
        let info = |gauge: &Arc<tallymesh_engine::GaugeCache>| {
            let spec = gauge.spec();
            GaugeInfo {
                name: spec.name.to_string(),
                entries: gauge.len(self.shared().clock.time()) as u64,
                max_size: spec.max_elements.map(std::num::NonZeroU64::get),
                ttl: spec.ttl,
                replicate: spec.replicate,
            }
        };
        Answer::GaugeList(self.shared().current.get().gauge_caches.iter().map(info).collect())
    }

    pub(super) fn gauge_get(&self, gauge: &str, key: &str) -> Result<Answer, Refused> {
        let count = self.gauge_cache(gauge)?.get(key).ok_or_else(|| Refused::no(format!("there is no \"{key}\"")))?;
        Ok(Answer::Entries(vec![(key.to_owned(), count)]))
    }

    pub(super) fn gauge_add(&self, gauge: &str, key: &str, n: i64) -> Result<Answer, Refused> {
        check_step(n).map_err(Refused::bad)?;
        let gauge_cache = self.gauge_cache(gauge)?;
        gauge_cache.inc(key, n).map_err(Refused::change)?;
        self.gauge_get(gauge, key)
    }

    pub(super) fn gauge_remove(&self, gauge: &str, key: &str) -> Result<(), Refused> {
        match self.gauge_cache(gauge)?.remove(key).map_err(Refused::change)? {
            true => Ok(()),
            false => Err(Refused::no(format!("there is no \"{key}\""))),
        }
    }

    pub(super) async fn gauge_show(&self, gauge: &str, to: &mut To) -> Served {
        let gauge = match self.gauge_cache(gauge) {
            Ok(gauge) => gauge,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = gauge.entries(after.as_deref(), PAGE_ITEMS);
            let Some(last) = page.last() else { return Ok(Ok(())) };
            after = Some(last.key.clone());
            let page = page.into_iter().map(|entry| (key::display_bytes(&entry.key), entry.count));
            wire::write_pages(to, page, Answer::Entries).await?;
        }
    }
}

fn item(entry: CacheEntry, shown: usize) -> CacheItem {
    CacheItem {
        key: key::display_bytes(&entry.key),
        value: entry.value.iter().take(shown).copied().collect(),
        bytes: entry.value.len() as u64,
        written_ms: entry.stamp.unix_ms().0,
        expires_ms: entry.expires_ms.0,
        actor: entry.actor,
    }
}
