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
//! happens:
//!
//! ```no_run
//! use std::time::Duration;
//! use tallymesh::{
//!     Builder, Change, Config, Counters, Decision, EngineConfig, Family, InboundMaximum, LimitsConfig, Member, NamedThrottle,
//!     Node, NodeEvent, NodeGone, NodeName, OutboundLimits, OutboundScope, Permits, Rate, Reason, Standing, Strength,
//!     Throttle, ThrottleSpec, Time, Timings, Verification,
//! };
//!
//! fn by_file(path: &str) -> Result<Builder, Box<dyn std::error::Error>> {
//!     let mut config = Config::parse(&std::fs::read_to_string(path)?, path)?;
//!     config.resolve_paths(std::path::Path::new("mesh"));
//!     Ok(Builder::from_config(&config)?)
//! }
//!
//! fn by_program(builder: Builder, founders: Vec<NodeName>) -> Result<Builder, Box<dyn std::error::Error>> {
//!     let rate: Rate = "300/5m".parse()?;
//!     Ok(builder
//!         .founders(founders, Duration::from_secs(30))
//!         .throttle("campaign", ThrottleSpec::new(rate, Strength::Soft))
//!         .permits("uploads", 20)
//!         .inbound_maximum(24, 30) // of an IPv4 block
//!         .inbound_maximum(64, 30) // of an IPv6 block
//!         .inbound_maximum_of(Family::V6, 32, 1000)
//!         .outbound_maximum(OutboundScope::Domain("example.com".to_owned()), 20)
//!         .outbound_messages(OutboundScope::Global, ThrottleSpec::new(rate, Strength::Hard))
//!         .timings(Timings::default())
//!         .engine(EngineConfig::default()))
//! }
//!
//! fn declared(limits: &LimitsConfig) -> (&[NamedThrottle], &[OutboundLimits], &[InboundMaximum]) {
//!     (&limits.throttles, &limits.outbound, &limits.inbound)
//! }
//!
//! fn ask(throttle: &Throttle, permits: &Permits) -> Option<Reason> {
//!     let state: Standing = throttle.state();
//!     println!("{} tokens are here", state.tokens);
//!     match throttle.take(1) {
//!         Decision::Admitted => permits.open().err(),
//!         Decision::Refused { reason, .. } => Some(reason),
//!     }
//! }
//!
//! async fn look(node: &Node) -> Result<(), NodeGone> {
//!     let members: Vec<Member> = node.members().await?;
//!     members.iter().for_each(|member| println!("{member}"));
//!     let (counters, now): (Counters, Time) = (node.counters().await?, node.time());
//!     let found: Verification = node.verify(Duration::from_secs(5)).await?;
//!     println!("{found}; {} deltas in {} µs", counters.deltas_in, now.0);
//!     let mut events = node.events();
//!     while let Some(event) = events.next().await {
//!         if let NodeEvent::Life { node, life } = event {
//!             println!("{node} is {life}");
//!         }
//!     }
//!     Ok(())
//! }
//!
//! async fn follow(node: &Node) -> Result<(), tallymesh::ObjectError> {
//!     let mut changes = node.changes("inbound_cidr")?;
//!     while let Some(Change { key, count, lost }) = changes.next().await {
//!         println!("{key} {count}, {lost} lost before");
//!     }
//!     Ok(())
//! }
//! ```
#![deny(missing_docs)]

/// Compiles the example that the README shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod admin;
mod audit;
mod builder;
mod cache;
mod changes;
mod cidr;
mod clock;
mod command;
mod conflicts;
mod decision;
mod declared;
mod driver;
mod events;
#[cfg(test)]
mod fixtures;
mod gauge;
mod limiters;
mod limits;
mod member;
mod names;
mod node;
mod object_error;
mod reached;
mod report;
mod seed;
mod series;
mod settings;
mod shared;
mod start;
pub mod state;
#[cfg(test)]
mod surface;
mod throttle;
mod topology;

pub use admin::AdminError;
pub use audit::Audit;
pub use builder::{Builder, StartError};
pub use cache::{Cache, Errors, LoadError, Loaded};
pub use changes::{Change, Changes};
pub use cidr::Cidr;
pub use decision::{Decision, Reason};
pub use declared::DeclaredError;
pub use events::{Events, NodeEvent, NodeGone};
pub use gauge::GaugeCache;
pub use limits::{Limits, Open, Refusal, Scope};
pub use member::Member;
pub use names::{BindingDomains, Domains};
pub use node::Node;
pub use object_error::ObjectError;
pub use series::{Series, SeriesKey};
pub use state::{RolledBack, StateError, StateStanding};
pub use tallymesh_engine::limiter::{FoundingError, LimitError, PoolStanding, Reach, Standing};
pub use tallymesh_engine::replica::{Counters, Fault, Finding, NotHeld, Outcome, StructureError, Verification};
pub use tallymesh_engine::{
    Block, Config as EngineConfig, Count, Counter, Entry, Hold, HoldError, Life, Listing, Structure,
};
pub use tallymesh_engine::{CacheEntry, CacheError, Difference, Stamp};
pub use tallymesh_engine::{Now, Time, Wake, Watch};
pub use tallymesh_engine::{SeriesEntry, SeriesListing};
pub use tallymesh_schemas::config::OnFullDisk;
pub use tallymesh_schemas::config::{
    CacheConfig, Config, ConfigErrors, Metric, MetricsConfig, Monitor, NodeConfig, Pace,
};
pub use tallymesh_schemas::config::{InboundMaximum, NamedPermits, NamedThrottle, OutboundLimits, OutboundScope};
pub use throttle::{NeverReady, OpenPermit, Permits, Throttle, ThrottleError};
/// A key's bytes, as listings return them, in readable form.
pub fn key_text(kind: Kind, key: &[u8]) -> String {
    // The engine holds only valid keys.
    tallymesh_schemas::key::display(kind, key).unwrap_or_default()
}

pub use tallymesh_schemas::GaugeCacheSpec;
/// The largest step, 2^40, of one addition or removal. `tally add` and `tally load` refuse larger steps; the handles reduce
/// them to this value.
pub use tallymesh_schemas::bounds::STEP as MAX_STEP;
pub use tallymesh_schemas::config::LimitsConfig;
pub use tallymesh_schemas::key::{DomainFault, KeyError};
pub use tallymesh_schemas::mask::{Family, MaskError, MaskLimit};
pub use tallymesh_schemas::ttl::{TtlError, parse as parse_ttl};
pub use tallymesh_schemas::{Actor, Bounds, Class, Incarnation, Kind, NodeName, OnDead, StructureName, StructureSpec};
pub use tallymesh_schemas::{NameError, StructureId, Version};
pub use tallymesh_schemas::{OnPartition, Rate, RateError, Strength, ThrottleSpec};
pub use tallymesh_schemas::{SeriesName, SeriesSpec};
pub use tallymesh_transport::{BindError, Gate, Identity, IdentityError, Joining, Timings, Traffic};
// The types of addresses and blocks that handles use.
pub use ipnet::{self, IpNet};
// The lower layers, for services that need more: engine structures, messages and configuration, and links.
pub use tallymesh_engine as engine;
pub use tallymesh_schemas as schemas;
pub use tallymesh_transport as transport;
