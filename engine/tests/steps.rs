//! Bounded work: how much one call of a replica does, and how long the longest call takes. The ignored tests print times.
#![allow(clippy::disallowed_methods, reason = "the ignored tests measure time")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tallymesh_engine::{Config, Entry, GaugeCache, Now, Replica, Structure, Time};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{Extent, Part, Row, Shape};
use tallymesh_schemas::{Actor, Class, GaugeCacheSpec, Incarnation, NodeName, StructureSpec, UnixMs, Version, key};

const START: Now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };

fn later(now: Now, by: Duration) -> Now {
    let ms = u64::try_from(by.as_millis()).unwrap();
    Now { mono: now.mono.after(by), unix_ms: UnixMs(now.unix_ms.0 + ms) }
}

fn gauges(ttl: u64) -> (Replica, Arc<GaugeCache>) {
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(7));
    let spec = GaugeCacheSpec::new("g").unwrap().with_ttl(Duration::from_secs(ttl));
    let gauge = replica.replicate_gauge_cache(spec, Arc::new(|| ())).unwrap();
    replica.handle_timeout(START);
    (replica, gauge)
}

/// The longest of some calls.
#[derive(Default)]
struct Longest(Duration, Duration, u64);

impl Longest {
    fn of<R>(&mut self, f: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = f();
        let took = begin.elapsed();
        *self = Self(self.0.max(took), self.1 + took, self.2 + 1);
        result
    }

    fn print(&self, what: &str) {
        println!("{what}: longest call {:.1?}, {:.1?} in {} calls", self.0, self.1, self.2);
    }
}

/// The version of the last own row.
fn head(gauge: &GaugeCache) -> u64 {
    gauge.structure().held()[0].applied.0
}

/// Passes time until the replica has nothing due within a second, and calls `each` after every timeout.
fn work(replica: &mut Replica, now: &mut Now, mut each: impl FnMut(Now)) {
    let due = |replica: &Replica, now: Now| replica.poll_timeout() <= now.mono.after(Duration::from_millis(10));
    loop {
        replica.handle_timeout(*now);
        each(*now);
        if !due(replica, *now) {
            return;
        }
        *now = Now { mono: replica.poll_timeout().max(now.mono), ..*now };
    }
}

/// Many entries expire in the same second. One timeout clears a bounded number of them. No read waits for that: an expired
/// entry is not read.
#[test]
fn a_timeout_clears_a_bounded_number_of_expired_entries() {
    const ENTRIES: u64 = 20_000;
    let (mut replica, gauge) = gauges(10);
    for key in 0..ENTRIES {
        gauge.add(format!("key:{key}").as_bytes(), 1, START.mono).unwrap();
    }
    let mut now = later(START, Duration::from_secs(11));
    let mut heads = vec![head(&gauge)];
    work(&mut replica, &mut now, |now| {
        heads.push(head(&gauge));
        assert_eq!(gauge.get(b"key:77", now.mono), None);
        assert_eq!(gauge.entries(None, 5, now.mono), []);
    });
    let cleared: Vec<_> = heads.windows(2).map(|heads| heads[1] - heads[0]).collect();
    assert_eq!(cleared.iter().sum::<u64>(), ENTRIES, "each entry is cleared once");
    assert!(cleared.iter().all(|cleared| *cleared <= 512), "{cleared:?}");
    assert!(gauge.is_empty(now.mono));
    assert!(now.mono < later(START, Duration::from_secs(12)).mono, "what a step leaves is cleared soon");
}

/// More keys change than the list of changes holds. The first read of a key is right, and an entry that has not changed
/// keeps its age.
#[test]
fn lost_changes_make_no_entry_younger() {
    let (mut replica, gauge) = gauges(10);
    gauge.add(b"old", 7, START.mono).unwrap();
    gauge.add(b"touched", 1, START.mono).unwrap();
    let mut now = later(START, Duration::from_secs(6));
    gauge.structure().add(b"touched", 1).unwrap();
    for key in 0..70_000 {
        gauge.structure().add(format!("key:{key}").as_bytes(), 1).unwrap();
    }
    // The rows are written without a read of the gauge cache.
    assert!(gauge.structure().audit().is_ok());
    let read = |key: &[u8], now: Now| gauge.get(key, now.mono);
    assert_eq!(read(b"key:69999", now), Some(1));
    assert_eq!((read(b"old", now), read(b"touched", now)), (Some(7), Some(2)));
    assert_eq!(gauge.entries(Some(b"key:9"), 3, now.mono).len(), 3);
    work(&mut replica, &mut now, |_| ());
    assert_eq!(gauge.len(now.mono), 70_002);
    now = later(START, Duration::from_secs(11));
    assert_eq!((read(b"old", now), read(b"touched", now), read(b"key:0", now)), (None, Some(2), Some(1)));
    work(&mut replica, &mut now, |_| ());
    assert_eq!(gauge.len(now.mono), 70_001);
    now = later(START, Duration::from_secs(17));
    assert_eq!(gauge.entries(None, 9, now.mono), []);
    work(&mut replica, &mut now, |_| ());
    assert!(gauge.is_empty(now.mono));
}

/// A page of entries is whole, though expired entries lie between them.
#[test]
fn a_page_of_entries_passes_over_expired_ones() {
    let (_, gauge) = gauges(10);
    for key in 0..5_000 {
        gauge.add(format!("key:{key:04}").as_bytes(), 1, START.mono).unwrap();
    }
    let now = later(START, Duration::from_secs(10));
    let live: Vec<_> = (0..5_000).step_by(1_000).map(|key| format!("key:{key:04}").into_bytes()).collect();
    live.iter().for_each(|key| gauge.add(key, 1, now.mono).unwrap());
    let keys = |after: Option<&[u8]>, limit| -> Vec<_> {
        gauge.entries(after, limit, now.mono).into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys(None, 9), live);
    assert_eq!(keys(None, 3), live[..3]);
    assert_eq!(keys(Some(&live[2]), 3), live[3..]);
}

/// A saved part of a structure: rows of one run, each with a key and 1 added.
fn part(structure: &Structure, actor: &Actor, keys: impl Iterator<Item = Vec<u8>>) -> Part {
    let rows = keys.zip(0_u32..).map(|(key, slot)| {
        let version = Version(u64::from(slot) + 1);
        let mut writer = RowWriter::new(Version(u64::from(slot)));
        writer.push(WireRow { slot, version, state: RowState::Live { key: Some(&key), added: 1, removed: 0 } });
        Row { slot, version, bytes: writer.finish() }
    });
    let rows: Vec<_> = rows.collect();
    let applied = Version(rows.len() as u64);
    let spec = structure.spec();
    Part {
        shape: Shape { name: spec.name.as_str().to_owned(), class: spec.class },
        actor: actor.clone(),
        extent: Extent { applied, ..Extent::default() },
        rows,
    }
}

fn actor(node: &str, run: u64) -> Actor {
    Actor::new(NodeName::new(node).unwrap(), Incarnation(run))
}

/// A replica of a gauge cache with `runs` ended runs, of which each has a row of a key of its own and rows of `keys` keys
/// belong to the first; and two runs of other nodes that have cleared them.
fn cleared(runs: u64, keys: u64, calls: &mut Longest) -> (Replica, Arc<GaugeCache>) {
    let (mut replica, gauge) = gauges(0);
    let name = |key: u64| format!("key:{key}").into_bytes();
    for run in 0..runs {
        let first = if run == 0 { keys } else { 0 };
        let part = part(
            gauge.structure(),
            &actor(&format!("n{}", run % 10), 1 + run),
            (0..first).chain([keys + run]).map(name),
        );
        replica.restore(START, part).unwrap();
    }
    for node in ["cleaner", "second"] {
        let clearing = (0..keys).map(|key| key::cleared(&actor("n0", 1), &name(key)));
        let part = part(gauge.structure(), &actor(node, 1), clearing);
        calls.of(|| replica.restore(START, part).unwrap());
    }
    (replica, gauge)
}

/// Two nodes have cleared the same keys. A key counts again when both are forgotten, however many runs have ended: with few of
/// them a replica looks for each row, and with many it walks through all rows.
#[test]
fn keys_that_two_have_cleared_count_again_when_both_are_forgotten() {
    for runs in [1, 3, 300] {
        let (mut replica, gauge) = cleared(runs, 40, &mut Longest::default());
        let get = |key: &str| gauge.get(key.as_bytes(), START.mono);
        let mut forget = |node: &str| {
            assert!(replica.forget(START, &NodeName::new(node).unwrap()));
            gauge.structure().audit().unwrap();
        };
        assert_eq!(get("key:7"), None);
        forget("cleaner");
        assert_eq!((get("key:7"), get("key:39"), get("key:40")), (None, None, Some(1)));
        forget("second");
        assert_eq!((get("key:7"), get("key:39"), get("key:40")), (Some(1), Some(1), Some(1)));
    }
}

/// Many runs have ended, and rows that clear arrive and go.
#[test]
#[ignore = "prints how long the calls take: cargo test --release -p tallymesh-engine --test steps -- --ignored --nocapture"]
fn measure_clearing_with_many_runs() {
    let mut restores = Longest::default();
    let (mut replica, gauge) = cleared(1_000, 100_000, &mut restores);
    restores.print("joins of 100,000 rows that clear");
    let now = later(START, Duration::from_millis(10));
    assert_eq!(gauge.get(b"key:7", now.mono), None);
    for node in ["cleaner", "second"] {
        let mut forgets = Longest::default();
        assert!(forgets.of(|| replica.forget(now, &NodeName::new(node).unwrap())));
        forgets.print("to forget a node with 100,000 rows that clear");
    }
    assert_eq!(gauge.get(b"key:7", now.mono), Some(1));
    gauge.structure().audit().unwrap();
}

/// Many entries of a cache expire in the same second. One timeout turns a bounded number of them into removals, and collects a
/// bounded number of these, and the next timeouts follow at once until all is done.
#[test]
fn a_timeout_collects_a_bounded_number_of_removals() {
    const ENTRIES: usize = 20_000;
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(7));
    let cache = replica.replicate_cache(StructureSpec::from(Class::Cache), Arc::new(|| ())).unwrap();
    replica.handle_timeout(START);
    for n in 0..ENTRIES {
        cache.set(format!("key:{n}").as_bytes(), "v", Duration::from_secs(1), START.unix_ms).unwrap();
    }
    let mut now = later(START, Duration::from_secs(130));
    let mut held = vec![cache.held()];
    for _ in 0..3 {
        work(&mut replica, &mut now, |now| {
            held.push(cache.held());
            assert_eq!(cache.get(b"key:7", now.unix_ms), None);
        });
        now = later(now, Duration::from_secs(1));
    }
    assert_eq!(held.last(), Some(&0), "{held:?}");
    let collected: Vec<_> = held.windows(2).map(|held| held[0] - held[1]).collect();
    assert!(collected.iter().all(|collected| *collected <= 4096), "{collected:?}");
}

fn address(n: u32) -> Vec<u8> {
    let (key, len) = key::from_net(IpNet::from(IpAddr::from((n + 0x0a00_0000).to_be_bytes())));
    key[..len].to_vec()
}

/// All entries of a listing, in pages.
fn pages(structure: &Arc<Structure>, from: Option<&NodeName>) -> Vec<Entry> {
    let (mut listing, mut all) = (structure.list(from).unwrap(), Vec::new());
    loop {
        let page = listing.entries(500);
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= 500);
        all.extend(page);
    }
}

/// The view of a node with many rows is read by the keys of all nodes, and has just the rows of that node.
#[test]
fn the_view_of_a_node_with_many_rows_is_whole() {
    let (mut replica, gauge) = gauges(0);
    let structure = gauge.structure();
    let name = |n: u64| format!("{n:04}").into_bytes();
    replica.restore(START, part(structure, &actor("n", 1), (0..10_000).step_by(2).map(name))).unwrap();
    (0..10_000).step_by(3).for_each(|n| structure.add(&name(n), 5).unwrap());
    let of_node: Vec<_> = (0..10_000).step_by(2).map(|n| Entry { key: name(n), count: 1 }).collect();
    assert_eq!(pages(structure, Some(&NodeName::new("n").unwrap())), of_node);
    assert_eq!(pages(structure, None).len(), 5_000 + 1_667);
}

/// The blocks and sums of a node with many rows are those of the cluster, if no other node counts.
#[test]
fn the_blocks_of_a_node_with_many_rows_are_whole() {
    let us = NodeName::new("a").unwrap();
    let mut replica = Replica::new(Config::default(), us.clone(), Incarnation(7));
    let structure = replica.replicate(StructureSpec::from(Class::InboundCidr), Arc::new(|| ())).unwrap();
    for n in (0..9_000).filter(|n| n % 3 > 0) {
        structure.add(&address(n), 1).unwrap();
        // Every fifth counts zero.
        structure.add(&address(n), if n % 5 == 0 { -1 } else { 2 }).unwrap();
    }
    let all = pages(&structure, None);
    assert_eq!((structure.keys(), all.len()), (6_000, 4_800));
    assert_eq!(pages(&structure, Some(&us)), all);
    let blocks = |from: Option<&NodeName>| structure.list(from).unwrap().blocks(usize::MAX);
    assert_eq!(blocks(Some(&us)), blocks(None));
    for block in ["10.0.0.0/8", "10.0.1.0/24", "10.0.35.0/25", "10.0.0.4/32", "::/0"] {
        let block: IpNet = block.parse().unwrap();
        let inside = all.iter().filter(|entry| block.contains(&key::to_net(&entry.key).unwrap()));
        let sum = inside.map(|entry| entry.count).sum();
        assert_eq!(structure.count_net_from(&us, block), Some(sum), "{block}");
    }
}

/// Runs `read` while another thread writes, and prints the longest write and the longest read.
fn beside_writes<R>(what: &str, structure: &Arc<Structure>, mut read: impl FnMut() -> Option<R>) {
    let done = Arc::new(AtomicBool::new(false));
    let (stop, written) = (Arc::clone(&done), Arc::clone(structure));
    let writer = std::thread::spawn(move || {
        let (mut writes, mut n) = (Longest::default(), 0_u32);
        while !stop.load(Ordering::Relaxed) {
            n = (n + 1) % 1000;
            let key = address(768 + n % 250);
            // A write, with its commit.
            writes.of(|| {
                written.add(&key, 1).unwrap();
                written.count_net("10.0.3.0/24".parse().unwrap(), Time(1))
            });
        }
        writes
    });
    let mut reads = Longest::default();
    while reads.of(&mut read).is_some() {}
    done.store(true, Ordering::Relaxed);
    reads.print(what);
    writer.join().unwrap().print("    writes meanwhile");
}

/// Listings of a million keys, in pages, beside writes.
#[test]
#[ignore = "prints how long the calls take: cargo test --release -p tallymesh-engine --test steps -- --ignored --nocapture"]
fn measure_listings_beside_writes() {
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(7));
    let spec = StructureSpec::from(Class::InboundCidr);
    let structure = replica.replicate(spec, Arc::new(|| ())).unwrap();
    for n in 0..1_000_000_u32 {
        structure.add(&address(n), 1).unwrap();
    }
    replica.handle_changes(START);
    let us = NodeName::new("a").unwrap();
    for from in [None, Some(&us)] {
        let mut listing = None;
        beside_writes(&format!("entries from {from:?}"), &structure, || {
            let listing = listing.get_or_insert_with(|| structure.list(from).unwrap());
            Some(listing.entries(512)).filter(|page| !page.is_empty())
        });
        let mut listing = None;
        beside_writes(&format!("blocks from {from:?}"), &structure, || {
            let listing = listing.get_or_insert_with(|| structure.list(from).unwrap());
            Some(listing.blocks(512)).filter(|page| !page.is_empty())
        });
    }
    let mut listing = Some(structure.list(None).unwrap());
    beside_writes("all entries in one page", &structure, || listing.take().map(|mut all| all.entries(usize::MAX)));
    let mut net = Some("0.0.0.0/0".parse().unwrap());
    beside_writes("sum from a", &structure, || net.take().map(|net| structure.count_net_from(&us, net)));
}

/// A million entries of a gauge cache arrive, and expire in the same second.
#[test]
#[ignore = "prints how long the calls take: cargo test --release -p tallymesh-engine --test steps -- --ignored --nocapture"]
fn measure_a_gauge_cache_that_expires_at_once() {
    let n: u64 = std::env::var("ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let (mut replica, gauge) = gauges(10);
    for key in 0..n {
        gauge.structure().add(format!("key:{key}").as_bytes(), 1).unwrap();
    }
    let mut now = later(START, Duration::from_millis(10));
    let (mut gets, mut steps) = (Longest::default(), Longest::default());
    replica.handle_changes(now);
    gets.of(|| assert_eq!(gauge.get(b"key:77", now.mono), Some(1)));
    gets.print("get after lost changes");
    while later(START, Duration::from_secs(9)).mono > now.mono {
        now = Now { mono: replica.poll_timeout().max(now.mono.after(Duration::from_millis(1))), ..now };
        steps.of(|| replica.handle_timeout(now));
    }
    steps.print("timeouts before the expiry");
    let mut steps = Longest::default();
    let end = later(START, Duration::from_secs(60)).mono;
    while now.mono < end && !gauge.is_empty(now.mono) {
        now = Now { mono: replica.poll_timeout().max(now.mono.after(Duration::from_millis(1))), ..now };
        steps.of(|| replica.handle_timeout(now));
        if now.mono > later(START, Duration::from_secs(12)).mono {
            gets.of(|| assert_eq!(gauge.get(b"key:77", now.mono), None));
        }
    }
    steps.print("timeouts of the expiry");
    gets.print("all reads");
    assert!(gauge.is_empty(now.mono));
}
