//! The handle of a series.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Count, Scope, Series as Windows, SeriesListing};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Kind, NodeName, SeriesSpec};

use crate::clock::Clock;

/// Events by key in windows of time: a named series, or one metric of the audit in one monitor.
///
/// Windows are named by their age: 0 is the current one, 1 the one before it. They are numbered from 1970, so that all
/// nodes mean the same one. Cheap to clone; usable from any thread.
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

/// What is counted in a series: an address, a block of addresses, or a name, as the series' type has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeriesKey<'a> {
    /// An address or block.
    Net(IpNet),
    /// A name, 1 to 512 bytes without control characters. For a series of addresses, an address or block as people write
    /// it.
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

/// Calls `f` with what a key stands for when it is read: a block for the addresses in it.
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

    /// How it is configured.
    pub fn spec(&self) -> &SeriesSpec {
        self.windows.spec()
    }

    fn kind(&self) -> Kind {
        self.windows.spec().kind
    }

    /// Adds `n` to what this node counts for a key in the current window; a negative `n` takes back. A step beyond
    /// [`MAX_STEP`](crate::MAX_STEP) either way counts as that much.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn add<'a>(&self, key: impl Into<SeriesKey<'a>>, n: i64) -> Result<(), KeyError> {
        with_key(self.kind(), key.into(), |key| self.windows.add(key, n))?
    }

    /// The cluster-wide count of a key, or under a block of addresses, over windows of the given ages. The cost does not
    /// grow with what lies under a block, but with the windows.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn count<'a>(&self, key: impl Into<SeriesKey<'a>>, ages: RangeInclusive<u32>) -> Result<Count, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.count(scope, ages, self.clock.time()))
    }

    /// What one node has counted, whichever of its runs did; `None` when nothing is known of the node. A block costs a look
    /// at each of that node's rows.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn count_from<'a>(
        &self,
        node: &NodeName,
        key: impl Into<SeriesKey<'a>>,
        ages: RangeInclusive<u32>,
    ) -> Result<Option<i64>, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.count_from(node, scope, ages))
    }

    /// The cluster-wide counts of all windows, the current one first: what a plot shows.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn counts<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<Vec<Count>, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.counts(scope, self.clock.time()))
    }

    /// The cluster-wide count over the last interval, estimated from the current window and the one before it, whose share
    /// shrinks as the current one fills. Exact when events come evenly.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn sliding<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<f64, KeyError> {
        with_scope(self.kind(), key.into(), |scope| self.windows.sliding(scope, self.clock.now()))
    }

    /// Removes a key from all windows, on all nodes, whoever counted it, as far as this node knows of it. What is counted at
    /// the same time elsewhere, or later, goes on counting. A block is a key of its own here: what lies in it stays.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not one of the series' type.
    pub fn remove<'a>(&self, key: impl Into<SeriesKey<'a>>) -> Result<(), KeyError> {
        with_key(self.kind(), key.into(), |key| self.windows.remove(key))?
    }

    /// The keys of all windows in order, with their counts; of one node, if `from` names it. `None` when nothing is known
    /// of that node.
    pub fn entries(&self, from: Option<&NodeName>) -> Option<SeriesListing> {
        self.windows.list(from)
    }

    /// The windows below.
    pub fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }
}
