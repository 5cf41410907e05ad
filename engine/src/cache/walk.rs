//! Random walks of small clusters over the shipped cache: writes, removals, links that break, restarts without memory or from
//! an old disk, collections, members without a link between them. After each walk everything is delivered, and all nodes must
//! agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tallymesh_schemas::message::Message;
use tallymesh_schemas::saved::{CacheContexts, SavedEntry};
use tallymesh_schemas::{Actor, Bounds, Incarnation, NodeName, StructureId};

use crate::cache::collect::Round;
use crate::cache::exchange::{Exchange, Writers};
use crate::cache::map::CacheMap;
use crate::hlc::Stamp;
use crate::random::Random;
use crate::time::Time;

const NODES: usize = 4;
const KEYS: [&[u8]; 2] = [b"a", b"b"];
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Disk {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    contexts: CacheContexts,
}

struct Node {
    map: CacheMap,
    exchange: Exchange,
    disk: Option<Disk>,
    /// The latest stamp that the process has read of each key.
    read: BTreeMap<&'static [u8], Stamp>,
}

/// What a walk does.
#[derive(Clone, Copy)]
struct Faults {
    nodes: usize,
    restarts: bool,
    /// Links that do not exist for the whole walk.
    unlinked: bool,
    losses: bool,
}

struct World {
    nodes: Vec<Node>,
    queues: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    linked: BTreeMap<(usize, usize), bool>,
    now_ms: u64,
    collected: usize,
    trace: Vec<String>,
}

struct View {
    linked: BTreeSet<NodeName>,
    current: BTreeMap<NodeName, Incarnation>,
}

impl Writers for View {
    fn is_linked(&self, node: &NodeName) -> bool {
        self.linked.contains(node)
    }

    fn has_ended(&self, run: &Actor) -> bool {
        self.current.get(&run.node).is_some_and(|current| run.incarnation < *current)
    }

    fn lives(&self, run: &Actor) -> bool {
        !self.has_ended(run)
    }
}

/// A number below `n`.
fn below(random: &mut Random, n: u64) -> u64 {
    random.next() % n
}

fn name(at: usize) -> NodeName {
    NodeName::new(&format!("n{at}")).unwrap()
}

impl World {
    fn new(nodes: usize) -> Self {
        let map = |at| {
            let mut map = CacheMap::new(Actor::new(name(at), Incarnation(1)), Bounds::default());
            map.keep_unsaved();
            map
        };
        let node = |at| Node {
            map: map(at),
            exchange: Exchange::new(StructureId(1)),
            disk: None,
            read: BTreeMap::new(),
        };
        let mut world = Self {
            nodes: (0..nodes).map(node).collect(),
            queues: BTreeMap::new(),
            linked: BTreeMap::new(),
            now_ms: 1_000_000_000,
            collected: 0,
            trace: Vec::new(),
        };
        for (i, j) in world.pairs() {
            world.link(i, j);
        }
        world
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let n = self.nodes.len();
        (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
    }

    fn link(&mut self, i: usize, j: usize) {
        self.linked.insert((i, j), true);
        for (a, b) in [(i, j), (j, i)] {
            self.queues.insert((a, b), VecDeque::new());
            self.nodes[a].exchange.link_up(&name(b));
        }
    }

    fn unlink(&mut self, i: usize, j: usize) {
        self.linked.insert((i, j), false);
        for (a, b) in [(i, j), (j, i)] {
            self.queues.remove(&(a, b));
            self.nodes[a].exchange.link_down(&name(b));
        }
    }

    fn write(&mut self, at: usize, key: &'static [u8], value: Option<&[u8]>) {
        let node = &mut self.nodes[at];
        if value.is_none() && node.map.get(key).is_none_or(|entry| entry.value().is_none()) {
            return;
        }
        let stamp = node.map.write(key, value.map(|value| (0, value)), self.now_ms, |_| {}).unwrap();
        self.trace.push(format!("n{at} writes {key:?} {value:?} at {stamp:?}"));
    }

    fn send(&mut self, i: usize, j: usize) -> bool {
        let Some(queue) = self.queues.get_mut(&(i, j)) else { return false };
        let node = &mut self.nodes[i];
        let mut bytes = Vec::new();
        let encode = |message: &Message<'_>| message.encode(&mut bytes).unwrap();
        let sent = node.exchange.next(&mut node.map, &name(j), (self.now_ms, 40), encode);
        if sent {
            self.trace.push(format!("n{i} sends to n{j}: {:?}", Message::decode(&bytes).unwrap()));
            queue.push_back(bytes);
        }
        sent
    }

    fn deliver(&mut self, i: usize, j: usize) -> bool {
        let Some(bytes) = self.queues.get_mut(&(i, j)).and_then(VecDeque::pop_front) else { return false };
        self.trace.push(format!("n{j} receives from n{i}"));
        let view = self.view(j);
        let Node { map, exchange, .. } = &mut self.nodes[j];
        let peer = name(i);
        match Message::decode(&bytes).unwrap() {
            Message::CacheReport(report) => {
                assert_eq!(exchange.handle_report(map, &peer, &report, &view), None);
            }
            Message::CacheEntries(entries) => {
                let brought = exchange.handle_entries(map, (&peer, self.now_ms), &entries, &view, |_| {}).unwrap();
                assert_eq!(brought.ahead, None);
            }
            Message::CacheCompare(compare) => exchange.handle_compare(&peer, compare),
            Message::CacheKeys(keys) => exchange.handle_keys(map, &peer, &keys),
            other => panic!("{other:?}"),
        }
        true
    }

    /// What a node knows of the others.
    fn view(&self, at: usize) -> View {
        let current = self.nodes.iter().map(|node| (node.map.me().node.clone(), node.map.me().incarnation)).collect();
        let linked = self.linked.iter().filter(|((i, j), linked)| **linked && (*i == at || *j == at));
        View { current, linked: linked.flat_map(|((i, j), _)| [name(*i), name(*j)]).collect() }
    }

    fn tick(&mut self, at: usize) {
        let view = self.view(at);
        let now = Time(self.now_ms * 1000);
        let others: Vec<_> = (0..self.nodes.len()).filter(|other| *other != at).map(name).collect();
        let Node { map, exchange, .. } = &mut self.nodes[at];
        let held = map.held();
        let round = Round::of(map.seen(), others.iter().map(|other| exchange.said(other)));
        exchange.collect(map, round, self.now_ms, &view);
        self.collected += held - map.held();
        exchange.tick(map, now, INTERVAL, &view);
        exchange.work(map, &view, |_| {});
        map.note_position();
        self.trace.push(format!("n{at} ticks at {} and holds {} of {held}", self.now_ms, map.held()));
    }

    /// Saves what has changed, in a unit of several pieces.
    fn save(&mut self, at: usize) {
        let Node { map, disk, .. } = &mut self.nodes[at];
        let disk = disk.get_or_insert_with(|| Disk { entries: BTreeMap::new(), contexts: CacheContexts::default() });
        let mut unit = map.begin_unit();
        loop {
            let changes = map.next_changes(&mut unit, 1);
            for (key, entry) in changes.entries {
                match entry {
                    Some(entry) => drop(disk.entries.insert(key, entry)),
                    None => drop(disk.entries.remove(&key)),
                }
            }
            if let Some(contexts) = changes.contexts {
                disk.contexts = contexts;
                break;
            }
        }
        self.trace.push(format!("n{at} saves"));
    }

    fn restart(&mut self, at: usize, from_disk: bool) {
        let run = self.nodes[at].map.me().incarnation.0 + 1;
        let mut map = CacheMap::new(Actor::new(name(at), Incarnation(run)), Bounds::default());
        map.keep_unsaved();
        match self.nodes[at].disk.as_ref().filter(|_| from_disk) {
            Some(disk) => {
                for bytes in disk.entries.values() {
                    assert!(map.restore(&SavedEntry::decode(bytes).unwrap()));
                }
                map.restore_contexts(&disk.contexts);
            }
            None => self.nodes[at].disk = None,
        }
        self.trace.push(format!("n{at} restarts as {run} with {} entries", map.held()));
        self.nodes[at].map = map;
        self.nodes[at].exchange = Exchange::new(StructureId(1));
        self.nodes[at].read.clear();
        for (i, j) in self.pairs() {
            if i == at || j == at {
                let linked = self.linked[&(i, j)];
                self.unlink(i, j);
                if linked {
                    self.link(i, j);
                }
            }
        }
    }

    /// No process reads an earlier write of a key than before, and the aggregates are those of the entries.
    fn check(&mut self) -> Result<(), String> {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.map.audit().map_err(|what| format!("n{at}: {what}"))?;
            for key in KEYS {
                let Some(entry) = node.map.get(key) else { continue };
                let read = node.read.entry(key).or_default();
                if entry.stamp < *read {
                    return Err(format!("n{at} reads {key:?} at {:?}, and had {read:?}", entry.stamp));
                }
                *read = entry.stamp;
            }
        }
        Ok(())
    }

    fn step(&mut self, random: &mut Random, faults: Faults) {
        let n = faults.nodes as u64;
        let (i, j) = (below(random, n) as usize, below(random, n) as usize);
        let key = KEYS[below(random, KEYS.len() as u64) as usize];
        match below(random, 100) {
            0..6 => self.write(i, key, Some(&[below(random, 9) as u8])),
            6..10 => self.write(i, key, None),
            10..40 if i != j => drop(self.send(i, j)),
            40..75 if i != j => drop(self.deliver(i, j)),
            75..84 => {
                self.now_ms += 700;
                self.tick(i);
            }
            84..86 => self.now_ms += 61_000,
            86..89 if i < j => {
                self.trace.push(format!("n{i} and n{j} lose their link"));
                self.unlink(i, j);
            }
            89..93 if i < j && !self.linked[&(i, j)] && !(faults.unlinked && (i, j) == (0, 1)) => {
                self.trace.push(format!("n{i} and n{j} have a link"));
                self.link(i, j);
            }
            93 if faults.losses && i != j => {
                self.trace.push(format!("a message from n{i} to n{j} is lost"));
                self.queues.get_mut(&(i, j)).and_then(VecDeque::pop_front);
            }
            94 if faults.losses && i != j => {
                if let Some(queue) = self.queues.get_mut(&(i, j)) {
                    self.trace.push(format!("messages from n{i} to n{j} change places"));
                    queue.rotate_left(queue.len().min(1));
                }
            }
            95..98 => self.save(i),
            98 if faults.restarts => self.restart(i, below(random, 3) > 0),
            _ => {}
        }
    }

    /// Delivers everything and lets time pass, until all nodes have the same.
    fn settle(&mut self, faults: Faults) -> Result<(), String> {
        for (i, j) in self.pairs() {
            if !self.linked[&(i, j)] && !(faults.unlinked && (i, j) == (0, 1)) {
                self.link(i, j);
            }
        }
        for round in 0..60 {
            for _ in 0..40 {
                let mut moved = false;
                for (i, j) in self.pairs() {
                    for (a, b) in [(i, j), (j, i)] {
                        while self.send(a, b) | self.deliver(a, b) {
                            moved = true;
                            self.check()?;
                        }
                    }
                }
                for at in 0..self.nodes.len() {
                    let view = self.view(at);
                    let Node { map, exchange, .. } = &mut self.nodes[at];
                    while exchange.is_working() {
                        exchange.work(map, &view, |_| {});
                        moved = true;
                    }
                }
                self.check()?;
                if !moved {
                    break;
                }
            }
            self.now_ms += if round == 20 { 70_000 } else { 1000 };
            (0..self.nodes.len()).for_each(|at| self.tick(at));
        }
        let state = |node: &Node| {
            let all = KEYS.map(|key| {
                let live = node.map.get(key).filter(|entry| entry.value().is_some());
                live.map(|entry| (entry.stamp, node.map.writer(entry).clone(), entry.value().map(<[u8]>::to_vec)))
            });
            (all, node.map.seen.clone(), node.map.derived().fingerprint.clone())
        };
        let first = state(&self.nodes[0]);
        for node in &self.nodes {
            if state(node) != first {
                let states: Vec<_> = self.nodes.iter().map(state).collect();
                return Err(format!("settled apart: {states:#?}"));
            }
        }
        Ok(())
    }
}

fn walk(seed: u64, faults: Faults) -> Result<usize, String> {
    let mut random = Random::new(seed);
    let mut world = World::new(faults.nodes);
    if faults.unlinked {
        world.unlink(0, 1);
    }
    let steps = 60 + below(&mut random, 140);
    let mut run = || -> Result<(), String> {
        for _ in 0..steps {
            world.step(&mut random, faults);
            world.check()?;
        }
        world.settle(faults)
    };
    run().map_err(|what| format!("seed {seed}: {what}\n{}", world.trace.join("\n")))?;
    Ok(world.collected)
}

fn walks(faults: Faults) {
    let walks = std::env::var("CACHE_WALKS").map_or(300, |walks| walks.parse().unwrap());
    let mut collected = 0;
    for seed in 0..walks {
        match walk(seed, faults) {
            Ok(removals) => collected += removals,
            Err(what) => panic!("{what}"),
        }
    }
    assert!(collected > 0, "nothing was collected in {walks} walks");
    println!("{walks} walks, {collected} removals collected");
}

const CALM: Faults = Faults { nodes: 3, restarts: false, unlinked: false, losses: false };

#[test]
fn nodes_agree_after_links_broke() {
    walks(CALM);
}

#[test]
fn nodes_agree_after_messages_were_lost_or_out_of_order() {
    walks(Faults { losses: true, ..CALM });
}

#[test]
fn nodes_agree_after_restarts() {
    walks(Faults { restarts: true, losses: true, ..CALM });
}

#[test]
fn nodes_agree_through_relays() {
    walks(Faults { nodes: NODES, restarts: true, losses: true, unlinked: true });
}
