//! Draws a plan from a seed.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use tallymesh_engine::{Config, Time};
use tallymesh_schemas::{Class, GaugeCacheSpec, Kind, OnDead, SeriesSpec, StructureSpec, Version};

use super::lies;
use super::limits::{self, Asked};
use super::load::Load;
use crate::cluster::{Timing, quick_config, series, spec};
use crate::fault::{Fault, Step};
use crate::network::Conditions;
use crate::random::Random;

/// The plan of a run, drawn from a seed. Every part can be changed before the run; that is how failing runs are shrunk.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed for the randomness within the run.
    pub seed: u64,
    /// The nodes' names.
    pub nodes: Vec<String>,
    /// The structures that they replicate.
    pub structures: Vec<StructureSpec>,
    /// The series in which they count events.
    pub series: Vec<SeriesSpec>,
    /// Their caches.
    pub caches: Vec<StructureSpec>,
    /// Their gauge caches.
    pub gauges: Vec<GaugeCacheSpec>,
    /// How replicas behave.
    pub config: Config,
    /// How nodes detect each other.
    pub timing: Timing,
    /// How messages travel.
    pub conditions: Conditions,
    /// The greatest drift of clocks, in parts per million.
    pub drift_ppm: u64,
    /// The faults.
    pub script: Vec<Step>,
    /// The load.
    pub load: Load,
    /// The limits and the requests for them, if there are any.
    pub asked: Option<Asked>,
    /// How long the load lasts. The script may end some seconds later: a clock is corrected, or a member lies.
    pub length: Duration,
    /// How often nodes save.
    pub saves: Option<Duration>,
}

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// Draws a plan.
pub fn draw(seed: u64) -> Plan {
    let mut random = Random::new(seed ^ 0x5ca1_ab1e_0ddb_a11d);
    let random = &mut random;
    let count = *random.pick(&[2, 3, 3, 3, 4, 4, 5, 6]);
    let nodes: Vec<_> = NAMES[..count].iter().map(|name| (*name).to_owned()).collect();
    let length = random.duration(Duration::from_secs(4), Duration::from_secs(16));
    let millis =
        |random: &mut Random, low, high| random.duration(Duration::from_millis(low), Duration::from_millis(high));
    let digest_interval = millis(random, 150, 900);
    let config = Config {
        digest_interval,
        full_digest_interval: millis(random, 1000, 5000).max(digest_interval * 2),
        // From a few rows per delta, so that everything is split, to everything in one delta.
        delta_bytes: *random.pick(&[24, 48, 96, 200, 1000, 100_000]),
        idle_after: millis(random, 200, 4000),
        retention: millis(random, 1000, 8000),
        ..quick_config()
    };
    let conditions = Conditions {
        latency: Duration::from_micros(random.between(100, 30_000)),
        jitter: Duration::from_micros(random.between(0, 30_000)),
        tail: Duration::from_micros(random.between(0, 200_000)),
        room: *random.pick(&[1, 2, 4, 32]),
        ..Conditions::default()
    };
    let structures = draw_structures(random);
    let load = Load::draw(random, &structures);
    let mut script = draw_script(random, &nodes, length);
    let drift_ppm = *random.pick(&[0, 0, 100, 20_000]);
    let timing = draw_timing(seed);
    let mut series = draw_series(random);
    let load = load.with_series(random, &series);
    // Versions that run out, so that processes renew by themselves.
    let last_version = if random.chance(500) { Version(random.between(1000, 1600)) } else { config.last_version };
    let config = Config { last_version, ..config };
    if random.chance(1000) {
        let (whom, age) = (random.pick(&nodes).clone(), millis(random, 1, length.as_millis() as u64 / 2));
        let at = Time(random.below(length.as_micros() as u64));
        script.push(Step { at, fault: Fault::Restore(whom, age) });
        script.sort_by_key(|step| step.at);
    }
    lies::draw(seed, &nodes, length, &mut script);
    // A restored memory has shares that it has lent since. Limits do not promise to survive that.
    let restored = script.iter().any(|step| matches!(step.fault, Fault::Restore(..)));
    let asked = limits::draw(seed, &nodes, &mut script).filter(|_| !restored);
    let caches = draw_caches(random, &script);
    let load = load.with_caches(random, &caches);
    let gauges = draw_gauges(seed);
    let load = load.with_gauges(seed, &gauges);
    let saves = draw_disks(random, &nodes, length, &mut script, &mut series);
    draw_glitches(seed, &nodes, length, &mut script);
    Plan {
        saves,
        seed,
        asked,
        nodes,
        structures,
        series,
        caches,
        gauges,
        config,
        timing,
        conditions,
        drift_ppm,
        script,
        load,
        length,
    }
}

/// In one of three runs, links are bounded: with one ring the nodes form a circle, with two they have at most four links each.
fn draw_timing(seed: u64) -> Timing {
    let mut random = Random::new(seed ^ 0x0e71_a7a9_b0e5_eed5);
    let (bounded, mesh, rings) = (random.chance(3333), random.between(1, 3) as usize, random.between(1, 2) as u8);
    // To recompute aggregates costs more than everything that the engine does. Some runs do it often, the others rarely.
    let timing = Timing { audit_every: if seed.is_multiple_of(16) { 16 } else { 128 }, ..Timing::default() };
    if bounded { Timing { mesh, rings, ..timing } } else { timing }
}

fn draw_structures(random: &mut Random) -> Vec<StructureSpec> {
    let mut all = vec![
        spec("inbound_cidr", Class::InboundCidr),
        spec("outbound_cidr", Class::OutboundCidr),
        spec("outbound_domains", Class::OutboundDomains),
        spec("outbound_binding_domains", Class::OutboundBindingDomains),
        spec("inbound_late", Class::InboundCidr),
    ];
    for _ in 0..random.between(2, 4) {
        all.remove(random.index(all.len()));
    }
    for spec in &mut all {
        spec.snapshot = random.chance(7000);
        spec.max_delay = *random.pick(&[1, 10, 100, 400].map(Duration::from_millis));
        spec.max_pending = *random.pick(&[1, 3, 4096]);
        if matches!(spec.on_dead, OnDead::Drop(_)) {
            spec.on_dead = OnDead::Drop(*random.pick(&[0, 1, 3, 10].map(Duration::from_secs)));
        }
    }
    all
}

/// Draws no, one or two series, with windows that change a few times in a run.
fn draw_series(random: &mut Random) -> Vec<SeriesSpec> {
    let mut all = vec![series("logins", Kind::GaugeTable, 1, 1), series("connections", Kind::CidrTree, 1, 1)];
    for _ in 0..random.between(0, 2) {
        all.remove(random.index(all.len()));
    }
    for spec in &mut all {
        spec.interval = random.between(2, 20) as u32;
        spec.windows = random.between(2, 6) as u32;
        spec.max_delay = *random.pick(&[1, 10, 100, 400].map(Duration::from_millis));
        spec.max_pending = *random.pick(&[1, 3, 4096]);
    }
    all
}

/// Draws a cache in one of five runs. Not if bits change undetectably: a spoilt write may win for good.
fn draw_caches(random: &mut Random, script: &[Step]) -> Vec<StructureSpec> {
    let spoilt = script.iter().any(|step| matches!(step.fault, Fault::Corrupt(_)));
    let drawn = random.chance(2000);
    let mut cache = spec("sessions", Class::Cache);
    cache.snapshot = random.chance(7000);
    cache.max_delay = *random.pick(&[1, 10, 100, 400].map(Duration::from_millis));
    cache.max_pending = *random.pick(&[1, 3, 4096]);
    cache.bounds.elements = random.pick(&[None, None, NonZeroU64::new(5)]).to_owned();
    if drawn && !spoilt { vec![cache] } else { Vec::new() }
}

/// Draws a gauge cache in one of four runs, with its own randomness.
fn draw_gauges(seed: u64) -> Vec<GaugeCacheSpec> {
    let random = &mut Random::new(seed ^ 0x6a06_e0ca_c4e5_0001);
    if !random.chance(2500) {
        return Vec::new();
    }
    let mut gauge = GaugeCacheSpec::new("attempts").unwrap_or_else(|error| unreachable!("{error}"));
    gauge.ttl = *random.pick(&[0, 0, 700, 3000].map(Duration::from_millis));
    gauge.max_elements = *random.pick(&[None, None, NonZeroU64::new(1), NonZeroU64::new(5)]);
    gauge.max_delay = *random.pick(&[1, 10, 100, 400].map(Duration::from_millis));
    gauge.max_pending = *random.pick(&[1, 3, 4096]);
    vec![gauge]
}

/// Draws how often nodes save, in one of four runs, and the faults of their disks.
fn draw_disks(
    random: &mut Random,
    nodes: &[String],
    length: Duration,
    script: &mut Vec<Step>,
    series: &mut [SeriesSpec],
) -> Option<Duration> {
    if !random.chance(2500) {
        return None;
    }
    series.iter_mut().for_each(|series| series.persist = random.chance(7000));
    let mut at = |random: &mut Random, fault: Fault| {
        script.push(Step { at: Time(random.below(length.as_micros() as u64)), fault });
    };
    for _ in 0..random.between(1, 4) {
        let whom: Vec<_> = nodes.iter().filter(|_| random.chance(5000)).cloned().collect();
        at(random, Fault::Reboot(whom));
    }
    if random.chance(3000) {
        at(random, Fault::Reboot(nodes.to_vec()));
    }
    if random.chance(3000) {
        let (whom, age) = (random.pick(nodes).clone(), Duration::from_millis(random.between(1, 8000)));
        at(random, Fault::Rewind(whom, age));
    }
    if random.chance(2000) {
        let whom = vec![random.pick(nodes).clone()];
        at(random, Fault::Full(whom));
    }
    script.sort_by_key(|step| step.at);
    Some(Duration::from_millis(*random.pick(&[50, 300, 1000])))
}

/// In one of four runs, draws a wall clock that jumps by an hour or by years, ahead or back. Mostly it is corrected after some
/// seconds; otherwise it stays wrong as long as there are faults. Only one node's clock jumps: if most clocks are wrong, no
/// node can detect it.
fn draw_glitches(seed: u64, nodes: &[String], length: Duration, script: &mut Vec<Step>) {
    const HOUR_MS: i64 = 3_600_000;
    const YEARS_MS: i64 = 3 * 365 * 24 * HOUR_MS;
    // Its own randomness, so that the rest of the plan is the same as without these faults.
    let random = &mut Random::new(seed ^ 0xc10c_c5f0_77e5_0fa2);
    if !random.chance(2500) {
        return;
    }
    let whom = random.pick(nodes);
    for _ in 0..random.between(1, 2) {
        let by = *random.pick(&[HOUR_MS, HOUR_MS, YEARS_MS, -HOUR_MS]);
        let at = Time(random.below(length.as_micros() as u64));
        let lasts = random.duration(Duration::from_millis(50), Duration::from_secs(6));
        script.push(Step { at, fault: Fault::Set(whom.clone(), by) });
        // Until it is right again, windows differ by more than an hour, and what waits for them does not arrive.
        let end = if random.chance(8000) { at.after(lasts) } else { Time(length.as_micros() as u64) };
        script.push(Step { at: end, fault: Fault::Set(whom.clone(), -by) });
    }
    script.sort_by_key(|step| step.at);
}

/// Draws which kinds of fault a run has, and then their times.
fn draw_script(random: &mut Random, nodes: &[String], length: Duration) -> Vec<Step> {
    let mut script = Script { random, nodes, length, steps: Vec::new() };
    script.draw_network();
    script.draw_processes();
    script.draw_clocks();
    script.draw_twins();
    let mut steps = script.steps;
    steps.sort_by_key(|step| step.at);
    steps
}

/// A script that is being drawn.
struct Script<'a> {
    random: &'a mut Random,
    nodes: &'a [String],
    length: Duration,
    steps: Vec<Step>,
}

impl Script<'_> {
    /// Adds a fault at a drawn moment.
    fn at(&mut self, fault: Fault) {
        let micros = self.random.below(self.length.as_micros() as u64);
        self.steps.push(Step { at: Time(micros - micros % 1000), fault });
    }

    fn has(&mut self) -> bool {
        self.random.chance(3000)
    }

    fn one(&mut self) -> Vec<String> {
        vec![self.random.pick(self.nodes).clone()]
    }

    fn some(&mut self) -> Vec<String> {
        let nodes = self.nodes;
        let some: Vec<_> = nodes.iter().filter(|_| self.random.chance(5000)).cloned().collect();
        if some.is_empty() || some.len() == nodes.len() { vec![nodes[0].clone()] } else { some }
    }

    /// Draws whether a share of the messages meets a fault, and how large it is, in ten-thousandths.
    fn draw_share(&mut self, kind: fn(u32) -> Fault, shares: RangeInclusive<u64>) {
        if self.has() {
            let share = self.random.between(*shares.start(), *shares.end()) as u32;
            self.at(kind(share));
        }
    }

    fn draw_network(&mut self) {
        self.draw_share(Fault::Lose, 50..=4000);
        self.draw_share(Fault::Double, 50..=3000);
        self.draw_share(Fault::Reorder, 50..=3000);
        self.draw_share(Fault::Truncate, 10..=300);
        if self.has() {
            for _ in 0..self.random.between(1, 4) {
                let (left, one_way) = (self.some(), self.random.chance(4000));
                self.at(if one_way { Fault::CutOneWay(left, Vec::new()) } else { Fault::Cut(left, Vec::new()) });
                self.at(Fault::Heal);
            }
        }
    }

    fn draw_processes(&mut self) {
        let kinds: [fn(Vec<String>) -> Fault; 6] =
            [Fault::Stop, Fault::Slow, Fault::Renew, Fault::Reload, Fault::Restart, Fault::Restart];
        for kind in kinds {
            if self.has() {
                for _ in 0..self.random.between(1, 3) {
                    let whom = self.one();
                    self.at(kind(whom));
                }
            }
        }
        if self.has() {
            let whom = self.one();
            self.at(Fault::Resume(whom));
        }
        for kind in [Fault::Crash, Fault::Leave] {
            if self.random.chance(1500) {
                let whom = self.one();
                self.at(kind(whom));
            }
        }
        if self.random.chance(2000) {
            let (whom, by) = (self.random.pick(self.nodes).clone(), self.random.pick(self.nodes).clone());
            self.at(Fault::Forget(whom, by));
        }
    }

    fn draw_clocks(&mut self) {
        if self.has() {
            let whom = self.random.pick(self.nodes).clone();
            let by = self.random.duration(Duration::from_millis(10), Duration::from_secs(20));
            self.at(Fault::Jump(whom, by));
        }
        if self.has() {
            let (whom, by) = (self.random.pick(self.nodes).clone(), self.random.between(0, 40_000) as i64 - 30_000);
            self.at(Fault::Set(whom, by));
        }
    }

    fn draw_twins(&mut self) {
        if self.random.chance(600) {
            let whom = self.one();
            self.at(Fault::Reuse(whom));
        }
        if self.random.chance(600) {
            let whom = self.one();
            let twin = vec![format!("{}'", whom[0])];
            let half = self.length.as_micros() as u64 / 2;
            let start = self.random.below(half);
            self.steps.push(Step { at: Time(start), fault: Fault::Twin(whom) });
            let end = start + self.random.below(half);
            self.steps.push(Step { at: Time(end), fault: Fault::Crash(twin) });
        }
    }
}
