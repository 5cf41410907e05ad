//! Finds what a client names: by its name, or by a beginning of the name that nothing else has. The library itself takes exact
//! names only.

use std::sync::Arc;

use tallymesh_engine::{Series, Structure};
use tallymesh_schemas::admin::SeriesRef;

use crate::admin::session::{Refused, Session};
use crate::cache::Cache;
use crate::gauge::GaugeCache;
use crate::object::Object;
use crate::shared::named;

impl Session {
    pub(super) fn object(&self, name: &str) -> Result<Object, Refused> {
        let objects = self.shared().objects();
        pick(name, objects.iter().map(|object| (object.spec().name.to_string(), object))).cloned()
    }

    /// Finds an object that counts.
    pub(super) fn counting(&self, name: &str) -> Result<Arc<Structure>, Refused> {
        match self.object(name)? {
            Object::Structure(structure) => Ok(structure),
            Object::Cache(cache) => {
                let name = &cache.engine().spec().name;
                Err(Refused::bad(format!("\"{name}\" is a cache: write to it with `tally cache set`")))
            }
        }
    }

    pub(super) fn cache(&self, name: &str) -> Result<Cache, Refused> {
        self.object(name)?.into_cache().map_err(Refused::bad)
    }

    pub(super) fn gauge_cache(&self, name: &str) -> Result<GaugeCache, Refused> {
        let objects = self.shared().current.get();
        let caches = objects.gauge_caches.iter().map(|cache| (cache.spec().name.to_string(), cache));
        Ok(GaugeCache::new(Arc::clone(pick(name, caches)?), self.shared().clock))
    }

    /// A series of the audit, or a named series. If there are several intervals, the one requested.
    pub(super) fn series(&self, wanted: &SeriesRef) -> Result<Arc<Series>, Refused> {
        let objects = self.shared().current.get();
        let of_kind = objects.series.iter().filter(|series| series.spec().name.is_metric() == wanted.metric);
        let candidates =
            of_kind.filter(|series| wanted.interval.is_none_or(|interval| series.spec().interval == interval));
        let found = pick(&wanted.name, candidates.map(|series| (series.spec().name.to_string(), series)))?;
        let spec = found.spec();
        if let Some(windows) = wanted.windows.filter(|windows| *windows != found.kept()) {
            let (name, interval, has) = (&spec.name, spec.interval, found.kept());
            let message =
                format!("\"{name}\" has {has} windows of {interval} s, not {windows}: write {interval},{has}");
            return Err(Refused::bad(message));
        }
        Ok(Arc::clone(found))
    }
}

/// The item with this name, or else the only item whose name begins with it.
fn pick<'a, T>(name: &str, all: impl Iterator<Item = (String, &'a T)>) -> Result<&'a T, Refused> {
    let all: Vec<_> = all.collect();
    let unknown = match named(name, all.iter().map(|(known, item)| (known.clone(), *item))) {
        Ok(exact) => return Ok(exact),
        Err(unknown) => unknown,
    };
    let begin: Vec<_> = all.iter().filter(|(known, _)| known.starts_with(name)).collect();
    match begin.as_slice() {
        [(_, one)] if !name.is_empty() => Ok(one),
        [] => Err(Refused::bad(unknown)),
        several => {
            let candidates: Vec<_> = several.iter().map(|(name, _)| name.as_str()).collect();
            Err(Refused::bad(format!("\"{name}\" may be {}: write more of the name", candidates.join(", "))))
        }
    }
}
