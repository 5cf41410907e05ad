//! The counters of an endpoint.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tallymesh_schemas::bound;

/// Why this node or the peer refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// The two ends have no common protocol version.
    ProtocolVersion,
    /// A different authority than the cluster's signed the certificate.
    Authority,
    /// The certificate is missing, expired, malformed or not meant for this use.
    Certificate,
    /// The name is not the expected one, or not the one in the certificate.
    WrongName,
    /// The TLS handshake did not end in time.
    Handshake,
    /// The hello is missing, late or malformed.
    Hello,
    /// A frame is larger than allowed, empty, or of an unknown version.
    Frame,
    /// The peer opened more than one stream.
    Stream,
    /// A newer run of the same node is known.
    Stale,
    /// Too many handshakes are in progress.
    Overload,
    /// The table of members is full.
    ClusterFull,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::ProtocolVersion,
        Self::Authority,
        Self::Certificate,
        Self::WrongName,
        Self::Handshake,
        Self::Hello,
        Self::Frame,
        Self::Stream,
        Self::Stale,
        Self::Overload,
        Self::ClusterFull,
    ];

    /// The reason in two words, as logs and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol version",
            Self::Authority => "other authority",
            Self::Certificate => "bad certificate",
            Self::WrongName => "wrong name",
            Self::Handshake => "handshake timeout",
            Self::Hello => "bad hello",
            Self::Frame => "bad frame",
            Self::Stream => "extra stream",
            Self::Stale => "stale incarnation",
            Self::Overload => "too many handshakes",
            Self::ClusterFull => "cluster full",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of an endpoint since its start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
            refused: [u64; Refusal::ALL.len()],
        }

        /// The live counters.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            /// The bounds that were reached.
            pub(crate) bounds: bound::Tally,
            $(pub(crate) $name: AtomicU64,)*
            refused: [AtomicU64; Refusal::ALL.len()],
        }

        impl Tally {
            /// The current values of the counters.
            pub(crate) fn snapshot(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    refused: self.refused.each_ref().map(|count| count.load(Ordering::Relaxed)),
                }
            }
        }
    };
}

counters! {
    /// Connections tried.
    dials,
    /// Connections tried that did not become a link.
    dials_failed,
    /// Links that came up.
    links_up,
    /// Links that went down.
    links_down,
    /// Frames handed to QUIC.
    frames_out,
    /// Payload bytes handed to QUIC.
    bytes_out,
    /// Frames received.
    frames_in,
    /// Payload bytes received.
    bytes_in,
    /// Membership datagrams sent.
    datagrams_out,
    /// Membership datagrams received.
    datagrams_in,
    /// Membership datagrams that were malformed, named a wrong sender, or found no room.
    datagrams_bad,
    /// Membership datagrams that were dropped because no link leads to their receiver.
    datagrams_unlinked,
    /// Incoming connections that had to prove their address first.
    retries,
}

impl Counters {
    /// Connections that this node or the peer refused for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused.get(reason.index()).copied().unwrap_or(0)
    }

    /// Connections refused for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

impl Tally {
    /// Counts a refusal.
    pub(crate) fn refuse(&self, reason: Refusal) {
        if let Some(count) = self.refused.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Frames and their bytes in one direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Flow {
    pub(crate) fn count(&self, frames: usize, bytes: usize) {
        count(&self.frames, frames);
        count(&self.bytes, bytes);
    }

    /// The frames and their bytes so far.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_own_count() {
        let tally = Tally::default();
        for (index, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            tally.refuse(reason);
            assert_eq!(tally.snapshot().refused(reason), 1);
        }
        assert_eq!(tally.snapshot().refused_total(), Refusal::ALL.len() as u64);
    }
}
