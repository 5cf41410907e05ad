//! The scopes of outbound limits.

use std::borrow::Cow;
use std::fmt;

use crate::key;

/// The scope of an outbound limit. The name `*` stands for each name that has no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutboundScope {
    /// The whole cluster.
    Global,
    /// A destination domain.
    Domain(String),
    /// A group of bindings.
    BindingGroup(String),
    /// A binding.
    Binding(String),
    /// A binding and a domain.
    BindingDomain(String, String),
    /// A destination host, by name.
    Host(String),
}

impl OutboundScope {
    /// The scope with its names in canonical form. A binding with a slash is a binding and a domain.
    ///
    /// # Errors
    /// [`key::KeyError`] when a name is invalid.
    pub fn canonical(self) -> Result<Self, key::KeyError> {
        let domain = |name: String| if name == "*" { Ok(name) } else { key::domain(&name).map(Cow::into_owned) };
        let other = |name: String| key::throttle(&name).map(str::to_owned);
        Ok(match self {
            Self::Global => Self::Global,
            Self::Domain(name) => Self::Domain(domain(name)?),
            Self::BindingGroup(name) => Self::BindingGroup(other(name)?),
            Self::Binding(name) => match name.split_once('/') {
                Some((binding, name)) => Self::BindingDomain(other(binding.to_owned())?, domain(name.to_owned())?),
                None => Self::Binding(other(name)?),
            },
            Self::BindingDomain(binding, name) => Self::BindingDomain(other(binding)?, domain(name)?),
            Self::Host(name) => Self::Host(domain(name)?),
        })
    }

    /// Parses a scope in the form that [`Display`](fmt::Display) writes; `None` when there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((kind, name)) = text.split_once(' ') else { return (text == "global").then_some(Self::Global) };
        let name = name.to_owned();
        match kind {
            "domain" => Some(Self::Domain(name)),
            "binding_group" => Some(Self::BindingGroup(name)),
            "binding" => Some(match name.split_once('/') {
                Some((binding, domain)) => Self::BindingDomain(binding.to_owned(), domain.to_owned()),
                None => Self::Binding(name),
            }),
            "host" => Some(Self::Host(name)),
            _ => None,
        }
    }

    /// Whether it has the name `*`, which stands for each name without a limit of its own.
    pub fn is_pattern(&self) -> bool {
        match self {
            Self::Global => false,
            Self::Domain(name) | Self::BindingGroup(name) | Self::Binding(name) | Self::Host(name) => name == "*",
            Self::BindingDomain(binding, domain) => binding == "*" || domain == "*",
        }
    }
}

impl fmt::Display for OutboundScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Domain(name) => write!(f, "domain {name}"),
            Self::BindingGroup(name) => write!(f, "binding_group {name}"),
            Self::Binding(name) => write!(f, "binding {name}"),
            Self::BindingDomain(binding, name) => write!(f, "binding {binding}/{name}"),
            Self::Host(name) => write!(f, "host {name}"),
        }
    }
}
