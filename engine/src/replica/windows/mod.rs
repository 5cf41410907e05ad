//! The series of a replica, and the clock that numbers their windows.

pub(crate) mod clock;
pub(crate) mod maker;
mod resize;
pub(crate) mod series;
mod turn;

use std::sync::Arc;

use tallymesh_schemas::{SeriesName, UnixMs};

use crate::counter::series::Series;
use crate::replica::windows::clock::WindowClock;
use crate::replica::windows::maker::Maker;
use crate::replica::windows::series::{HeldSeries, Turned};
use crate::time::Time;
use crate::wake::Wake;

/// The series in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    series: Vec<HeldSeries>,
    pub(crate) clock: WindowClock,
}

impl Windows {
    pub(crate) fn series(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.series.iter().map(|held| &held.series)
    }

    /// The series of a name and interval.
    pub(crate) fn named(&self, name: &SeriesName, interval: u32) -> Option<&Arc<Series>> {
        self.series().find(|series| series.spec().name == *name && series.spec().interval == interval)
    }

    /// The number of windows that all series keep together.
    pub(crate) fn kept(&self) -> u64 {
        self.series().map(|series| u64::from(series.kept())).sum()
    }

    pub(crate) fn add(&mut self, series: Arc<Series>, wake: Wake) {
        self.series.push(HeldSeries::new(series, wake));
    }

    /// Makes the windows whose time comes, and drops those that have aged out.
    pub(crate) fn turn(&mut self, now: Time, maker: &mut Maker<'_>) -> Turned {
        let unix_ms = self.clock.unix_ms();
        let mut turned = Turned::default();
        for held in &mut self.series {
            let current = held.series.spec().window_at(unix_ms);
            if current != held.series.current() || !held.fits() {
                held.turn(now, current, maker, &mut turned);
            }
            held.drop_expired(now, &mut turned);
        }
        turned
    }

    /// The time when the next window begins; [`Time::NEVER`] if there is no series.
    pub(crate) fn next_at(&self) -> Time {
        let begins =
            self.series().map(|series| series.current().saturating_add(1).saturating_mul(series.spec().interval_ms()));
        begins.min().map_or(Time::NEVER, |begins| self.clock.when(UnixMs(begins)))
    }
}
