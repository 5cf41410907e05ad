//! What the limits of which a key is a part would decide now, and what this node has of them.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Limiter, Pool, PoolStanding, Throttle, UNITS};
use tallymesh_schemas::config::OutboundScope;
use tallymesh_schemas::inspect::{LimitView, ShareView};
use tallymesh_schemas::{Class, Kind, MaskLimit, Strength, StructureId, key};

use crate::admin::session::Session;
use crate::decision;
use crate::throttle::Throttle as Handle;

/// A time that stands for "for good".
const FOR_GOOD: Duration = Duration::from_secs(1 << 32);

impl Session {
    /// The limits of which a key is a part. They decide on the next one; nothing is taken.
    pub(super) fn verdicts(&self, class: Class, key: &[u8]) -> Vec<LimitView> {
        match (class, class.kind()) {
            (Class::InboundCidr, _) => self.inbound(key),
            (Class::OutboundDomains | Class::OutboundBindingDomains, _) => {
                self.outbound(class, key).into_iter().collect()
            }
            (_, Kind::ThrottleTable) => self.shared_limits(class, key),
            _ => Vec::new(),
        }
    }

    /// The limits of the blocks around an address.
    fn inbound(&self, key: &[u8]) -> Vec<LimitView> {
        let shared = self.shared();
        let objects = shared.current.get();
        let structure = objects.structures.get(&StructureId::of(Class::InboundCidr.name()));
        let (Some(structure), Ok(net)) = (structure, key::to_net(key)) else { return Vec::new() };
        let limits = objects.scopes.config().inbound.iter().map(|inbound| MaskLimit::from(*inbound));
        let around = limits.filter_map(|limit| Some((limit.block(net.addr()).ok()??, limit.limit)));
        let around = around.filter(|(block, _)| block.prefix_len() <= net.prefix_len());
        let verdict = |(block, limit)| maximum(format!("inbound {block}"), structure.taken_net(block), limit);
        around.map(verdict).collect()
    }

    /// The maximum of a domain, or of a binding and a domain.
    fn outbound(&self, class: Class, key: &[u8]) -> Option<LimitView> {
        let (shared, name) = (self.shared(), std::str::from_utf8(key).ok()?);
        let scope = match (class, name.split_once('/')) {
            (Class::OutboundBindingDomains, Some((binding, domain))) => {
                OutboundScope::BindingDomain(binding.to_owned(), domain.to_owned())
            }
            _ => OutboundScope::Domain(name.to_owned()),
        };
        let most = shared.limits.maximum_of(&scope)?;
        let objects = shared.current.get();
        let structure = objects.structures.get(&StructureId::of(class.name()))?;
        Some(maximum(scope.to_string(), structure.taken(key), i64::try_from(most).unwrap_or(i64::MAX)))
    }

    /// The throttle and the permits of a name.
    fn shared_limits(&self, class: Class, key: &[u8]) -> Vec<LimitView> {
        let objects = self.shared().current.get();
        let limiter = objects.limiters.get(&StructureId::of(class.name()));
        let (Some(limiter), Ok(name)) = (limiter, std::str::from_utf8(key)) else { return Vec::new() };
        let throttle = limiter.resolve(name, self.shared().clock.time()).map(|throttle| self.rate(limiter, throttle));
        let permits = limiter.find_pool(name).map(|pool| self.permits(limiter, &pool));
        throttle.into_iter().chain(permits).collect()
    }

    fn rate(&self, limiter: &Arc<Limiter>, throttle: Arc<Throttle>) -> LimitView {
        let now = self.shared().clock.time();
        let (name, standing) = (throttle.name().to_string(), throttle.standing(now));
        let decided = Handle::new(throttle, Arc::clone(limiter), self.shared().clock).check(1);
        let why = match decided {
            decision::Decision::Admitted => format!("{} tokens are there", standing.tokens),
            decision::Decision::Refused { after: Some(after), reason } => format!("{reason}; in {after:.1?} one fits"),
            decision::Decision::Refused { after: None, reason } => reason.to_string(),
        };
        let (rate, spec) = (standing.spec.rate, standing.spec);
        let (strength, on_partition) = (spec.strength.name(), spec.on_partition.name());
        let share = (spec.strength == Strength::Hard).then(|| {
            let (units, demand) = (standing.share, standing.demand);
            self.share(limiter, &name, ShareView { is_rate: true, whole: UNITS, units, demand, ..nothing() })
        });
        let limit = format!("{rate}, burst {}, {strength}, in a partition {on_partition}", rate.burst());
        LimitView { name, limit, admits: decided.admitted(), why, share }
    }

    fn permits(&self, limiter: &Arc<Limiter>, pool: &Pool) -> LimitView {
        let now = self.shared().clock.time();
        let PoolStanding { maximum, permits, in_use, open } = pool.standing(now);
        let admits = in_use < permits;
        let why = match admits {
            true => format!("{} of this node's permits are free; {open} are open in the cluster", permits - in_use),
            false => decision::no_permit(pool, limiter, now).to_string(),
        };
        let name = pool.name().to_string();
        let share = ShareView { whole: maximum, units: permits, in_use, ..nothing() };
        let share = Some(self.share(limiter, &name, share));
        LimitView { name, limit: format!("{maximum} permits"), admits, why, share }
    }

    /// Adds who holds, lends and borrows what of a hard limit.
    fn share(&self, limiter: &Limiter, name: &str, share: ShareView) -> ShareView {
        let Some(holding) = limiter.holding(name, self.shared().clock.time()) else { return share };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lasts = |left: Duration| (left <= FOR_GOOD).then(|| millis(left));
        ShareView {
            holds: holding.holds.into_iter().map(|(founder, left)| (founder, lasts(left))).collect(),
            lent: holding.lent.into_iter().collect(),
            borrowed: holding.borrowed.into_iter().collect(),
            founders: holding.founders,
            missing: holding.begins.map(|begins| begins.missing).unwrap_or_default(),
            reclaim_after_ms: millis(holding.reclaim_after),
            ..share
        }
    }
}

/// A share of which nothing is known.
fn nothing() -> ShareView {
    ShareView {
        is_rate: false,
        whole: 0,
        units: 0,
        demand: 0,
        in_use: 0,
        holds: Vec::new(),
        lent: Vec::new(),
        borrowed: Vec::new(),
        founders: Vec::new(),
        missing: Vec::new(),
        reclaim_after_ms: 0,
    }
}

/// What a maximum of open connections decides.
fn maximum(name: String, open: i64, limit: i64) -> LimitView {
    let (admits, why) = (open < limit, format!("{open} are open and {limit} are allowed"));
    LimitView { name, limit: format!("at most {limit} open"), admits, why, share: None }
}
