//! Counting across a cluster, without a server in the middle.
//!
//! A service embeds a [`Node`]. Every node counts what it sees itself; the nodes exchange their counts over QUIC; what the
//! cluster as a whole has counted is computed when it is read, on any node, without asking anybody.
//!
//! ```no_run
//! use tallymesh::{Class, Identity, Node};
//!
//! # async fn example(peer_ip: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::from_files("ca.pem".as_ref(), "relay-0-1.pem".as_ref(), "relay-0-1.key".as_ref())?;
//! let node = Node::builder("relay-0-1")
//!     .identity(identity)
//!     .listen("192.0.2.1:4801".parse()?)
//!     .seed("192.0.2.2:4801")
//!     .replicate(Class::InboundCidr.into())
//!     .start()
//!     .await?;
//!
//! let inbound = node.cidr("inbound_cidr")?;
//! let open = inbound.hold(peer_ip); // +1 now, −1 when it is dropped
//! if inbound.count("192.0.2.0/24".parse()?).total > 100 {
//!     // too many connections from there, cluster-wide
//! }
//! drop(open);
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Handles are cheap to clone and synchronous, and may be used from any thread, with or without tokio.
#![deny(missing_docs)]

/// Compiles the example that the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod admin;
mod audit;
mod builder;
mod cache;
mod cidr;
mod clock;
mod command;
mod driver;
mod gauge;
mod limits;
mod names;
mod node;
mod report;
mod series;
mod shared;
pub mod state;
mod throttle;
mod topology;

pub use admin::AdminError;
pub use audit::Audit;
pub use builder::{Builder, StartError};
pub use cache::{Cache, Errors, LoadError, Loaded};
pub use cidr::Cidr;
pub use gauge::GaugeCache;
pub use limits::{Limits, Open, Refusal, Scope};
pub use names::{BindingDomains, Domains};
pub use node::Node;
pub use series::{Series, SeriesKey};
pub use shared::{Member, ObjectError};
pub use state::{StateError, StateStanding};
pub use tallymesh_engine::limits::{Decision, FoundingError, LimitError, PoolStanding, Reach, Standing};
pub use tallymesh_engine::replica::{Finding, Verification};
pub use tallymesh_engine::{
    Block, Config as EngineConfig, Count, Counter, Entry, Hold, HoldError, Life, Listing, Structure,
};
pub use tallymesh_engine::{CacheEntry, CacheError, Stamp};
pub use tallymesh_engine::{SeriesEntry, SeriesListing};
pub use tallymesh_schemas::config::{Metric, Monitor};
pub use throttle::{NeverReady, OpenPermit, Permits, Throttle, ThrottleError};
/// The bytes of a key, as listings give them, as people read them.
pub fn key_text(kind: Kind, key: &[u8]) -> String {
    // The engine holds no other keys.
    tallymesh_schemas::key::display(kind, key).unwrap_or_default()
}

pub use tallymesh_schemas::GaugeCacheSpec;
pub use tallymesh_schemas::config::LimitsConfig;
pub use tallymesh_schemas::key::KeyError;
/// The largest step, 2^40, of one addition or removal. `tally add` and `tally load` refuse larger ones; the handles count
/// them as this much.
pub use tallymesh_schemas::limits::STEP as MAX_STEP;
pub use tallymesh_schemas::mask::{Family, MaskError, MaskLimit};
pub use tallymesh_schemas::ttl::{TtlError, parse as parse_ttl};
pub use tallymesh_schemas::{Actor, Bounds, Class, Incarnation, Kind, NodeName, OnDead, StructureName, StructureSpec};
pub use tallymesh_schemas::{OnPartition, Rate, Strength, ThrottleSpec};
pub use tallymesh_schemas::{SeriesName, SeriesSpec};
pub use tallymesh_transport::{Gate, Identity, IdentityError, Joining, Timings, Traffic};
