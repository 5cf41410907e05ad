//! The hello, the first frame of a stream: the sender's node and run.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tallymesh_schemas::NoSuchRun;
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::bounds::{BUILD_BYTES, HELLO_BYTES};

/// The sender's node and run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The node; the certificate must have the same name.
    pub(crate) name: NodeName,
    /// The run.
    pub(crate) incarnation: Incarnation,
    /// A random number drawn at the start of the endpoint. It distinguishes a connection to itself from one to a process with
    /// the same name.
    pub(crate) nonce: u64,
    /// The address at which other nodes reach it.
    pub(crate) addr: SocketAddr,
    /// The build, as text for people.
    pub(crate) build: String,
}

/// Why a hello was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the hello cannot be read: {0}")]
    Malformed(postcard::Error),
    #[error("the hello has {0} bytes too many")]
    Trailing(usize),
    #[error("the hello says \"{said}\" and the certificate \"{certificate}\"")]
    Name { said: NodeName, certificate: NodeName },
    #[error("the hello's incarnation cannot be: {0}")]
    Incarnation(#[from] NoSuchRun),
    #[error("the hello's address {0} is none that can be dialed")]
    Address(SocketAddr),
    #[error("the hello's build is longer than {BUILD_BYTES} bytes or not plain text")]
    Build,
}

impl Hello {
    /// The payload of the first frame.
    pub(crate) fn encode(&self) -> Result<Bytes, postcard::Error> {
        let bytes = postcard::to_stdvec(self)?;
        if bytes.len() > HELLO_BYTES { Err(postcard::Error::SerializeBufferFull) } else { Ok(bytes.into()) }
    }

    /// Decodes a payload of at most [`HELLO_BYTES`] from a peer whose certificate names `certificate`.
    pub(crate) fn decode(payload: &[u8], certificate: &NodeName) -> Result<Self, HelloError> {
        let (hello, rest) = postcard::take_from_bytes::<Self>(payload).map_err(HelloError::Malformed)?;
        if !rest.is_empty() {
            return Err(HelloError::Trailing(rest.len()));
        }
        if hello.name != *certificate {
            return Err(HelloError::Name { said: hello.name, certificate: certificate.clone() });
        }
        hello.incarnation.checked()?;
        if !can_be_dialed(hello.addr) {
            return Err(HelloError::Address(hello.addr));
        }
        let plain = hello.build.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if hello.build.len() > BUILD_BYTES || !plain {
            return Err(HelloError::Build);
        }
        Ok(hello)
    }
}

/// Whether a peer's address is one that this node can dial.
pub(crate) fn can_be_dialed(addr: SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::bounds::INCARNATION;

    use super::*;

    fn hello() -> Hello {
        Hello {
            name: NodeName::new("a").unwrap(),
            incarnation: Incarnation(7),
            nonce: 1,
            addr: "192.0.2.1:7946".parse().unwrap(),
            build: "0.1.0".to_owned(),
        }
    }

    fn decode(hello: &Hello) -> Result<Hello, HelloError> {
        Hello::decode(&hello.encode().unwrap(), &NodeName::new("a").unwrap())
    }

    #[test]
    fn a_hello_is_read_back() {
        assert_eq!(decode(&hello()), Ok(hello()));
    }

    #[test]
    fn impossible_hellos_are_refused() {
        let b = NodeName::new("b").unwrap();
        assert!(matches!(decode(&Hello { name: b, ..hello() }), Err(HelloError::Name { .. })));
        for high in [INCARNATION, INCARNATION + 1] {
            let refused = Err(HelloError::Incarnation(NoSuchRun(high)));
            assert_eq!(decode(&Hello { incarnation: Incarnation(high), ..hello() }), refused);
        }
        let nowhere: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert_eq!(decode(&Hello { addr: nowhere, ..hello() }), Err(HelloError::Address(nowhere)));
        assert_eq!(decode(&Hello { build: "a\n".to_owned(), ..hello() }), Err(HelloError::Build));
        assert_eq!(decode(&Hello { build: "a".repeat(65), ..hello() }), Err(HelloError::Build));
        assert!(Hello { build: "a".repeat(600), ..hello() }.encode().is_err());
        let mut bytes = hello().encode().unwrap().to_vec();
        bytes.push(0);
        assert_eq!(Hello::decode(&bytes, &hello().name), Err(HelloError::Trailing(1)));
        for len in 0..bytes.len() - 1 {
            assert!(matches!(Hello::decode(&bytes[..len], &hello().name), Err(HelloError::Malformed(_))));
        }
    }
}
