//! The handle of a series.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Count, Scope, Series as Windows, SeriesListing};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Kind, NodeName, SeriesSpec, Window};

use crate::clock::Clock;

/// Event counts by key in time windows: a named series, or one metric of the audit in one monitor.
///
/// Windows are named by their age: 0 is the current one, 1 the one before it. Windows are numbered from 1970, so that all nodes
/// use the same ones. Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node, user: &str, peer_ip: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
/// let logins = node.series("logins")?;
/// logins.add(user, 1)?;
/// if logins.sliding(user)? > 100.0 {
///     // too many within the last interval, cluster-wide
/// }
/// let spam = node.series("spam_by_source")?;
/// spam.add(peer_ip, 1)?;
/// let block: ipnet::IpNet = "192.0.2.0/24".parse()?;
/// println!("{} in the last three windows", spam.count(block, 0..=2)?.total);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Series {
    windows: Arc<Windows>,
    clock: Clock,
}

/// A key of a series: an address, an address block, or a name, depending on the series' type.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::SeriesKey;
///
/// let logins = node.series("logins")?;
/// logins.add("user:7", 1)?; // the same as SeriesKey::Name("user:7")
/// println!("{}", logins.count(SeriesKey::Name("user:7"), 0..=1)?.total);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeriesKey<'a> {
    /// An address or block.
    Net(IpNet),
    /// A name of 1 to 512 bytes without control characters. For a series of addresses: an address or block in text form.
    Name(&'a str),
}

impl From<IpAddr> for SeriesKey<'_> {
    fn from(addr: IpAddr) -> Self {
        Self::Net(addr.into())
    }
}

impl From<IpNet> for SeriesKey<'_> {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl<'a> From<&'a str> for SeriesKey<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

/// Calls `f` with the bytes of a key, without allocating.
fn with_key<R>(kind: Kind, key: SeriesKey<'_>, f: impl FnOnce(&[u8]) -> R) -> Result<R, KeyError> {
    match (kind, key) {
        (Kind::CidrTree, SeriesKey::Net(net)) => {
            let (key, n) = key::from_net(net);
            Ok(f(&key[..n]))
        }
        (Kind::CidrTree, SeriesKey::Name(text)) => {
            let (key, n) = key::from_net(key::parse_net(text)?);
            Ok(f(&key[..n]))
        }
        (_, SeriesKey::Name(name)) => {
            key::check(kind, name.as_bytes()).map_err(|_| KeyError::Name(name.to_owned()))?;
            Ok(f(name.as_bytes()))
        }
        (_, SeriesKey::Net(net)) => Ok(f(net.to_string().as_bytes())),
    }
}

/// Calls `f` with the scope of a key at read time: a block stands for all addresses in it.
fn with_scope<R>(kind: Kind, key: SeriesKey<'_>, f: impl FnOnce(Scope<'_>) -> R) -> Result<R, KeyError> {
    let net = match (kind, key) {
        (Kind::CidrTree, SeriesKey::Net(net)) => Some(key::canonical(net)),
        (Kind::CidrTree, SeriesKey::Name(text)) => Some(key::parse_net(text)?),
        _ => None,
    };
    match net.filter(|net| net.prefix_len() < net.max_prefix_len()) {
        Some(block) => Ok(f(Scope::Net(block))),
        None => with_key(kind, key, |key| f(Scope::Key(key))),
    }
}

impl Series {
    pub(crate) fn new(windows: Arc<Windows>, clock: Clock) -> Self {
        Self { windows, clock }
    }

    /// The configuration of the series, with the number of windows that it keeps now.
    pub fn spec(&self) -> SeriesSpec {
        let mut spec = self.windows.spec().clone();
        spec.windows = self.windows.kept();
        spec
    }

    fn kind(&self) -> Kind {
        self.windows.spec().kind
    }

    /// Adds `n` to this node's count for a key in the current window; a negative `n` subtracts. A step beyond
    /// [`MAX_STEP`](crate::MAX_STEP) in either direction is reduced to that value.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn add<'a>(&self, key: impl Into<SeriesKey<'a>>, n: i64) -> Result<(), KeyError> {
        with_key(self.kind(), key.into(), |key| self.windows.add(key, n))?
    }

    /// The cluster-wide count of a key, or under a block of addresses, over windows of the given ages. The cost grows with the
    /// number of windows, not with the number of addresses in the block.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn count<'a>(&self, key: impl Into<SeriesKey<'a>>, ages: RangeInclusive<u32>) -> Result<Count, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.count(scope, ages, self.clock.time()))
    }

    /// The count of one node, summed over all its runs; `None` when the node is unknown. A block costs a scan of that node's
    /// rows.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn count_from<'a>(
        &self,
        node: &NodeName,
        key: impl Into<SeriesKey<'a>>,
        ages: RangeInclusive<u32>,
    ) -> Result<Option<i64>, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.count_from(node, scope, ages))
    }

    /// The cluster-wide counts of all windows, the current one first, for example for a plot.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn counts<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<Vec<Count>, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.counts(scope, self.clock.time()))
    }

    /// The estimated cluster-wide count over the last interval. It adds the current window and a part of the previous one; that
    /// part shrinks as the current window fills. Exact when events are evenly spaced.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn sliding<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<f64, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.sliding(scope, self.clock.now()))
    }

    /// Removes a key from all windows on all nodes: the counts of all nodes, as far as this node knows them. Counts that other
    /// nodes add at the same time, or later, remain. A block is a key of its own here: keys inside it remain.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not of the series' type.
    pub fn remove<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<(), KeyError> {
        with_key(self.kind(), key.into(), |key| self.windows.remove(key))?
    }

    /// The keys of all windows in order, with their counts. If `from` names a node, only that node's counts; `None` when that
    /// node is unknown.
    pub fn entries(&self, from: Option<&NodeName>) -> Option<SeriesListing> {
        self.windows.list(from)
    }

    /// The number of the current window: seconds since 1970 divided by the interval, rounded down.
    pub fn window(&self) -> Window {
        self.windows.current()
    }
}
