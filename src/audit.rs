//! The handle of the audit: six metrics by address, in the time windows of each monitor.

use std::net::IpAddr;
use std::sync::Arc;

use tallymesh_schemas::config::Metric;

use crate::series::Series;

/// Counts events by address: connections, receptions, rejections, deliveries and failures, each in the windows of
/// every monitor.
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node, peer_ip: std::net::IpAddr) {
/// use tallymesh::Metric;
///
/// let audit = node.audit();
/// audit.record(Metric::Connect, peer_ip);
/// if let Some(rejections) = audit.series(Metric::Rejection, 300) {
///     let recent = rejections.count(peer_ip, 0..=1).map_or(0, |count| count.total);
///     println!("{recent} in the last five to ten minutes");
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Audit {
    series: Arc<[(Metric, Series)]>,
}

impl Audit {
    pub(crate) fn new(all: impl Iterator<Item = Series>) -> Self {
        let metric = |series: &Series| {
            let name = &series.spec().name;
            Metric::from_name(name.as_str()).filter(|_| name.is_metric())
        };
        Self { series: all.filter_map(|series| Some((metric(&series)?, series))).collect() }
    }

    /// Counts one event. A metric that the node does not audit is ignored.
    pub fn record(&self, metric: Metric, addr: IpAddr) {
        self.adjust(metric, addr, 1);
    }

    /// Counts `n` events; a negative `n` subtracts.
    pub fn adjust(&self, metric: Metric, addr: IpAddr, n: i64) {
        for (_, series) in self.series.iter().filter(|(of, _)| *of == metric) {
            let added = series.add(addr, n);
            debug_assert!(added.is_ok(), "an address is a key of an audit series");
        }
    }

    /// The series of a metric with windows of `interval` seconds, for reading; `None` when the node does not audit it.
    pub fn series(&self, metric: Metric, interval: u32) -> Option<&Series> {
        let found = self.series.iter().find(|(of, series)| *of == metric && series.spec().interval == interval);
        found.map(|(_, series)| series)
    }

    /// All audited series, metric by metric, and for each metric one monitor after the other.
    pub fn all(&self) -> impl Iterator<Item = (Metric, &Series)> {
        self.series.iter().map(|(metric, series)| (*metric, series))
    }

    /// Removes an address from all windows of all metrics, on all nodes: see [`Series::remove`].
    pub fn remove(&self, addr: IpAddr) {
        for (_, series) in &*self.series {
            let removed = series.remove(addr);
            debug_assert!(removed.is_ok(), "an address is a key of an audit series");
        }
    }
}
