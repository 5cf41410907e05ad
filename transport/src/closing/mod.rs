//! How connections end: the codes with which this crate closes them, and the meaning of an end.
//!
//! Only [`Proven`](proven::Proven) turns the end of a connection into an [`Ending`](ending::Ending), which has effects. If the
//! peer has not proven its identity yet, its close reason becomes an [`Unproven`](ending::Unproven): a text for the log.

pub(crate) mod code;
pub(crate) mod ending;
pub(crate) mod proven;
