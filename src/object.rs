//! A replicated object: a structure, which counts, or a cache.

use std::sync::Arc;

use tallymesh_engine::{Structure, Time, Wake, Watch};
use tallymesh_schemas::StructureSpec;

use crate::cache::Cache;
use crate::object_error::ObjectError;

/// An object that other nodes know by the same name.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    /// A structure.
    Structure(Arc<Structure>),
    /// A cache.
    Cache(Cache),
}

impl Object {
    pub(crate) fn spec(&self) -> &StructureSpec {
        match self {
            Self::Structure(structure) => structure.spec(),
            Self::Cache(cache) => cache.engine().spec(),
        }
    }

    /// Starts to report every key that changes on this node.
    pub(crate) fn watch(&self, capacity: usize, wake: Wake) -> Arc<Watch> {
        match self {
            Self::Structure(structure) => structure.watch(capacity, wake),
            Self::Cache(cache) => cache.engine().watch(capacity, wake),
        }
    }

    /// The cluster-wide count of a key. A cache counts nothing: 0.
    pub(crate) fn total(&self, key: &[u8], time: Time) -> i64 {
        match self {
            Self::Structure(structure) => structure.count(key, time).total,
            Self::Cache(_) => 0,
        }
    }

    /// The number of keys that this node knows.
    #[cfg(feature = "admin")]
    pub(crate) fn keys(&self) -> usize {
        match self {
            Self::Structure(structure) => structure.keys(),
            Self::Cache(cache) => cache.engine().held(),
        }
    }

    /// The memory that it takes, in bytes.
    #[cfg(feature = "admin")]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Structure(structure) => structure.bytes(),
            Self::Cache(cache) => cache.engine().bytes(),
        }
    }

    /// The handle of a cache.
    pub(crate) fn into_cache(self) -> Result<Cache, ObjectError> {
        match self {
            Self::Cache(cache) => Ok(cache),
            Self::Structure(structure) => {
                let spec = structure.spec();
                Err(ObjectError::NoCache { name: spec.name.to_string(), class: spec.class.name() })
            }
        }
    }
}
