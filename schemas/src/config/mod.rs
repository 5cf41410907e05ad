//! The configuration of a node and its cluster, in HCL with Momentum's stanzas.
//!
//! [`Config::parse`] reads a text and returns a [`Config`] that passed every check, or [`ConfigErrors`]: all errors, each with
//! its place and what to do. (If the text is not HCL, only the first such place.) This module reads no file and resolves no
//! name. The reference for users is `docs/configuration.md`.
//!
//! Processing order: `syntax` → `scope` and `value` (one block, one setting) → `node`, `replicate`, `caches`, `audit`, `series`
//! (one kind of block each) → `file` (rules that span several blocks). The result is made of the types in `model`, `metric` and
//! `outbound_scope`.

#[cfg(feature = "config")]
mod audit;
#[cfg(feature = "config")]
mod caches;
#[cfg(feature = "config")]
mod file;
#[cfg(feature = "config")]
mod gauge;
mod http;
#[cfg(feature = "config")]
mod limits;
mod metric;
mod model;
#[cfg(feature = "config")]
mod nesting;
#[cfg(feature = "config")]
mod node;
#[cfg(feature = "config")]
mod on_dead;
mod outbound_scope;
#[cfg(feature = "config")]
mod render;
#[cfg(feature = "config")]
mod replicate;
#[cfg(feature = "config")]
mod report;
#[cfg(feature = "config")]
mod scope;
#[cfg(feature = "config")]
mod series;
#[cfg(feature = "config")]
mod suggest;
#[cfg(feature = "config")]
mod syntax;
#[cfg(feature = "config")]
mod value;

pub use crate::config::http::{HttpAddress, HttpAddressError};
pub use crate::config::metric::Metric;
#[cfg(feature = "config")]
pub use crate::config::model::Config;
pub use crate::config::model::{
    CacheConfig, InboundMaximum, LimitsConfig, LogLevel, MetricsConfig, Monitor, NamedPermits, NamedThrottle,
    NodeConfig, OnFullDisk, OutboundLimits, Pace, ThrottleClass, ThrottleConfig, Tls,
};
#[cfg(feature = "config")]
pub use crate::config::node::dials;
pub use crate::config::outbound_scope::OutboundScope;
#[cfg(feature = "config")]
pub use crate::config::render::{SAMPLES, render_node_file};
#[cfg(feature = "config")]
pub use crate::config::report::{ConfigError, ConfigErrors};
