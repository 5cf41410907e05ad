//! The typed handles of structures whose keys are names.

use std::sync::Arc;

use tallymesh_engine::{Count, Hold, Listing, Structure};
use tallymesh_schemas::NodeName;
use tallymesh_schemas::key::{self, KeyError};

use crate::clock::Clock;
use crate::counter::Counter;

/// Counts by domain: `outbound_domains` and others of its class. All spellings of a domain are one key: see
/// [`key::domain`].
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let outbound = node.domains("outbound_domains")?;
/// let Some(open) = outbound.try_hold("Example.COM", 20)? else { return Ok(()) };
/// println!("{} are open", outbound.count("example.com")?.total);
/// for entry in outbound.entries().entries(100) {
///     println!("{}: {}", String::from_utf8_lossy(&entry.key), entry.count);
/// }
/// drop(open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Domains(Table);

/// Counts by binding and domain: `outbound_binding_domains` and others of its class.
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let outbound = node.binding_domains("outbound_binding_domains")?;
/// let open = outbound.hold("b1", "example.com")?;
/// println!("{} are open", outbound.count("b1", "example.com")?.total);
/// drop(open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BindingDomains(Table);

#[derive(Clone, Debug)]
struct Table {
    structure: Arc<Structure>,
    clock: Clock,
}

impl Table {
    fn count(&self, key: &str) -> Count {
        self.structure.count(key.as_bytes(), self.clock.time())
    }
}

macro_rules! table {
    ($name:ident, ($($part:ident),+), $key:path) => {
        impl $name {
            pub(crate) fn new(structure: Arc<Structure>, clock: Clock) -> Self {
                Self(Table { structure, clock })
            }

            /// The counter of a key. Use it for keys that are counted often: it needs no further look-up.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn counter(&self, $($part: &str),+) -> Result<Counter, KeyError> {
                self.0.structure.check(1)?;
                Ok(Counter::new(self.0.structure.counter($key($($part),+)?.as_bytes())?, self.0.clock))
            }

            /// Adds `n` to this node's count; a negative `n` removes. A step beyond [`MAX_STEP`](crate::MAX_STEP)
            /// in either direction is reduced to that value; check `n` first if it comes from outside.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn add(&self, $($part: &str,)+ n: i64) -> Result<(), KeyError> {
                self.0.structure.check(n)?;
                self.0.structure.add($key($($part),+)?.as_bytes(), n)
            }

            /// Counts a connection until the guard is dropped.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn hold(&self, $($part: &str),+) -> Result<Hold, KeyError> {
                Ok(self.counter($($part),+)?.hold())
            }

            /// Counts a connection until the guard is dropped, if there are then at most `limit` cluster-wide, as far as
            /// this node knows; `None` when there is no room.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn try_hold(&self, $($part: &str,)+ limit: i64) -> Result<Option<Hold>, KeyError> {
                Ok(self.counter($($part),+)?.try_hold(limit))
            }

            /// The count.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn count(&self, $($part: &str),+) -> Result<Count, KeyError> {
                Ok(self.0.count(&$key($($part),+)?))
            }

            /// The count of one node; `None` when the node is unknown.
            ///
            /// # Errors
            /// [`KeyError`] when the key is not valid.
            pub fn count_from(&self, node: &NodeName, $($part: &str),+) -> Result<Option<i64>, KeyError> {
                Ok(self.0.structure.count_from(node, $key($($part),+)?.as_bytes()))
            }

            /// The counts, key by key in order.
            pub fn entries(&self) -> Listing {
                self.0.structure.list_all()
            }

            /// The structure of the engine, for measurements of the replication.
            #[doc(hidden)]
            pub fn structure(&self) -> &Arc<Structure> {
                &self.0.structure
            }
        }
    };
}

table!(Domains, (domain), key::domain);
table!(BindingDomains, (binding, domain), key::binding_domain);
