//! The objects that handles find by name. A reload replaces the whole list at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tallymesh_engine::limiter::Limiter;
use tallymesh_engine::{GaugeCache, Series, Structure};
use tallymesh_schemas::{Class, StructureId};

use crate::cache::Cache;
use crate::scopes::Scopes;

/// The objects of a node, and what limits them.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    /// Also those of gauge caches.
    pub(crate) structures: BTreeMap<StructureId, Arc<Structure>>,
    /// In order of name.
    pub(crate) caches: Vec<Cache>,
    pub(crate) series: Vec<Arc<Series>>,
    pub(crate) gauge_caches: Vec<Arc<GaugeCache>>,
    pub(crate) limiters: BTreeMap<StructureId, Arc<Limiter>>,
    pub(crate) scopes: Arc<Scopes>,
}

impl Objects {
    /// Lets the limiters know the limits of the scopes.
    pub(crate) fn connect_scopes(&self) {
        for class in [Class::OutboundMessages, Class::OutboundConnections] {
            let Some(limiter) = self.limiters.get(&StructureId::of(class.name())) else { continue };
            let scopes = Arc::clone(&self.scopes);
            limiter.scopes(Box::new(move |name| scopes.throttle(name, class)));
        }
    }
}

/// The objects of a node as they are now.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Objects>>);

impl Current {
    pub(crate) fn new(objects: Objects) -> Arc<Self> {
        objects.connect_scopes();
        Arc::new(Self(RwLock::new(Arc::new(objects))))
    }

    pub(crate) fn get(&self) -> Arc<Objects> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the objects. An operation that has begun goes on with those that it found.
    pub(crate) fn set(&self, objects: Objects) {
        objects.connect_scopes();
        *self.0.write() = Arc::new(objects);
    }
}
