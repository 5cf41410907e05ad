//! Limits for the counts of an address and of the blocks that contain it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::InboundMaximum;
use crate::key;

/// A version of the Internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4, addresses of 32 bits.
    V4,
    /// IPv6, addresses of 128 bits.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The family of a mask without an explicit family: up to 32 bits it is IPv4's, as in the configuration.
    pub fn of_mask(prefix_len: u8) -> Self {
        if prefix_len > Self::V4.bits() { Self::V6 } else { Self::V4 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A limit for the count of a block of addresses. For an address, the block is the one that shares its first `prefix_len` bits.
///
/// A pair `(prefix_len, limit)` converts to a `MaskLimit`. Prefixes of up to 32 bits are then IPv4's, longer ones IPv6's; for a
/// shorter IPv6 prefix, name the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskLimit {
    /// The address family.
    pub family: Family,
    /// Bits of the block's prefix. The full length of an address means the address itself.
    pub prefix_len: u8,
    /// The highest allowed count in the block.
    pub limit: i64,
}

/// A mask that is longer than an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an {family} address has {bits} bits, not {prefix_len}", bits = family.bits())]
pub struct MaskError {
    /// The family of the mask.
    pub family: Family,
    /// Its length.
    pub prefix_len: u8,
}

impl MaskLimit {
    /// The block of an address that this limits; `None` when the address has the other family.
    ///
    /// # Errors
    /// [`MaskError`] when the mask is longer than an address of its family.
    pub fn block(&self, addr: IpAddr) -> Result<Option<IpNet>, MaskError> {
        let Self { family, prefix_len, .. } = *self;
        if prefix_len > family.bits() {
            return Err(MaskError { family, prefix_len });
        }
        let addr = key::canonical(addr.into()).addr();
        if Family::of(addr) != family {
            return Ok(None);
        }
        let block = IpNet::new(addr, prefix_len).map_err(|_| MaskError { family, prefix_len })?;
        Ok(Some(block.trunc()))
    }
}

impl From<(u8, i64)> for MaskLimit {
    fn from((prefix_len, limit): (u8, i64)) -> Self {
        Self { family: Family::of_mask(prefix_len), prefix_len, limit }
    }
}

impl From<InboundMaximum> for MaskLimit {
    fn from(inbound: InboundMaximum) -> Self {
        let family = if inbound.v6 { Family::V6 } else { Family::V4 };
        let limit = i64::try_from(inbound.maximum).unwrap_or(i64::MAX);
        Self { family, prefix_len: inbound.prefix_len, limit }
    }
}

/// A limit that a hold must not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldLimit {
    /// The highest count of the key itself.
    Key(i64),
    /// The highest count of a block around an address.
    Mask(MaskLimit),
}

/// The text is no valid limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldLimitError {
    /// The text has another form.
    #[error("\"{0}\" is not a limit: write N, or /MASK=N for a block of addresses, such as /24=30 or ipv6/32=100")]
    Form(String),
    /// The mask is too long.
    #[error(transparent)]
    Mask(#[from] MaskError),
}

impl FromStr for HoldLimit {
    type Err = HoldLimitError;

    fn from_str(text: &str) -> Result<Self, HoldLimitError> {
        let form = || HoldLimitError::Form(text.to_owned());
        let Some((mask, limit)) = text.split_once('=') else {
            return text.parse().map(Self::Key).map_err(|_| form());
        };
        let (family, digits) = mask.split_once('/').ok_or_else(form)?;
        let prefix_len: u8 = digits.parse().map_err(|_| form())?;
        let family = match family {
            "" => Family::of_mask(prefix_len),
            "ipv4" => Family::V4,
            "ipv6" => Family::V6,
            _ => return Err(form()),
        };
        if prefix_len > family.bits() {
            return Err(MaskError { family, prefix_len }.into());
        }
        Ok(Self::Mask(MaskLimit { family, prefix_len, limit: limit.parse().map_err(|_| form())? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(limit: impl Into<MaskLimit>, addr: &str) -> Option<String> {
        let block = limit.into().block(addr.parse().unwrap()).unwrap();
        block.map(|block| block.to_string())
    }

    #[test]
    fn a_mask_is_of_one_family() {
        assert_eq!(block((24, 1), "192.0.2.7").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(block((24, 1), "::ffff:192.0.2.7").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(block((24, 1), "2001:db8::7"), None);
        assert_eq!(block((64, 1), "2001:db8::7").as_deref(), Some("2001:db8::/64"));
        assert_eq!(block((64, 1), "192.0.2.7"), None);
        let short = MaskLimit { family: Family::V6, prefix_len: 32, limit: 1 };
        assert_eq!(block(short, "2001:db8:9::7").as_deref(), Some("2001:db8::/32"));
        let long = MaskLimit { family: Family::V4, prefix_len: 33, limit: 1 };
        let error = long.block("192.0.2.7".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "an IPv4 address has 32 bits, not 33");
        assert!(MaskLimit::from((129, 1)).block("2001:db8::7".parse().unwrap()).is_err());
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!("10".parse(), Ok(HoldLimit::Key(10)));
        assert_eq!("/24=30".parse(), Ok(HoldLimit::Mask((24, 30).into())));
        assert_eq!("/64=30".parse(), Ok(HoldLimit::Mask((64, 30).into())));
        let short = MaskLimit { family: Family::V6, prefix_len: 32, limit: 100 };
        assert_eq!("ipv6/32=100".parse(), Ok(HoldLimit::Mask(short)));
        for bad in ["", "x", "/24", "24=30", "/24=", "/=3", "/24=x", "ip/24=3", "/-1=3", "/256=3"] {
            assert_eq!(bad.parse::<HoldLimit>(), Err(HoldLimitError::Form(bad.to_owned())), "{bad}");
        }
        let error = "ipv4/33=3".parse::<HoldLimit>().unwrap_err();
        assert_eq!(error.to_string(), "an IPv4 address has 32 bits, not 33");
        assert!("/129=3".parse::<HoldLimit>().is_err());
    }
}
