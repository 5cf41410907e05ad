//! Why a text or bytes cannot be a key.

use std::fmt;

use crate::bounds;
use crate::budget::OverBudget;
use crate::structure::Kind;
use crate::visible::quoted;

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an address or block.
    #[error("\"{shown}\" is not an address or CIDR block: write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/64", shown = quoted(.0))]
    Address(String),
    /// A name that cannot be a domain.
    #[error("\"{shown}\" is not a domain: {fault}", shown = quoted(text))]
    Domain {
        /// The text.
        text: String,
        /// The reason.
        fault: DomainFault,
    },
    /// A binding and domain that are not two names joined by a slash.
    #[error("\"{shown}\" is not a binding and a domain: write it like BINDING/example.com", shown = quoted(.0))]
    BindingDomain(String),
    /// A name that is empty, too long or has control characters.
    #[error("\"{shown}\" cannot be a key: write 1 to {max} bytes without control characters", shown = quoted(.0), max = bounds::KEY_BYTES)]
    Name(String),
    /// A name that no throttle can have.
    #[error(
        "\"{shown}\" cannot be the name of a throttle: write 1 to {max} bytes without control characters, and no \"!\" at the beginning",
        shown = quoted(.0),
        max = bounds::THROTTLE_NAME_BYTES
    )]
    Throttle(String),
    /// Gauges cannot be cleared.
    #[error("a gauge cannot be cleared: it is zero when what it counts is closed")]
    Gauge,
    /// The total that one node added to the key, or removed from it, is at its bound.
    #[error("this node has added to this key, or taken off it, as much as it may: nothing is counted")]
    Total,
    /// The configuration of the node does not name the object any more.
    #[error("the configuration of this node does not have this object any more: nothing is counted")]
    Detached,
    /// There is no room for another key: see `max_keys`.
    #[error(transparent)]
    Budget(#[from] OverBudget),
    /// The bytes are not a key of the structure's kind.
    #[error("{len} bytes that are not a key of a {kind}", kind = kind.label())]
    Encoding {
        /// The number of bytes.
        len: usize,
        /// The kind of key that they should be.
        kind: Kind,
    },
}

/// Why a text is no domain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainFault {
    /// The text is empty.
    Empty,
    /// An invisible character. With it, two names that look alike would be counted separately, or two different ones together.
    Invisible(char),
    /// A character that no domain may contain.
    Character(char),
    /// A domain with a port.
    Port,
    /// An address.
    Address,
    /// The last label is a number, as in an address.
    Number,
    /// Two dots follow each other, or the name begins with one.
    EmptyLabel,
    /// A label is too long.
    LongLabel,
    /// The name is too long.
    Long,
    /// The rules of internationalized names do not allow it.
    Idna,
}

impl fmt::Display for DomainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, name) = (bounds::DOMAIN_LABEL_BYTES, bounds::DOMAIN_BYTES);
        match self {
            Self::Empty => f.write_str("it is empty: write it like example.com"),
            Self::Invisible(c) => write!(f, "it has the invisible character U+{:04X}: remove that", u32::from(*c)),
            Self::Character(c) => {
                write!(f, "it has the character \"{}\": write the name alone, like example.com", c.escape_default())
            }
            Self::Port => f.write_str("it has a port: write the name alone"),
            Self::Address => f.write_str("it is an address: count it in an object of addresses, or write the domain"),
            Self::Number => f.write_str(
                "its last label is a number, as in an address: count an address in an object of addresses, or write the whole domain",
            ),
            Self::EmptyLabel => f.write_str("a label between its dots is empty: write it like example.com"),
            Self::LongLabel => write!(f, "a label has more than {label} bytes in its ASCII form: shorten it"),
            Self::Long => write!(f, "it has more than {name} bytes in its ASCII form: shorten it"),
            Self::Idna => f.write_str(
                "the rules of internationalized names (UTS 46) do not allow its characters: write it as its owner registered it",
            ),
        }
    }
}
