//! The codes with which connections are closed.

use quinn::VarInt;

use crate::counters::Refusal;

/// A code with which a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    /// The application closed the link.
    Closed = 0,
    /// The node leaves, or it has read everything from a peer that leaves.
    Goodbye = 1,
    /// The nodes keep another connection between them.
    Replaced = 2,
    /// This node knows a newer run with the peer's name; the reason is its incarnation in decimal.
    Superseded = 3,
    /// The node connected to itself.
    Ourselves = 4,
    /// The node continues as a new run and connects again.
    Renewed = 5,
    /// The hello is missing or malformed.
    Hello = 6,
    /// A bad frame.
    Frame = 7,
    /// The peer opened more than one stream.
    Stream = 8,
    /// The hello's name is not the certificate's.
    WrongName = 9,
    /// The table of members is full.
    Full = 10,
    /// No common protocol version.
    Version = 11,
}

impl Code {
    pub(super) const ALL: [Self; 12] = [
        Self::Closed,
        Self::Goodbye,
        Self::Replaced,
        Self::Superseded,
        Self::Ourselves,
        Self::Renewed,
        Self::Hello,
        Self::Frame,
        Self::Stream,
        Self::WrongName,
        Self::Full,
        Self::Version,
    ];

    pub(crate) fn var(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(super) fn from_var(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.var() == code)
    }

    /// The code that reports a refusal to the peer.
    pub(crate) fn of(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ProtocolVersion => Self::Version,
            Refusal::WrongName => Self::WrongName,
            Refusal::Frame => Self::Frame,
            Refusal::Stream => Self::Stream,
            Refusal::Stale => Self::Superseded,
            Refusal::ClusterFull => Self::Full,
            Refusal::Authority | Refusal::Certificate | Refusal::Handshake | Refusal::Hello | Refusal::Overload => {
                Self::Hello
            }
        }
    }

    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Superseded => Some(Refusal::Stale),
            Self::Hello => Some(Refusal::Hello),
            Self::Frame => Some(Refusal::Frame),
            Self::Stream => Some(Refusal::Stream),
            Self::WrongName => Some(Refusal::WrongName),
            Self::Full => Some(Refusal::ClusterFull),
            Self::Version => Some(Refusal::ProtocolVersion),
            Self::Closed | Self::Goodbye | Self::Replaced | Self::Ourselves | Self::Renewed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert_eq!(Code::from_var(code.var()), Some(code));
        }
        assert_eq!(Code::from_var(VarInt::from_u32(999)), None);
    }
}
