//! Keys: short byte strings in the engine and on the wire. This module gives them their meaning.
//!
//! | kind | bytes | text |
//! |---|---|---|
//! | address or block | `4` or `6`, the network address, the prefix length | `10.0.0.1`, `10.0.0.0/24`, `2001:db8::/64` |
//! | name | UTF-8 without control characters | `campaign` |
//! | domain | its A-labels in lower case, no dot at the end | `aol.com`, `AOL.com.`, `münchen.example` |
//! | binding and domain | the binding, a slash, the domain | `binding/aol.com` |
//! | cache key | any | the text, with bytes that are not text as `\x00` |
//!
//! Listings use byte order: IPv4 before IPv6, then by address, a block before its contents; names as text. The engine's radix
//! tree requires that no key is a prefix of another key of the same structure, if a terminating zero is assumed after each key.
//! All keys satisfy this, except keys of caches, which are not in a radix tree.
#![allow(clippy::indexing_slicing, reason = "positions are inside the key that was made here")]

mod domain;
mod error;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::bounds;
use crate::structure::{Cell, Class, Kind};
use crate::varint;

pub use crate::key::domain::{binding_domain, domain};
pub use crate::key::error::{DomainFault, KeyError};

/// Longest key of an address: family, 16 bytes of address, prefix length.
pub const ADDRESS_KEY_BYTES: usize = 18;

const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// Encodes an address or block as a key. IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.7`) become IPv4; host bits
/// below the prefix are cleared.
pub fn from_net(net: IpNet) -> ([u8; ADDRESS_KEY_BYTES], usize) {
    let mut key = [0; ADDRESS_KEY_BYTES];
    match canonical(net) {
        IpNet::V4(net) => {
            key[0] = FAMILY_V4;
            key[1..5].copy_from_slice(&net.network().octets());
            key[5] = net.prefix_len();
            (key, 6)
        }
        IpNet::V6(net) => {
            key[0] = FAMILY_V6;
            key[1..17].copy_from_slice(&net.network().octets());
            key[17] = net.prefix_len();
            (key, 18)
        }
    }
}

/// The canonical form of a block: IPv4 written as IPv6 becomes IPv4, host bits are cleared.
pub fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// Decodes a key to its block.
///
/// # Errors
/// [`KeyError::Encoding`] when [`from_net`] does not produce these bytes.
pub fn to_net(key: &[u8]) -> Result<IpNet, KeyError> {
    let error = || KeyError::Encoding { len: key.len(), kind: Kind::CidrTree };
    let (&family, rest) = key.split_first().ok_or_else(error)?;
    let (&len, addr) = rest.split_last().ok_or_else(error)?;
    let net = match family {
        FAMILY_V4 => {
            let octets: [u8; 4] = addr.try_into().map_err(|_| error())?;
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(octets), len).map_err(|_| error())?)
        }
        FAMILY_V6 => {
            let octets: [u8; 16] = addr.try_into().map_err(|_| error())?;
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from(octets), len).map_err(|_| error())?)
        }
        _ => return Err(error()),
    };
    if canonical(net) == net && net.network() == net.addr() { Ok(net) } else { Err(error()) }
}

/// Parses an address or block.
///
/// # Errors
/// [`KeyError::Address`] with the text.
pub fn parse_net(text: &str) -> Result<IpNet, KeyError> {
    let net =
        if text.contains('/') { text.parse::<IpNet>().ok() } else { text.parse::<IpAddr>().ok().map(IpNet::from) };
    net.map(canonical).ok_or_else(|| KeyError::Address(text.to_owned()))
}

/// Parses a key of a class from its readable form.
///
/// # Errors
/// [`KeyError`] says how such a key is written.
pub fn parse(class: Class, text: &str) -> Result<Vec<u8>, KeyError> {
    match class {
        Class::InboundCidr | Class::OutboundCidr | Class::AddressEvents => {
            let (key, len) = from_net(parse_net(text)?);
            Ok(key[..len].to_vec())
        }
        Class::OutboundDomains => Ok(domain(text)?.into_owned().into_bytes()),
        Class::OutboundBindingDomains => {
            let (binding, name) = text.split_once('/').ok_or_else(|| KeyError::BindingDomain(text.to_owned()))?;
            Ok(binding_domain(binding, name)?.into_bytes())
        }
        Class::NamedEvents | Class::GaugeCache | Class::Settings => {
            check(Kind::GaugeTable, text.as_bytes()).map_err(|_| KeyError::Name(text.to_owned()))?;
            Ok(text.as_bytes().to_vec())
        }
        Class::SharedNamedThrottles | Class::OutboundMessages | Class::OutboundConnections => {
            Ok(throttle(text)?.as_bytes().to_vec())
        }
        Class::Cache => {
            check(Kind::Cache, text.as_bytes()).map_err(|_| KeyError::Name(text.to_owned()))?;
            Ok(text.as_bytes().to_vec())
        }
    }
}

/// First byte of the keys of rows in which nodes exchange the shares of a throttle. No throttle's name begins with it.
pub const SHARING: u8 = b'!';

/// Checks the name of a throttle.
///
/// # Errors
/// [`KeyError::Throttle`] when it is empty, longer than [`bounds::THROTTLE_NAME_BYTES`], begins with `!` or has control
/// characters.
pub fn throttle(text: &str) -> Result<&str, KeyError> {
    let good = (1..=bounds::THROTTLE_NAME_BYTES).contains(&text.len())
        && text.bytes().next() != Some(SHARING)
        && text.chars().all(|c| !c.is_control());
    if good { Ok(text) } else { Err(KeyError::Throttle(text.to_owned())) }
}

/// Whether a key belongs to a row in which nodes exchange the shares of a throttle. No listing shows such keys.
pub fn is_sharing(kind: Kind, key: &[u8]) -> bool {
    kind == Kind::ThrottleTable && key.first() == Some(&SHARING)
}

/// A key in its readable form. A host is shown without its prefix length.
///
/// # Errors
/// [`KeyError::Encoding`] when the bytes are not a key of that kind.
pub fn display(kind: Kind, key: &[u8]) -> Result<String, KeyError> {
    match kind {
        Kind::CidrTree => to_net(key)
            .map(|net| if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }),
        Kind::GaugeTable | Kind::ThrottleTable => {
            std::str::from_utf8(key).map(str::to_owned).map_err(|_| KeyError::Encoding { len: key.len(), kind })
        }
        Kind::Cache => Ok(display_bytes(key)),
    }
}

/// Bytes in readable form: text is unchanged, all other bytes are escaped as `\x00`.
pub fn display_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() && c != '\\') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Checks that bytes from a peer are a key of that kind.
///
/// # Errors
/// [`KeyError::Encoding`] when they are not.
pub fn check(kind: Kind, key: &[u8]) -> Result<(), KeyError> {
    match kind {
        Kind::CidrTree => to_net(key).map(drop),
        Kind::GaugeTable | Kind::ThrottleTable => {
            let good = (1..=bounds::KEY_BYTES).contains(&key.len())
                && std::str::from_utf8(key).is_ok_and(|text| text.chars().all(|c| !c.is_control()));
            if good { Ok(()) } else { Err(KeyError::Encoding { len: key.len(), kind }) }
        }
        Kind::Cache if (1..=bounds::KEY_BYTES).contains(&key.len()) => Ok(()),
        Kind::Cache => Err(KeyError::Encoding { len: key.len(), kind }),
    }
}

/// First byte of the key of a reset row. No other key begins with it.
const CLEARED: u8 = 0xff;

/// The key of a reset row: it states how much of an actor's count of a key was cleared, in structures of [`Cell::Events`].
///
/// [`Cell::Events`]: crate::Cell::Events
pub fn cleared(actor: &Actor, key: &[u8]) -> Vec<u8> {
    let name = actor.node.as_str().as_bytes();
    let mut bytes = vec![CLEARED];
    varint::put(&mut bytes, actor.incarnation.0);
    varint::put(&mut bytes, name.len() as u64);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(key);
    bytes
}

/// Whether [`cleared`] made the key.
pub fn is_cleared(key: &[u8]) -> bool {
    key.first() == Some(&CLEARED)
}

/// Decodes the actor and the key that [`cleared`] encoded.
///
/// # Errors
/// [`KeyError::Encoding`] when the bytes have another form. This function does not check whether the rest is a valid key.
pub fn to_cleared(kind: Kind, bytes: &[u8]) -> Result<(Actor, &[u8]), KeyError> {
    let parts = || {
        let mut rest = bytes.strip_prefix(&[CLEARED])?;
        let incarnation = varint::take(&mut rest).filter(|run| *run <= bounds::INCARNATION)?;
        let len = usize::try_from(varint::take(&mut rest)?).ok()?;
        let (name, key) = rest.split_at_checked(len)?;
        let node = NodeName::new(std::str::from_utf8(name).ok()?).ok()?;
        Some((Actor::new(node, Incarnation(incarnation)), key))
    };
    parts().ok_or(KeyError::Encoding { len: bytes.len(), kind })
}

/// Checks that bytes from a peer are the key of a row of that class.
///
/// # Errors
/// [`KeyError::Encoding`] when they are not.
pub fn check_row(class: Class, key: &[u8]) -> Result<(), KeyError> {
    let key = match class.cell() {
        Cell::Events if is_cleared(key) => to_cleared(class.kind(), key)?.1,
        _ => key,
    };
    check(class.kind(), key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Vec<u8> {
        parse(Class::InboundCidr, text).unwrap()
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(key("10.0.0.1"), key("10.0.0.1/32"));
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_eq!(key("10.0.0.9/24"), key("10.0.0.0/24"));
        assert_eq!(display(Kind::CidrTree, &key("10.0.0.9/24")).unwrap(), "10.0.0.0/24");
        assert_eq!(display(Kind::CidrTree, &key("2001:DB8::1")).unwrap(), "2001:db8::1");
        for bad in ["", "10.0.0", "10.0.0.0/33", "::/129", "aol.com"] {
            assert_eq!(parse_net(bad), Err(KeyError::Address(bad.to_owned())));
        }
    }

    #[test]
    fn byte_order_is_listing_order() {
        let texts = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.0.0/24",
            "10.0.0.0",
            "10.0.0.103",
            "10.0.1.0",
            "::/0",
            "::1",
            "2001:db8::/32",
        ];
        let keys: Vec<_> = texts.map(key).into();
        assert!(keys.is_sorted());
    }

    #[test]
    fn the_key_of_a_reset_names_the_cleared_key() {
        let actor = Actor::new(NodeName::new("relay-0-1").unwrap(), Incarnation(7));
        let bytes = cleared(&actor, &key("10.0.0.1"));
        assert_eq!(to_cleared(Kind::CidrTree, &bytes), Ok((actor.clone(), key("10.0.0.1").as_slice())));
        assert_eq!(check_row(Class::AddressEvents, &bytes), Ok(()));
        assert!(check_row(Class::InboundCidr, &bytes).is_err(), "gauges are not cleared");
        assert!(check_row(Class::AddressEvents, &cleared(&actor, b"aol.com")).is_err());
        assert!(check_row(Class::NamedEvents, &cleared(&actor, b"")).is_err());
        assert!(check_row(Class::AddressEvents, &cleared(&actor, &bytes)).is_err(), "nothing clears a clearing");
        for cut in 0..bytes.len() {
            assert!(check_row(Class::AddressEvents, &bytes[..cut]).is_err());
        }
        let longest = vec![b'x'; bounds::KEY_BYTES];
        let node = NodeName::new(&"n".repeat(bounds::NODE_NAME_BYTES)).unwrap();
        assert!(cleared(&Actor::new(node, Incarnation(bounds::INCARNATION)), &longest).len() <= bounds::ROW_KEY_BYTES);
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(parse(Class::OutboundBindingDomains, "b1/Aol.com").unwrap(), b"b1/aol.com");
        assert!(parse(Class::OutboundBindingDomains, "aol.com").is_err());
        assert!(parse(Class::OutboundBindingDomains, "/aol.com").is_err());
    }

    proptest! {
        #[test]
        fn a_checked_address_key_is_the_only_one_of_its_block(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(net) = to_net(&bytes) {
                let (again, len) = from_net(net);
                prop_assert_eq!(&again[..len], &bytes[..]);
            }
        }

        #[test]
        fn every_block_comes_back(bits: u128, len in 0u8..=128) {
            let v4 = IpNet::V4(Ipv4Net::new(Ipv4Addr::from(bits as u32), len.min(32)).unwrap());
            let v6 = IpNet::V6(Ipv6Net::new(Ipv6Addr::from(bits), len).unwrap());
            for net in [v4, v6] {
                let (bytes, n) = from_net(net);
                prop_assert_eq!(to_net(&bytes[..n]), Ok(canonical(net)));
                prop_assert!(check(Kind::CidrTree, &bytes[..n]).is_ok());
            }
        }
    }
}
