//! Where a node serves HTTP: a TCP address, or the path of a Unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a node serves HTTP.
///
/// ```
/// use tallymesh_schemas::config::HttpAddress;
///
/// let tcp: HttpAddress = "127.0.0.1:9180".parse()?;
/// assert_eq!(tcp, HttpAddress::Tcp(([127, 0, 0, 1], 9180).into()));
/// let unix: HttpAddress = "run/relay-0-1.http".parse()?;
/// assert_eq!(unix, HttpAddress::Unix("run/relay-0-1.http".into()));
/// # Ok::<(), tallymesh_schemas::config::HttpAddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is not an [`HttpAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpAddressError {
    /// It is empty, or has a byte that no path has.
    #[error("write an IP address and a port, as in \"127.0.0.1:9180\", or the path of a Unix socket")]
    Neither,
    /// It is a URL.
    #[error("leave the scheme and the path out: write an IP address and a port, as in \"127.0.0.1:9180\"")]
    Url,
    /// There is no port.
    #[error("add the port: \"{}\"", SocketAddr::new(*.0, 9180))]
    NoPort(IpAddr),
    /// There is no address before the port.
    #[error("write an IP address before the port, as in \"127.0.0.1:9180\"")]
    NoAddress,
    /// It has a colon as an address, and no slash as a path.
    #[error(
        "write an IP address and a port, as in \"127.0.0.1:9180\" or \"[::1]:9180\"; a path with a colon needs a slash"
    )]
    NoIp,
}

impl HttpAddress {
    /// The path of a Unix socket.
    #[cfg(feature = "config")]
    pub(super) fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl FromStr for HttpAddress {
    type Err = HttpAddressError;

    /// A text with a slash is a path. Otherwise a text with a colon is an address, and any other text a path.
    fn from_str(text: &str) -> Result<Self, HttpAddressError> {
        if text.is_empty() || text.contains('\0') {
            return Err(HttpAddressError::Neither);
        }
        if text.contains("://") {
            return Err(HttpAddressError::Url);
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(ip) => Err(HttpAddressError::NoPort(ip)),
            Err(_) if is_port(text.trim_start_matches(':')) => Err(HttpAddressError::NoAddress),
            Err(_) if text.contains(':') => Err(HttpAddressError::NoIp),
            Err(_) => Ok(Self::Unix(text.into())),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl From<SocketAddr> for HttpAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<PathBuf> for HttpAddress {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl From<&Path> for HttpAddress {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let tcp = |text: &str| Ok(HttpAddress::Tcp(text.parse().unwrap()));
        let unix = |text: &str| Ok(HttpAddress::Unix(text.into()));
        let good = ["127.0.0.1:9180", "[::1]:0", "0.0.0.0:65535"];
        good.into_iter().for_each(|text| assert_eq!(text.parse(), tcp(text), "{text}"));
        for text in ["relay.http", "/run/relay.http", "./127.0.0.1:9180", "./9180"] {
            assert_eq!(text.parse(), unix(text), "{text}");
        }
        for (text, error) in [
            ("", HttpAddressError::Neither),
            ("a\0b", HttpAddressError::Neither),
            ("127.0.0.1", HttpAddressError::NoPort([127, 0, 0, 1].into())),
            ("9180", HttpAddressError::NoAddress),
            (":9180", HttpAddressError::NoAddress),
            ("http://127.0.0.1:9180/metrics", HttpAddressError::Url),
            ("localhost:9180", HttpAddressError::NoIp),
            ("127.0.0.1:99999", HttpAddressError::NoIp),
        ] {
            assert_eq!(text.parse::<HttpAddress>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_again(text: String) {
            if let Ok(address) = text.parse::<HttpAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn every_address_is_read(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(address.to_string().parse(), Ok(HttpAddress::Tcp(address)));
        }
    }
}
