//! Requests about series.

use tallymesh_engine::{Scope, Series};
use tallymesh_schemas::admin::{self, Answer, PAGE_ITEMS, SeriesRef};
use tallymesh_schemas::{Kind, NodeName, key};

use crate::admin::session::{Refused, Served, Session, check_step, is_alone, unknown_node};
use crate::admin::wire::{self, To};

impl Session {
    /// Looks up a series, the bytes of a key, and the scope of the key at read time.
    fn keyed<R>(
        &self,
        wanted: &SeriesRef,
        text: &str,
        f: impl FnOnce(&Series, &[u8], Scope<'_>) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let series = self.series(wanted)?;
        let key = key::parse(series.spec().class(), text).map_err(Refused::bad)?;
        let net = if series.spec().kind == Kind::CidrTree { key::to_net(&key).ok() } else { None };
        let block = net.filter(|net| net.prefix_len() < net.max_prefix_len());
        f(&series, &key, block.map_or(Scope::Key(&key), Scope::Net))
    }

    pub(super) fn series_list(&self) -> Answer {
        let (mut audit, named): (Vec<_>, Vec<_>) =
            self.shared().current.get().series.iter().map(|series| info(series)).partition(|info| info.metric);
        audit.extend(named);
        Answer::SeriesList(audit)
    }

    pub(super) fn series_add(&self, wanted: &SeriesRef, key: &str, n: i64) -> Result<(), Refused> {
        check_step(n).map_err(Refused::bad)?;
        self.keyed(wanted, key, |series, key, _| series.add(key, n).map_err(Refused::change))
    }

    pub(super) fn series_remove(&self, wanted: &SeriesRef, key: &str) -> Result<(), Refused> {
        self.keyed(wanted, key, |series, key, _| series.remove(key).map_err(Refused::change))
    }

    pub(super) fn series_count(
        &self,
        wanted: &SeriesRef,
        key: &str,
        (start, end): (u32, u32),
        from: Option<&NodeName>,
    ) -> Result<Answer, Refused> {
        if start > end {
            return Err(Refused::bad(format!(
                "windows {start} to {end}: the younger one, of the lower number, comes first"
            )));
        }
        self.keyed(wanted, key, |series, _, scope| {
            let count = series.count(scope, start..=end, self.shared().clock.time());
            let mut answer = admin::Count {
                total: count.total,
                local: count.local,
                actors: count.actors,
                stalest_ms: u64::try_from(count.stalest.as_millis()).unwrap_or(u64::MAX),
                alone: is_alone(self.shared()),
            };
            if let Some(node) = from {
                let part = series.count_from(node, scope, start..=end).ok_or_else(|| unknown_node(from))?;
                (answer.total, answer.actors) = (part, 1);
            }
            Ok(Answer::Count(answer))
        })
    }

    pub(super) fn series_windows(
        &self,
        wanted: &SeriesRef,
        key: &str,
        from: Option<&NodeName>,
    ) -> Result<Answer, Refused> {
        self.keyed(wanted, key, |series, _, scope| {
            let counts = match from {
                None => series.counts(scope, self.shared().clock.time()).iter().map(|count| count.total).collect(),
                Some(node) => {
                    series.count_from(node, scope, 0..=u32::MAX).ok_or_else(|| unknown_node(from))?;
                    let ages = 0..series.kept();
                    ages.map(|age| series.count_from(node, scope, age..=age).unwrap_or(0)).collect()
                }
            };
            Ok(self.windows(series, counts))
        })
    }

    fn windows(&self, series: &Series, counts: Vec<i64>) -> Answer {
        let began_ms = series.current().saturating_mul(series.spec().interval_ms());
        let into_ms = self.shared().clock.now().unix_ms.0.saturating_sub(began_ms);
        Answer::Windows(admin::Windows { series: info(series), began: began_ms / 1000, into_ms, counts })
    }

    pub(super) async fn series_show(&self, wanted: &SeriesRef, from: Option<&NodeName>, to: &mut To) -> Served {
        let series = match self.series(wanted) {
            Ok(series) => series,
            Err(refused) => return Ok(Err(refused)),
        };
        let Some(mut listing) = series.list(from) else { return Ok(Err(unknown_node(from))) };
        wire::write(to, &self.windows(&series, Vec::new())).await?;
        // The size of a row grows with the number of windows.
        let page = (PAGE_ITEMS / usize::try_from(series.kept().max(1)).unwrap_or(PAGE_ITEMS)).max(1);
        loop {
            let rows: Vec<_> = listing.entries(page);
            if rows.is_empty() {
                return Ok(Ok(()));
            }
            let text = |key: &[u8]| key::display(series.spec().kind, key).unwrap_or_else(|error| error.to_string());
            let rows = rows.into_iter().map(|row| (text(&row.key), row.counts));
            wire::write_pages(to, rows, Answer::SeriesRows).await?;
        }
    }
}

fn info(series: &Series) -> admin::SeriesInfo {
    let spec = series.spec();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    admin::SeriesInfo {
        name: spec.name.to_string(),
        metric: spec.name.is_metric(),
        kind: spec.kind,
        interval: spec.interval,
        windows: series.kept(),
        replicate: spec.replicate,
        keys: count(series.windows().iter().map(|window| window.keys()).sum()),
        bytes: count(series.bytes()),
    }
}
