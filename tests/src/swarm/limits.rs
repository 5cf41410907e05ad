//! Limits in a swarm run: soft and hard throttles and a pool of permits, and a service on every node that uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tallymesh_schemas::{NodeName, Strength, ThrottleSpec};

use crate::admissions::SimPermit;
use crate::fault::{Fault, Step};
use crate::limits::Limits;
use crate::random::Random;
use crate::service::{Context, Service};

/// The structure in which limits are counted.
pub(crate) const TABLE: &str = "shared_named_throttles";

const SOFT: &str = "soft";
const HARD: &str = "hard";
const LATE: &str = "late";
const PERMITS: &str = "permits";

/// Time between two checks for overdue permits: less than a 24th of the shortest `reclaim_after` that is drawn with permits.
const LOOK: Duration = Duration::from_millis(10);

/// Limits, and the rate of requests for them.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The limits.
    pub limits: Limits,
    /// Requests per second and node, for each limit.
    pub rate: u64,
    /// The only node that sends requests; `None` means all nodes.
    pub hot: Option<String>,
    /// How long a permit is used.
    pub use_for: Duration,
    /// When each node uses the throttles of `paused`, and when it pauses, in turn.
    pub turns: BTreeMap<String, Turns>,
    /// Throttles that are idle at times.
    pub paused: BTreeSet<String>,
}

/// A node pauses and then sends requests, in turn.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// How long it pauses.
    pub pause: Duration,
    /// How long it sends requests.
    pub ask: Duration,
}

/// Draws limits for half of the runs. Faults that hard limits do not promise to survive are removed from the script or made
/// smaller: `docs/limits.md` states the assumptions.
pub(super) fn draw(seed: u64, nodes: &[String], script: &mut [Step]) -> Option<Asked> {
    // Its own randomness, so that the rest of the plan is the same as without limits.
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
    // A live node must not be forgotten in a partition. If one of two seats runs twice, it has two shares.
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
    // A clock that jumps ahead by a 24th of a lease may exceed the lease.
    for step in script.iter_mut() {
        if let Fault::Jump(_, by) = &mut step.fault {
            *by = (*by).min(reclaim_after / 30);
        }
    }
    let rates = ["2/1s", "50/1s", "200/1s", "30/10s", "100/10m", "300/1d", "20/7d"];
    for (name, strength) in [(SOFT, Strength::Soft), (HARD, Strength::Hard)] {
        let rate = random.pick(&rates).parse().unwrap_or_else(|error| panic!("{error}"));
        if random.chance(7000) || (name == HARD && limits.throttles.is_empty()) {
            limits = limits.throttle(TABLE, name, ThrottleSpec::new(rate, strength));
        }
    }
    // A stopped process closes nothing, and a clock that jumps leaves no time to close.
    let closes = !script.iter().any(|step| matches!(step.fault, Fault::Stop(_) | Fault::Jump(..)));
    if closes && reclaim_after >= Duration::from_secs(2) && random.chance(5000) {
        limits = limits.pool(TABLE, PERMITS, random.between(1, 40));
    }
    let rate = *random.pick(&[5, 50, 300]);
    let hot = random.chance(4000).then(|| random.pick(nodes).clone());
    let use_for = random.duration(Duration::from_millis(20), Duration::from_secs(2));
    // Each node creates it on its first request, after others have taken tokens, and releases it in pauses.
    let (mut turns, mut paused) = (BTreeMap::new(), BTreeSet::new());
    if random.chance(7000) {
        paused.insert(LATE.to_owned());
        let slow = random.pick(&["20/2s", "100/10m", "40/10s"]).parse().unwrap_or_else(|error| panic!("{error}"));
        limits = limits.late_throttle(TABLE, LATE, ThrottleSpec::new(slow, Strength::Soft));
        for node in nodes {
            let pause = random.duration(Duration::ZERO, Duration::from_secs(8));
            let ask = random.duration(Duration::from_millis(100), Duration::from_secs(3));
            turns.insert(node.clone(), Turns { pause, ask });
        }
        // Load that is idle on all nodes for some time, and then comes to any of them.
        if random.chance(4000) {
            paused.extend([SOFT.to_owned(), HARD.to_owned()]);
        }
    }
    Some(Asked { limits, rate, hot, use_for, turns, paused })
}

/// Requests all limits on one node.
pub(super) struct Asking {
    asked: Asked,
    asks: bool,
    turns: Option<Turns>,
    turn: u64,
    open: Vec<(u64, SimPermit)>,
}

impl Asking {
    pub(super) fn new(asked: &Asked, node: &NodeName) -> Self {
        let asks = asked.hot.as_ref().is_none_or(|hot| hot == node.as_str());
        let turns = asked.turns.get(node.as_str()).copied();
        Self { asked: asked.clone(), asks, turns, turn: 0, open: Vec::new() }
    }

    /// Whether it uses a throttle now.
    fn asks_for(&self, name: &str) -> bool {
        if !self.asked.paused.contains(name) {
            return self.asks;
        }
        self.turns.is_some_and(|Turns { pause, ask }| {
            let period = (pause + ask).as_micros().max(1);
            u128::from(self.turn) * LOOK.as_micros() % period >= pause.as_micros()
        })
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
        self.open.retain(|(since, permit)| turn - since < lasts && !permit.is_overdue(node.now().mono));
        let before = (turn - 1) * self.asked.rate / 100;
        let requests = turn * self.asked.rate / 100 - before;
        for _ in 0..requests {
            for (structure, name, _) in self.asked.limits.throttles.iter().filter(|(_, name, _)| self.asks_for(name)) {
                node.take(structure, name, 1);
            }
            if !self.asks {
                continue;
            }
            for (structure, name, _) in &self.asked.limits.pools {
                self.open.extend(node.open(structure, name).map(|permit| (turn, permit)));
            }
        }
    }
}
