//! Limits in a swarm run: throttles soft and hard and a pool of permits, and a service that asks for them on every node.

use std::time::Duration;

use tallymesh_schemas::{NodeName, Strength, ThrottleSpec};

use crate::fault::{Fault, Step};
use crate::limits::{Limits, SimPermit};
use crate::random::Random;
use crate::service::{Context, Service};

/// Where limits are counted.
pub(crate) const TABLE: &str = "shared_named_throttles";

const SOFT: &str = "soft";
const HARD: &str = "hard";
const PERMITS: &str = "permits";

/// Between two looks at what is overdue: less than a 24th of the shortest `reclaim_after` that permits are drawn with.
const LOOK: Duration = Duration::from_millis(10);

/// Limits, and how much is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What they are.
    pub limits: Limits,
    /// Requests a second and node, of each limit.
    pub rate: u64,
    /// The only node that asks; all of them when it is nobody.
    pub hot: Option<String>,
    /// How long a permit is used.
    pub use_for: Duration,
}

/// Draws limits for half of the runs. Faults that hard limits are not promised to bear are taken out of the script or made
/// smaller: `docs/limits.md` says what they assume.
pub(super) fn draw(seed: u64, nodes: &[String], script: &mut [Step]) -> Option<Asked> {
    // Chance of its own, so that the rest of the plan is what it would be without limits.
    let mut random = Random::new(seed ^ 0x0b5e_55ed_c0de_f00d);
    let random = &mut random;
    if random.chance(5000) {
        return None;
    }
    let reclaim_after = Duration::from_secs(random.between(1, 2));
    let mut founders: Vec<&str> = nodes.iter().map(String::as_str).collect();
    founders.truncate(random.between(1, nodes.len() as u64) as usize);
    let runs_twice =
        |name: &str| script.iter().any(|step| matches!(&step.fault, Fault::Twin(names) if names[0] == name));
    // Who lives is not to be forgotten in a partition, and one of two founders that runs twice has two shares.
    founders.retain(|name| !script.iter().any(|step| matches!(&step.fault, Fault::Forget(node, _) if node == name)));
    if founders.len() < 3 {
        founders.retain(|name| !runs_twice(name));
    }
    if founders.is_empty() {
        return None;
    }
    let mut limits = Limits::founded(&founders, reclaim_after);
    if random.chance(3000) || nodes.iter().any(|name| runs_twice(name)) {
        limits.founding = limits.founding.without_stand_ins();
    }
    // A clock that jumps ahead by a 24th of a lease may outrun it.
    for step in script.iter_mut() {
        if let Fault::Jump(_, by) = &mut step.fault {
            *by = (*by).min(reclaim_after / 30);
        }
    }
    let rates = ["2/1s", "50/1s", "200/1s", "30/10s"];
    for (name, strength) in [(SOFT, Strength::Soft), (HARD, Strength::Hard)] {
        let rate = random.pick(&rates).parse().unwrap_or_else(|error| panic!("{error}"));
        if random.chance(7000) || (name == HARD && limits.throttles.is_empty()) {
            limits = limits.throttle(TABLE, name, ThrottleSpec::new(rate, strength));
        }
    }
    // Whoever stands still closes nothing, and a clock that jumps leaves no time for it.
    let closes = !script.iter().any(|step| matches!(step.fault, Fault::Stop(_) | Fault::Jump(..)));
    if closes && reclaim_after >= Duration::from_secs(2) && random.chance(5000) {
        limits = limits.pool(TABLE, PERMITS, random.between(1, 40));
    }
    let rate = *random.pick(&[5, 50, 300]);
    let hot = random.chance(4000).then(|| random.pick(nodes).clone());
    let use_for = random.duration(Duration::from_millis(20), Duration::from_secs(2));
    Some(Asked { limits, rate, hot, use_for })
}

/// Asks for what there is on one node.
pub(super) struct Asking {
    asked: Asked,
    asks: bool,
    turn: u64,
    open: Vec<(u64, SimPermit)>,
}

impl Asking {
    pub(super) fn new(asked: &Asked, node: &NodeName) -> Self {
        let asks = asked.hot.as_ref().is_none_or(|hot| hot == node.as_str());
        Self { asked: asked.clone(), asks, turn: 0, open: Vec::new() }
    }
}

impl Service for Asking {
    fn interval(&self) -> Duration {
        LOOK
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn tick(&mut self, node: &mut Context<'_>) {
        self.turn += 1;
        let (turn, lasts) = (self.turn, (self.asked.use_for.as_millis() / LOOK.as_millis()) as u64);
        self.open.retain(|(since, permit)| turn - since < lasts && !permit.is_overdue(node));
        let before = (turn - 1) * self.asked.rate / 100;
        let requests = if self.asks { turn * self.asked.rate / 100 - before } else { 0 };
        for _ in 0..requests {
            for (structure, name, _) in &self.asked.limits.throttles {
                node.take(structure, name, 1);
            }
            for (structure, name, _) in &self.asked.limits.pools {
                self.open.extend(node.open(structure, name).map(|permit| (turn, permit)));
            }
        }
    }
}
