//! The figures of throttles and permits. Only limits that the configuration names have figures of their own: the names of
//! others are keys.

use std::sync::Arc;

use tallymesh_engine::Time;
use tallymesh_engine::limiter::{Decisions, Limiter, PoolStanding, Throttle, UNITS};
use tallymesh_schemas::Strength;

use crate::metrics::definition::Metric;
use crate::metrics::figures::Figures;
use crate::shared::Shared;

/// Adds the figures of all limits.
pub(super) fn gather(figures: &mut Figures, shared: &Shared) {
    let now = shared.clock.time();
    for limiter in shared.current.get().limiters.values() {
        let object = limiter.structure().spec().name.as_str();
        figures.count(Metric::Throttles, &[object], limiter.len());
        limiter.declared(now).iter().for_each(|throttle| of_throttle(figures, limiter, throttle, now));
    }
    let config = shared.limits.config();
    for permits in config.permits.iter().filter_map(|named| shared.permits_named(&named.name).ok()) {
        let of = [permits.name()];
        let PoolStanding { maximum, permits: held, in_use, open } = permits.state();
        figures.whole(Metric::PermitsMaximum, &of, maximum);
        figures.whole(Metric::PermitsHeld, &of, held);
        figures.whole(Metric::PermitsInUse, &of, in_use);
        figures.float(Metric::PermitsOpen, &of, open as f64);
    }
}

fn of_throttle(figures: &mut Figures, limiter: &Limiter, throttle: &Arc<Throttle>, now: Time) {
    let (object, name) = (limiter.structure().spec().name.as_str(), &**throttle.name());
    let of = [object, name];
    let Decisions { admitted, refused } = throttle.decisions();
    for (decision, requests) in [("admitted", admitted), ("refused", refused)] {
        figures.whole(Metric::ThrottleDecisions, &[object, name, decision], requests);
    }
    let standing = throttle.standing(now);
    let ratio = |units: u64| units as f64 / UNITS as f64;
    figures.float(Metric::ThrottleAvailable, &of, standing.tokens as f64);
    figures.float(Metric::ThrottleShare, &of, ratio(standing.share));
    match standing.spec.strength {
        Strength::Soft => {
            let bound = standing.unheard_at_worst().saturating_add(limiter.earlier_run(&standing.spec, now));
            figures.whole(Metric::ThrottleOvershootBound, &of, bound);
        }
        Strength::Hard => {
            figures.float(Metric::ThrottleDemand, &of, ratio(standing.demand));
            let holding = limiter.holding(throttle.name(), now).unwrap_or_default();
            figures.float(Metric::ThrottleLent, &of, ratio(holding.lent.values().sum()));
            figures.float(Metric::ThrottleBorrowed, &of, ratio(holding.borrowed.values().sum()));
        }
    }
}
