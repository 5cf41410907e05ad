//! The scopes of outbound traffic.

use std::net::IpAddr;

/// The scopes that an outbound connection or message belongs to. A field that is `None` is not limited.
///
/// ```
/// use tallymesh::Scope;
///
/// let scope = Scope::default().binding("b1").domain("example.com");
/// assert_eq!((scope.domain, scope.host), (Some("example.com"), None));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Scope<'a> {
    /// The binding.
    pub binding: Option<&'a str>,
    /// The group that the binding belongs to.
    pub binding_group: Option<&'a str>,
    /// The destination domain.
    pub domain: Option<&'a str>,
    /// The host to connect to.
    pub host: Option<&'a str>,
    /// The host's address.
    pub address: Option<IpAddr>,
}

impl<'a> Scope<'a> {
    /// With this binding.
    #[must_use]
    pub fn binding(self, name: &'a str) -> Self {
        Self { binding: Some(name), ..self }
    }

    /// With a binding of this group.
    #[must_use]
    pub fn binding_group(self, name: &'a str) -> Self {
        Self { binding_group: Some(name), ..self }
    }

    /// To this domain.
    #[must_use]
    pub fn domain(self, name: &'a str) -> Self {
        Self { domain: Some(name), ..self }
    }

    /// To this host.
    #[must_use]
    pub fn host(self, name: &'a str) -> Self {
        Self { host: Some(name), ..self }
    }

    /// To this address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }
}
