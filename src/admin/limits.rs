//! Requests about throttles and limits.

use tallymesh_engine::limiter::{LimitError, PoolStanding, UNITS};
use tallymesh_schemas::admin::{Answer, PermitsInfo, ThrottleInfo};

use crate::admin::session::{Refused, Served, Session};
use crate::admin::wire::{self, To};
use crate::decision::Decision;
use crate::object_error::ObjectError;
use crate::throttle::{Permits, Throttle};

impl Session {
    pub(super) async fn throttle_list(&self, to: &mut To) -> Served {
        let throttles = self.shared().throttles();
        wire::write_pages(to, throttles.iter().map(info), Answer::Throttles).await.map(Ok)
    }

    fn throttle(&self, name: &str) -> Result<Throttle, Refused> {
        self.shared().throttle(name).map_err(|error| match error {
            ObjectError::Throttle(LimitError::Name(error)) => Refused::change(error),
            error => Refused::bad(error),
        })
    }

    pub(super) fn throttle_show(&self, name: &str) -> Result<Answer, Refused> {
        Ok(Answer::Throttles(vec![info(&self.throttle(name)?)]))
    }

    pub(super) fn throttle_take(&self, name: &str, n: u64) -> Result<Answer, Refused> {
        Ok(taken(self.throttle(name)?.take(n)))
    }

    pub(super) fn throttle_check(&self, name: &str, n: u64) -> Result<Answer, Refused> {
        Ok(taken(self.throttle(name)?.check(n)))
    }

    pub(super) async fn permits_list(&self, to: &mut To) -> Served {
        let permits = self.shared().permits();
        wire::write_pages(to, permits.iter().map(permits_info), Answer::Permits).await.map(Ok)
    }

    pub(super) fn permits_show(&self, name: &str) -> Result<Answer, Refused> {
        let permits = self.shared().permits_named(name).map_err(Refused::bad)?;
        Ok(Answer::Permits(vec![permits_info(&permits)]))
    }

    pub(super) async fn throttle_explain(&self, name: &str, to: &mut To) -> Served {
        match self.throttle(name) {
            Ok(throttle) => wire::write_pages(to, throttle.explain(), Answer::Lines).await.map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// The differences in the configurations of other nodes, one per line.
    pub(super) fn differences(&self) -> Vec<String> {
        self.shared().differences().iter().map(ToString::to_string).collect()
    }

    /// The limits for outbound and inbound traffic, one per line.
    pub(super) fn limits(&self) -> Vec<String> {
        let config = self.shared().limits.config();
        let mut lines = Vec::new();
        if !config.founders.is_empty() {
            let names: Vec<_> = config.founders.iter().map(|node| node.as_str()).collect();
            let stand_in = if config.stand_in { "stood in for" } else { "not stood in for" };
            lines.push(format!(
                "founders {}, reclaim_after {:?}, a missing one is {stand_in}",
                names.join(", "),
                config.reclaim_after
            ));
        }
        for throttle in &config.throttles {
            let spec = throttle.spec;
            lines.push(format!(
                "throttle {}: {}, burst {}, {}, in a partition {}",
                throttle.name,
                spec.rate,
                spec.rate.burst(),
                spec.strength.name(),
                spec.on_partition.name()
            ));
        }
        for permits in self.shared().permits() {
            let PoolStanding { maximum, permits: here, in_use, open } = permits.state();
            lines.push(format!(
                "permits {}: {maximum} in all, {here} of them here with {in_use} in use; {open} are open in the cluster",
                permits.name()
            ));
        }
        for limits in &config.outbound {
            let rates = [("messages", limits.messages), ("new connections", limits.connections)];
            for (what, spec) in rates.into_iter().filter_map(|(what, spec)| Some((what, spec?))) {
                let (rate, burst) = (spec.rate, spec.rate.burst());
                lines.push(format!("{}: {what} {rate}, burst {burst}, {}", limits.scope, spec.strength.name()));
            }
            if let Some(maximum) = limits.maximum {
                lines.push(format!("{}: at most {maximum} open connections", limits.scope));
            }
        }
        for limit in &config.inbound {
            let version = if limit.v6 { "IPv6" } else { "IPv4" };
            lines.push(format!("inbound /{} {version}: at most {} open connections", limit.prefix_len, limit.maximum));
        }
        lines
    }
}

fn taken(decision: Decision) -> Answer {
    let (after, reason) = match decision {
        Decision::Admitted => (None, None),
        Decision::Refused { after, reason } => (after, Some(reason.to_string())),
    };
    Answer::Taken { admitted: decision.admitted(), after, reason }
}

fn info(throttle: &Throttle) -> ThrottleInfo {
    let state = throttle.state();
    ThrottleInfo {
        name: throttle.name().to_owned(),
        rate: state.spec.rate.to_string(),
        burst: state.spec.rate.burst(),
        strength: state.spec.strength.name().to_owned(),
        on_partition: state.spec.on_partition.name().to_owned(),
        tokens: state.tokens,
        share_ppm: state.share * 1_000_000 / UNITS,
        admitted: state.admitted,
        local: state.local,
    }
}

fn permits_info(permits: &Permits) -> PermitsInfo {
    let PoolStanding { maximum, permits: here, in_use, open } = permits.state();
    PermitsInfo { name: permits.name().to_owned(), maximum, open, here, in_use }
}
