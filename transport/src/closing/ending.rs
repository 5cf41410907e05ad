//! The meaning of the end of a connection.

use quinn::{ConnectionError, TransportErrorCode, VarInt};
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::bounds::REASON_BYTES;
use crate::closing::code::Code;
use crate::counters::Refusal;

/// Why a connection did not become a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The peer had not proven its identity.
    Unproven(Unproven),
    /// A node of the cluster, or this node, ended it.
    Proven { peer: NodeName, ending: Ending },
}

impl Failure {
    /// Whether the connection led to a peer that is linked, or to this node itself, which is called `us`. Either end may close
    /// such a connection first, so the end that dialed may see it as a failure.
    pub(crate) fn has_met(&self, us: &NodeName) -> bool {
        match self {
            Self::Unproven(_) => false,
            Self::Proven { peer, ending } => ending.replaced || (ending.ourselves && peer == us),
        }
    }
}

/// The end of a connection whose peer has not proven that it has a key of the cluster. Anyone may have caused it, so it means
/// only that the connection failed. The texts and the refusal are for the log and the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unproven {
    /// Text for people.
    pub(crate) reason: String,
    /// The refusal that it resembles.
    pub(crate) refusal: Option<Refusal>,
}

impl Unproven {
    /// An end that this node decided.
    pub(crate) fn local(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), refusal: None }
    }

    /// An end that this node decided because the peer misbehaved.
    pub(crate) fn refused(refusal: Refusal, reason: impl Into<String>) -> Self {
        Self { refusal: Some(refusal), ..Self::local(reason) }
    }

    /// Interprets QUIC's error.
    pub(crate) fn of(error: &ConnectionError) -> Self {
        if let ConnectionError::ApplicationClosed(close) = error {
            // A node of the cluster closes with a code only after it has proven its identity.
            return Self::local(format!("closed before the handshake was over: {}", printable(&close.reason)));
        }
        let Ending { reason, refusal, .. } = Ending::of(error);
        Self { reason, refusal }
    }
}

/// How a connection to a node of the cluster ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Text for people.
    pub(crate) reason: String,
    /// The peer left.
    pub(crate) goodbye: bool,
    /// It was a refusal.
    pub(crate) refusal: Option<Refusal>,
    /// The peer knows a newer run of this node.
    pub(crate) superseded: Option<Incarnation>,
    /// The nodes keep another connection between them.
    pub(crate) replaced: bool,
    /// The peer is this node.
    pub(crate) ourselves: bool,
}

impl Ending {
    /// An end that this node decided.
    pub(crate) fn local(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            goodbye: false,
            refusal: None,
            superseded: None,
            replaced: false,
            ourselves: false,
        }
    }

    /// An end that this node decided because the peer misbehaved.
    pub(crate) fn refused(refusal: Refusal, reason: impl Into<String>) -> Self {
        Self { refusal: Some(refusal), ..Self::local(reason) }
    }

    /// The end after a peer's goodbye.
    pub(crate) fn goodbye() -> Self {
        Self { goodbye: true, ..Self::local("the peer left") }
    }

    /// Interprets QUIC's error on a connection whose peer has proven its identity.
    pub(super) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::closed_by_peer(close.error_code, &close.reason),
            ConnectionError::TransportError(error) => {
                Self { refusal: tls_refusal(error.code), ..Self::local(printable(error.to_string().as_bytes())) }
            }
            ConnectionError::ConnectionClosed(close) => {
                let refusal = tls_refusal(close.error_code);
                let reason = match refusal {
                    Some(refusal) => format!("refused by the peer: {refusal}: {}", printable(&close.reason)),
                    None => format!("closed by the peer's QUIC: {}: {}", close.error_code, printable(&close.reason)),
                };
                Self { refusal, ..Self::local(reason) }
            }
            ConnectionError::TimedOut => Self::local("no answer: timed out"),
            ConnectionError::Reset => Self::local("reset by the peer, which seems to have restarted"),
            ConnectionError::LocallyClosed => Self::local("closed"),
            ConnectionError::VersionMismatch => {
                Self::refused(Refusal::ProtocolVersion, "the peer speaks another version of QUIC")
            }
            ConnectionError::CidsExhausted => Self::local("no connection identifiers left"),
        }
    }

    fn closed_by_peer(code: VarInt, reason: &[u8]) -> Self {
        let text = printable(reason);
        let Some(code) = Code::from_var(code) else {
            return Self::local(format!("closed by the peer with the unknown code {code}: {text}"));
        };
        // The number comes from outside, so an invalid incarnation is refused.
        let by = text.parse().ok().and_then(|by| Incarnation(by).checked().ok());
        Self {
            goodbye: code == Code::Goodbye,
            refusal: code.refusal(),
            superseded: by.filter(|_| code == Code::Superseded),
            replaced: code == Code::Replaced,
            ourselves: code == Code::Ourselves,
            ..Self::local(match code {
                Code::Goodbye => "the peer left".to_owned(),
                Code::Replaced => "another connection to the peer stays".to_owned(),
                Code::Renewed => "the peer continues as a new run".to_owned(),
                Code::Superseded => format!("the peer knows a newer run of this node: {text}"),
                _ => format!("closed by the peer: {text}"),
            })
        }
    }
}

/// The refusal that a TLS alert means (RFC 8446, section 6), or QUIC's own refusal of a connection.
fn tls_refusal(code: TransportErrorCode) -> Option<Refusal> {
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return Some(Refusal::Overload);
    }
    let code = u64::from(code);
    match code.checked_sub(0x100)? {
        // no_application_protocol, protocol_version
        120 | 70 => Some(Refusal::ProtocolVersion),
        // unknown_ca
        48 => Some(Refusal::Authority),
        // access_denied: earlier builds send it for a certificate with another name
        49 => Some(Refusal::WrongName),
        // bad_certificate to certificate_unknown, decrypt_error, certificate_required
        42..=46 | 51 | 116 => Some(Refusal::Certificate),
        _ => None,
    }
}

/// A peer's text, made fit for a log line: bounded, and without control characters.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..REASON_BYTES).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superseded_run_learns_only_of_valid_incarnations() {
        let by = |text: &str| Ending::closed_by_peer(Code::Superseded.var(), text.as_bytes()).superseded;
        assert_eq!(by("1700000000000"), Some(Incarnation(1_700_000_000_000)));
        assert_eq!(by("9007199254740991"), Some(Incarnation(9_007_199_254_740_991)));
        assert_eq!(by("9007199254740992"), None);
        assert_eq!(by("18446744073709551615"), None);
        assert_eq!(by("soon"), None);
        assert_eq!(Ending::closed_by_peer(Code::Closed.var(), b"17").superseded, None);
    }

    #[test]
    fn before_the_handshake_is_over_no_code_means_anything() {
        for code in Code::ALL.into_iter().map(Code::var).chain([VarInt::from_u32(999)]) {
            let close = quinn::ApplicationClose { error_code: code, reason: bytes::Bytes::from_static(b"17") };
            let unproven = Unproven::of(&ConnectionError::ApplicationClosed(close));
            assert_eq!(unproven, Unproven::local("closed before the handshake was over: 17"));
        }
    }

    /// A node that dials itself closes the connection at both ends. The end that dialed may see that as closed by the peer.
    #[test]
    fn a_dial_that_meets_this_node_or_a_linked_peer_has_not_failed() {
        let name = |text| NodeName::new(text).unwrap();
        let proven = |code: Code| Failure::Proven { peer: name("a"), ending: Ending::closed_by_peer(code.var(), b"") };
        assert!(proven(Code::Ourselves).has_met(&name("a")));
        assert!(!proven(Code::Ourselves).has_met(&name("b")), "another node cannot say so");
        assert!(proven(Code::Replaced).has_met(&name("b")));
        assert!(!proven(Code::Closed).has_met(&name("a")));
        assert!(!Failure::Unproven(Unproven::local("gone")).has_met(&name("a")));
    }

    #[test]
    fn the_reason_of_a_peer_is_bounded_and_printable() {
        assert_eq!(printable(b"a\x1b[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(printable(&[b'x'; 5000]).len(), REASON_BYTES);
    }
}
