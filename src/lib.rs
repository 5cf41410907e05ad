//! Cluster-wide counters without a central server.
//!
//! A service embeds a [`Node`]. Each node counts the events that it sees itself, and the nodes exchange their counts over
//! QUIC. Any node computes the cluster-wide count locally at read time and sends no request to other nodes.
//!
//! ```no_run
//! use tallymesh::{Class, Identity, Node};
//!
//! # async fn example(peer_ip: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder("relay-0-1")
//!     .identity(Identity::from_dir("mesh", "relay-0-1")?)
//!     .listen("192.0.2.1:4801".parse()?)
//!     .seed("192.0.2.2:4801")
//!     .replicate(Class::InboundCidr.into())
//!     .start()
//!     .await?;
//! node.joined().await?; // there is a link to another node
//!
//! let inbound = node.cidr("inbound_cidr")?;
//! // 10 connections of an IPv4 address, 30 of its /24 block, 30 of an IPv6 /64 block, in the whole cluster.
//! match inbound.try_hold_within(peer_ip, &[(32, 10), (24, 30), (64, 30)]) {
//!     Ok(open) => drop(open), // +1 from the hold on, −1 when it is dropped
//!     Err(refused) => println!("{refused}"),
//! }
//! println!("{}", inbound.count("192.0.2.0/24".parse()?)); // 12 (4 here, 3 actors, stalest 0.2 s)
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Handles are cheap to clone, synchronous, and usable from any thread, with or without tokio.
//!
//! A [`Builder`] has the same settings as a configuration file. [`Node::events`] and [`Node::changes`] are streams of what
//! happens. [`Node::verify`] tells whether all members hold the same rows.
//!
//! # Features
//! Without them, a program that only counts builds neither a database nor a parser.
//!
//! | feature | adds | by default |
//! |---|---|---|
//! | `admin` | the admin socket, on which a node serves the `tally` command: [`Builder::admin`] | on |
//! | `config` | configuration files: [`Config`], [`Builder::from_config`] | on |
//! | `http` | metrics and health by HTTP: `Builder::http` | off |
//! | `state` | the saved state, which keeps counts over restarts: [`Builder::data_dir`] | on |
#![deny(missing_docs)]
// A library has no panic on a path that input reaches. A file that needs an exception states why it cannot panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

/// Compiles the example that the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// Compiles the examples of the guide.
#[cfg(all(doctest, feature = "state"))]
#[doc = include_str!("../docs/embedding.md")]
mod embedding {}

#[cfg(feature = "admin")]
mod admin;
#[cfg(not(feature = "admin"))]
#[path = "admin/absent.rs"]
mod admin;
mod audit;
mod builder;
mod cache;
mod certificates;
mod changes;
mod cidr;
mod clock;
mod command;
mod configuration;
mod conflicts;
#[cfg(any(feature = "admin", feature = "http"))]
mod convergence;
mod counter;
mod decision;
mod declared;
mod driver;
mod events;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "config")]
mod from_config;
mod gauge;
#[cfg(feature = "http")]
mod http;
#[cfg(not(feature = "http"))]
#[path = "http/absent.rs"]
mod http;
mod limiters;
mod limits;
mod member;
#[cfg(feature = "http")]
mod metrics;
mod names;
mod node;
mod object;
mod object_error;
mod objects;
#[cfg(any(feature = "admin", feature = "http"))]
mod places;
mod plan;
mod reached;
mod reload;
#[cfg(test)]
mod reloads;
mod report;
mod scope;
mod scopes;
mod seed;
mod series;
mod set_log;
mod settings;
mod shared;
#[cfg(any(feature = "admin", feature = "http"))]
mod socket;
#[cfg(any(feature = "admin", feature = "http"))]
mod socket_error;
mod start;
/// The saved state of a node that does not run: for the `tally` command, and not part of the interface.
#[cfg(feature = "state")]
#[doc(hidden)]
pub mod state;
#[cfg(not(feature = "state"))]
#[path = "state/absent.rs"]
mod state;
#[cfg(test)]
mod surface;
mod throttle;
mod topology;
#[cfg(any(feature = "admin", feature = "http"))]
mod unaccepted;
#[cfg(feature = "http")]
mod work;

// A node and its members.
pub use builder::{Builder, StartError};
pub use declared::DeclaredError;
pub use events::{Events, NodeEvent, NodeGone};
pub use member::Member;
pub use node::Node;
pub use plan::{ConfigChange, Effect, ReloadMode};
pub use reload::ReloadError;
#[cfg(feature = "config")]
pub use reload::{ReadConfigError, read_config};
pub use tallymesh_engine::replica::{
    Confirmed, Counters, Fault, Finding, NotHeld, Outcome, PeerClock, StructureError, Verification,
};
pub use tallymesh_engine::{Config as EngineConfig, Difference, Life};
pub use tallymesh_schemas::config::LogLevel;
pub use tallymesh_schemas::config::Tls;
pub use tallymesh_schemas::{Actor, Incarnation, NameError, NoSuchRun, NodeName, Position, PositionError, Version};
pub use tallymesh_transport::{
    BindError, CertificateNameError, Gate, Identity, IdentityError, Joining, Timings, TlsError, Traffic,
};

// Counters.
pub use changes::{Change, Changes};
pub use cidr::Cidr;
pub use counter::Counter;
pub use gauge::GaugeCache;
pub use names::{BindingDomains, Domains};
pub use object_error::ObjectError;
pub use tallymesh_engine::{Block, Count, Entry, Hold, HoldError, Listing, Stale};
/// The largest step, 2^40, of one addition or removal. `tally add` and `tally load` refuse larger steps; the handles reduce
/// them to this value.
pub use tallymesh_schemas::bounds::STEP as MAX_STEP;
pub use tallymesh_schemas::key::{DomainFault, KeyError};
pub use tallymesh_schemas::ttl::{TtlError, parse as parse_ttl};
pub use tallymesh_schemas::{
    Bounds, Class, GaugeCacheSpec, Kind, MaskError, MaskLimit, OnDead, StructureId, StructureName, StructureSpec,
};
pub use tallymesh_schemas::{OverBudget, budget::Unit};
// The types of addresses and blocks that handles use.
pub use ipnet::{self, IpNet};

// Caches.
pub use cache::{Cache, Errors, LoadError, Loaded};
/// A value of a cache. It is a slice of bytes, and shares the memory of the entry that was read: a clone copies nothing. It
/// stays as it is when the entry is written again, removed or expires.
///
/// ```no_run
/// # fn example(cache: &tallymesh::Cache) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::CacheValue;
///
/// let value: Option<CacheValue> = cache.get("user:7");
/// if let Some(value) = value {
///     println!("{} bytes: {}", value.len(), String::from_utf8_lossy(&value));
/// }
/// // A value in a program's own test.
/// assert_eq!(&*CacheValue::from(b"signed in".to_vec()), b"signed in");
/// # Ok(())
/// # }
/// ```
pub use tallymesh_engine::CacheValue;
pub use tallymesh_engine::{CacheEntry, CacheError, Stamp};
pub use tallymesh_schemas::UnixMs;
pub use tallymesh_schemas::config::{CacheConfig, Pace};

// Series and the audit.
pub use audit::Audit;
pub use series::{Series, SeriesKey};
pub use tallymesh_engine::{SeriesEntry, SeriesListing};
pub use tallymesh_schemas::config::{Metric, Monitor};
pub use tallymesh_schemas::{SeriesName, SeriesSpec, Window};

// Limits.
pub use decision::{Decision, Reason};
pub use limits::{Limits, Open, Refusal};
pub use scope::Scope;
pub use tallymesh_engine::limiter::{FoundingError, LimitError, PoolStanding, Reach, Standing};
pub use tallymesh_schemas::config::{
    InboundMaximum, LimitsConfig, NamedPermits, NamedThrottle, OutboundLimits, OutboundScope,
};
pub use tallymesh_schemas::{Family, OnPartition, Rate, RateError, Strength, ThrottleSpec};
pub use throttle::{NeverReady, OpenPermit, Permits, Throttle, ThrottleError};

// The features `admin`, `config`, `http` and `state`.
#[cfg(feature = "http")]
pub use http::HttpError;
#[cfg(any(feature = "admin", feature = "http"))]
pub use socket_error::SocketError;
#[cfg(feature = "state")]
pub use state::{RolledBack, StateError, StateStanding};
#[cfg(feature = "http")]
pub use tallymesh_schemas::config::HttpAddress;
#[cfg(feature = "state")]
pub use tallymesh_schemas::config::OnFullDisk;
#[cfg(feature = "config")]
pub use tallymesh_schemas::config::{
    Config, ConfigError, ConfigErrors, MetricsConfig, NodeConfig, ThrottleClass, ThrottleConfig,
};

/// A key's bytes, as listings return them, in readable form.
///
/// ```
/// use tallymesh::{Kind, key_text};
///
/// assert_eq!(key_text(Kind::GaugeTable, b"example.com"), "example.com");
/// ```
pub fn key_text(kind: Kind, key: &[u8]) -> String {
    // The engine holds only valid keys.
    tallymesh_schemas::key::display(kind, key).unwrap_or_default()
}
