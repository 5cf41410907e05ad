//! The transport of Tallymesh: QUIC links, TLS identities and membership datagrams.
//!
//! One QUIC connection joins each pair of nodes. Both ends prove their identity with a certificate of the cluster's authority.
//! The name in the certificate is the node's name. Each end opens one unidirectional stream for its frames and sends its
//! [hello](bounds::HELLO_BYTES) first; later frames are opaque to this crate. Membership (SWIM) uses datagrams on the same
//! connections.
//!
//! [`Endpoint::bind`] starts everything and returns the handle and the stream of [`Event`]s. One task, the mesh, owns the other
//! tasks. It decides which links stay, which addresses to dial and what to report to the membership. Each link has a task that
//! reads and a task that writes. No memory grows with what a peer sends: [`bounds`] names every bound.
//!
//! ```text
//!  Endpoint ──commands──▶ mesh ──▶ dials, acceptor ──▶ greeted connections ──▶ mesh
//!                          │ ▲
//!            spawns a link │ │ datagrams, ends
//!                          ▼ │
//!  Link::send ─▶ outbox ─▶ writer ═▶ QUIC ═▶ reader ─▶ inbox ─▶ Events::recv
//! ```
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
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod accept;
pub mod bounds;
mod closing;
mod config;
mod counters;
mod dial;
mod endpoint;
mod event;
mod frames;
mod gate;
mod greet;
mod hello;
mod identity;
mod inbox;
mod link;
mod member;
mod membership;
mod mesh;
mod notices;
mod outbox;
mod quic;
mod reports;
mod session;
mod shared;
mod slots;
mod socket;
mod source;
mod tls;
mod verify;
mod wall_clock;
mod writer;

pub use crate::config::{Config, Timings};
pub use crate::counters::{Counters, Refusal};
pub use crate::endpoint::{BindError, Endpoint, UseIdentityError};
pub use crate::event::Event;
pub use crate::gate::Gate;
pub use crate::identity::{Identity, IdentityError};
pub use crate::inbox::Events;
pub use crate::link::{Link, LinkId, SendError};
pub use crate::member::{FrameTraffic, Joining, Member, MemberState, Traffic};
pub use crate::tls::TlsError;
pub use crate::verify::CertificateNameError;
