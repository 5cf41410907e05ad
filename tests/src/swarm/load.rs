//! The load of simulated nodes.

use std::time::Duration;

use tallymesh_schemas::{GaugeCacheSpec, Kind, MaskLimit, SeriesSpec, StructureSpec, key};

use crate::address;
use crate::cluster::Cluster;
use crate::random::Random;

/// The load of every node.
#[derive(Debug, Clone)]
pub struct Load {
    /// Operations per second and node.
    pub rate: u64,
    /// Operations that come at once.
    pub burst: u64,
    /// Different keys.
    pub keys: u32,
    /// Share of operations, in 1/10,000, that reset a key to zero.
    pub zero: u32,
    /// Share that are holds below a limit.
    pub holds: u32,
    /// Largest amount of one operation.
    pub step: u64,
    /// Share that counts events, if there are series.
    pub events: u32,
    /// Share of those that remove a key instead.
    pub removals: u32,
    /// Share that writes to a cache, if there is one.
    pub writes: u32,
    /// Share that changes a gauge cache, if there is one.
    pub gauges: u32,
}

impl Load {
    /// Draws a load.
    pub fn draw(random: &mut Random, _: &[StructureSpec]) -> Self {
        Self {
            rate: *random.pick(&[2, 10, 40, 100]),
            burst: *random.pick(&[1, 1, 5, 40]),
            keys: *random.pick(&[1, 3, 12, 60]),
            zero: *random.pick(&[0, 500, 3000]),
            holds: *random.pick(&[0, 2000]),
            step: *random.pick(&[1, 3, 1000, 1 << 40]),
            events: 0,
            removals: 0,
            writes: 0,
            gauges: 0,
        }
    }

    /// Adds the writes to caches.
    pub(super) fn with_caches(self, random: &mut Random, caches: &[StructureSpec]) -> Self {
        Self { writes: if caches.is_empty() { 0 } else { *random.pick(&[1000, 4000, 8000]) }, ..self }
    }

    /// Adds the changes of gauge caches, with its own randomness.
    pub(super) fn with_gauges(self, seed: u64, gauges: &[GaugeCacheSpec]) -> Self {
        let mut random = Random::new(seed ^ 0x6a06_e0ca_c4e5_0002);
        Self { gauges: if gauges.is_empty() { 0 } else { *random.pick(&[1000, 4000, 8000]) }, ..self }
    }

    /// Adds to an entry of a gauge cache, or removes it.
    fn change_gauge(&self, cluster: &mut Cluster, n: usize, random: &mut Random) {
        let gauge = random.pick(&cluster.gauge_specs).name.clone();
        let key = format!("key{}", random.below(u64::from(self.keys))).into_bytes();
        let (remove, step) = (random.chance(1500), random.between(1, self.step) as i64);
        let step = if random.chance(3000) { -step } else { step };
        cluster.with_node(n, |node| match remove {
            true => drop(node.gauge_remove(gauge.as_str(), &key)),
            false => node.gauge_add(gauge.as_str(), &key, step),
        });
    }

    /// Writes a value that no other write has, or removes the entry.
    fn write(&self, cluster: &mut Cluster, n: usize, random: &mut Random) {
        let cache = random.pick(&cluster.cache_specs).name.clone();
        let key = format!("key{}", random.below(u64::from(self.keys))).into_bytes();
        let remove = random.chance(2500);
        let ttl = *random.pick(&[0, 0, 0, 300, 5000].map(Duration::from_millis));
        let value = format!("{:016x}", random.bits());
        cluster.with_node(n, |node| {
            // A cache refuses writes when the clock has gone back.
            if remove {
                node.remove(cache.as_str(), &key).ok();
            } else {
                node.set(cache.as_str(), &key, value.as_bytes(), ttl).ok();
            }
        });
    }

    /// Adds the events of series.
    pub(super) fn with_series(self, random: &mut Random, series: &[SeriesSpec]) -> Self {
        let events = if series.is_empty() { 0 } else { *random.pick(&[2000, 5000, 9000]) };
        Self { events, removals: *random.pick(&[0, 100, 1000, 3000]), ..self }
    }

    /// Time between two bursts on a node.
    pub fn interval(&self) -> Duration {
        Duration::from_micros(1_000_000 * self.burst / self.rate.max(1))
    }

    /// One burst on one node.
    pub fn burst(&self, cluster: &mut Cluster, n: usize, random: &mut Random) {
        for _ in 0..self.burst {
            self.operate(cluster, n, random);
        }
    }

    fn count_events(&self, cluster: &mut Cluster, n: usize, random: &mut Random) {
        let spec = random.pick(&cluster.series_specs).clone();
        let key = key_of(spec.kind, random.below(u64::from(self.keys)) as u32);
        let remove = random.chance(self.removals);
        let step = random.between(1, self.step) as i64;
        let step = if random.chance(1500) { -step } else { step };
        cluster.with_node(n, |node| match remove {
            true => node.remove_events(spec.name.as_str(), &key),
            false => drop(node.count_events(spec.name.as_str(), &key, step)),
        });
    }

    fn operate(&self, cluster: &mut Cluster, n: usize, random: &mut Random) {
        if !cluster.gauge_specs.is_empty() && random.chance(self.gauges) {
            return self.change_gauge(cluster, n, random);
        }
        if !cluster.cache_specs.is_empty() && random.chance(self.writes) {
            return self.write(cluster, n, random);
        }
        if !cluster.series_specs.is_empty() && random.chance(self.events) {
            return self.count_events(cluster, n, random);
        }
        let counted: Vec<_> = cluster.specs.iter().filter(|spec| spec.class.kind() != Kind::ThrottleTable).collect();
        let spec = (*random.pick(&counted)).clone();
        let key = key_of(spec.class.kind(), random.below(u64::from(self.keys)) as u32);
        let (zero, hold) = (random.chance(self.zero), random.chance(self.holds));
        let step = random.between(1, self.step) as i64;
        let negative = random.chance(1500);
        let Some(process) = cluster.nodes[n].process.as_ref() else { return };
        let run = process.run;
        let value = cluster.truth.borrow().value(run, &spec.name, &key);
        let name = spec.name.as_str();
        let held = cluster.with_node(n, |node| {
            if hold {
                let limits = [(32, 50), (24, 80), (128, 50), (64, 80)].map(MaskLimit::from);
                let host = key::to_net(&key).ok().filter(|net| net.prefix_len() == net.max_prefix_len());
                return match host {
                    Some(host) => node.try_hold_within(name, host.addr(), &limits).ok(),
                    None => node.try_hold(name, &key, 50),
                };
            }
            let n = match () {
                () if zero => -value,
                () if negative => -step,
                () => step,
            };
            node.add(name, &key, n);
            None
        });
        let Some(process) = cluster.nodes[n].process.as_mut() else { return };
        process.holds.extend(held.flatten());
        if process.holds.len() > 8 || (zero && !process.holds.is_empty()) {
            let at = random.index(process.holds.len());
            drop(process.holds.swap_remove(at));
        }
    }
}

/// The `i`th key of a kind: hosts in a few blocks, and sometimes a block.
pub(crate) fn key_of(kind: Kind, i: u32) -> Vec<u8> {
    match kind {
        Kind::CidrTree if i % 7 == 3 => vec![4, 10, 0, i as u8 & 0xf0, 0, 24],
        Kind::CidrTree if i % 11 == 5 => {
            let mut key = vec![6, 0x20, 1, 0xd, 0xb8];
            key.extend([0; 11]);
            key.extend([i as u8, 128]);
            key
        }
        Kind::CidrTree => address(i),
        Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => {
            format!("{}{i}.example", if i.is_multiple_of(2) { "mail" } else { "b/" }).into_bytes()
        }
    }
}
