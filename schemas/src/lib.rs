//! The protocol types that Tallymesh nodes exchange with each other and with their operators.
//!
//! This crate contains identities ([`NodeName`], [`Actor`]), keys ([`key`]), structures ([`StructureSpec`]) and series of them
//! ([`SeriesSpec`]), the replication messages ([`message`]) with their codecs of rows ([`rows`]) and of cache entries ([`entries`]), frames ([`frame`]), the
//! configuration ([`config`]) and the admin protocol ([`admin`]) with the views of replicated state ([`inspect`]). It has no I/O, no async code and no clock.
//!
//! Every decoder here accepts arbitrary bytes and returns a value or an error. It never panics and never allocates more than a
//! bound in [`bounds`] allows.
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

pub mod actor;
pub mod admin;
mod borrowed_bytes;
pub mod bound;
pub mod bounds;
pub mod budget;
pub mod config;
pub mod entries;
pub mod frame;
pub mod gauge;
pub mod inspect;
pub mod key;
pub mod mask;
pub mod message;
pub mod overlay;
pub mod position;
pub mod rate;
pub mod reporter;
pub mod rows;
pub mod saved;
pub mod series;
pub mod structure;
pub mod throttle;
pub mod ttl;
pub mod unix_ms;
pub mod varint;
pub mod version;
pub mod visible;

pub use crate::actor::{Actor, Incarnation, NameError, NoSuchRun, NodeName};
pub use crate::bound::Bound;
pub use crate::budget::{Budget, OverBudget};
pub use crate::gauge::GaugeCacheSpec;
pub use crate::mask::{Family, HoldLimit, MaskError, MaskLimit};
pub use crate::overlay::Overlay;
pub use crate::position::{Position, PositionError};
pub use crate::rate::{Rate, RateError};
pub use crate::reporter::{Repeated, Reporter};
pub use crate::series::{SeriesName, SeriesSpec, Window};
pub use crate::structure::{Bounds, Cell, Class, Kind, OnDead, StructureId, StructureName, StructureSpec};
pub use crate::throttle::{OnPartition, Strength, ThrottleSpec};
pub use crate::unix_ms::UnixMs;
pub use crate::version::Version;
