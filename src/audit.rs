//! The handle of the audit: six metrics by address, in the time windows of each monitor.

use std::net::IpAddr;
use std::sync::Arc;

use tallymesh_schemas::config::Metric;
use tallymesh_schemas::key::KeyError;

use crate::series::Series;

/// Counts events by address: connections, receptions, rejections, deliveries and failures, each in the windows of
/// every monitor.
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node, peer_ip: std::net::IpAddr) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Metric;
///
/// let audit = node.audit();
/// audit.record(Metric::Connect, peer_ip)?;
/// if let Some(rejections) = audit.series(Metric::Rejection, 300) {
///     let recent = rejections.count(peer_ip, 0..=1).map_or(0, |count| count.total);
///     println!("{recent} in the last five to ten minutes");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Audit {
    series: Arc<[(Metric, Series)]>,
}

impl Audit {
    pub(crate) fn new(all: impl Iterator<Item = Series>) -> Self {
        let metric = |series: &Series| {
            let name = series.spec().name;
            Metric::from_name(name.as_str()).filter(|_| name.is_metric())
        };
        Self { series: all.filter_map(|series| Some((metric(&series)?, series))).collect() }
    }

    /// Counts one event. A metric that the node does not audit is ignored.
    ///
    /// # Errors
    /// As [`Audit::adjust`].
    pub fn record(&self, metric: Metric, addr: IpAddr) -> Result<(), KeyError> {
        self.adjust(metric, addr, 1)
    }

    /// Counts `n` events; a negative `n` subtracts.
    ///
    /// # Errors
    /// [`KeyError::Budget`] when a series of the metric has no room for another key. The other ones count the event.
    pub fn adjust(&self, metric: Metric, addr: IpAddr, n: i64) -> Result<(), KeyError> {
        let of = self.series.iter().filter(|(of, _)| *of == metric);
        of.map(|(_, series)| series.add(addr, n)).fold(Ok(()), Result::and)
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
    ///
    /// # Errors
    /// [`KeyError::Budget`] when a series has no room for the rows that state the removal. The other ones remove the address.
    pub fn remove(&self, addr: IpAddr) -> Result<(), KeyError> {
        self.series.iter().map(|(_, series)| series.remove(addr)).fold(Ok(()), Result::and)
    }
}
