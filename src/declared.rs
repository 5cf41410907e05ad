//! Checks the limits that a program declares, as reading a configuration file does.
#![allow(clippy::indexing_slicing, reason = "a window of two has two elements")]

use tallymesh_schemas::config::LimitsConfig;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Class, MaskError, MaskLimit, StructureSpec};

/// Why declared limits are not valid.
///
/// ```no_run
/// # async fn example(builder: tallymesh::Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::{DeclaredError, StartError};
///
/// // A maximum for inbound connections needs a structure that counts them.
/// match builder.inbound_maximum(24, 30).start().await {
///     Err(StartError::Declared(DeclaredError::NotReplicated(class))) => println!("replicate {}", class.name()),
///     other => drop(other?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeclaredError {
    /// The name of a scope or throttle is not valid.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// A mask of an inbound maximum is longer than an address.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A name is declared twice.
    #[error("the limit \"{0}\" is declared twice: keep one of them")]
    Twice(String),
    /// The structure that counts for a limit is not replicated.
    #[error("there are limits that {name} counts, which is not replicated: add .replicate(Class::{0:?}.into())", name = .0.name())]
    NotReplicated(Class),
}

/// Converts the scopes of the limits to canonical form, and checks all limits.
pub(crate) fn checked(mut limits: LimitsConfig, structures: &[StructureSpec]) -> Result<LimitsConfig, DeclaredError> {
    for outbound in &mut limits.outbound {
        outbound.scope = outbound.scope.clone().canonical()?;
    }
    for inbound in &limits.inbound {
        let any =
            if inbound.v6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
        MaskLimit::from(*inbound).block(any)?;
    }
    let throttles = limits.throttles.iter().map(|throttle| throttle.name.as_str());
    let named: Vec<_> = throttles.chain(limits.permits.iter().map(|permits| permits.name.as_str())).collect();
    for name in &named {
        key::throttle(name)?;
    }
    twice(named.into_iter().map(str::to_owned))?;
    twice(limits.outbound.iter().map(|outbound| outbound.scope.to_string()))?;
    let outbound = |needs: fn(&tallymesh_schemas::config::OutboundLimits) -> bool| limits.outbound.iter().any(needs);
    let needed = [
        (Class::SharedNamedThrottles, !limits.throttles.is_empty() || !limits.permits.is_empty()),
        (Class::OutboundMessages, outbound(|limits| limits.messages.is_some())),
        (Class::OutboundConnections, outbound(|limits| limits.connections.is_some() || limits.maximum.is_some())),
        (Class::InboundCidr, !limits.inbound.is_empty()),
    ];
    let counted = |class: Class| structures.iter().any(|spec| spec.name.as_str() == class.name());
    match needed.into_iter().find(|(class, needed)| *needed && !counted(*class)) {
        Some((class, _)) => Err(DeclaredError::NotReplicated(class)),
        None => Ok(limits),
    }
}

fn twice(names: impl Iterator<Item = String>) -> Result<(), DeclaredError> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(DeclaredError::Twice(pair[0].clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::config::{InboundMaximum, OutboundLimits, OutboundScope};

    use super::*;

    #[test]
    fn limits_that_nothing_counts_are_refused() {
        let inbound = InboundMaximum { prefix_len: 24, v6: false, maximum: 3 };
        let limits = LimitsConfig { inbound: vec![inbound], ..LimitsConfig::default() };
        let error = checked(limits.clone(), &[]).unwrap_err();
        assert_eq!(error, DeclaredError::NotReplicated(Class::InboundCidr));
        assert!(error.to_string().contains("Class::InboundCidr.into()"), "{error}");
        let structures = [Class::InboundCidr.into()];
        checked(limits.clone(), &structures).unwrap();
        let long = LimitsConfig { inbound: vec![InboundMaximum { prefix_len: 33, ..inbound }], ..limits };
        assert_eq!(checked(long, &structures).unwrap_err().to_string(), "an IPv4 address has 32 bits, not 33");
    }

    #[test]
    fn scopes_are_brought_into_their_one_form_and_stand_once() {
        let scope = |name: &str| OutboundLimits {
            scope: OutboundScope::Domain(name.to_owned()),
            messages: None,
            connections: None,
            maximum: Some(1),
        };
        let structures = [Class::OutboundConnections.into()];
        let limits = |outbound| LimitsConfig { outbound, ..LimitsConfig::default() };
        let good = checked(limits(vec![scope("Example.COM.")]), &structures).unwrap();
        assert_eq!(good.outbound[0].scope, OutboundScope::Domain("example.com".to_owned()));
        let twice = checked(limits(vec![scope("example.com"), scope("EXAMPLE.com")]), &structures);
        assert_eq!(twice, Err(DeclaredError::Twice("domain example.com".to_owned())));
        assert!(matches!(checked(limits(vec![scope("a b")]), &structures), Err(DeclaredError::Name(_))));
    }
}
