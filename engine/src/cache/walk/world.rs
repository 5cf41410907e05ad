//! A small cluster over the shipped cache: what may happen in it, what must hold at any time, and how it settles.

mod checks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::message::Message;
use tallymesh_schemas::saved::{CacheContexts, SavedEntry};
use tallymesh_schemas::{Actor, Bounds, Budget, Incarnation, NodeName, StructureId, UnixMs};

use crate::budget::NodeBudget;
use crate::cache::collect::{Round, STEP};
use crate::cache::exchange::Exchange;
use crate::cache::map::CacheMap;
use crate::cache::walk::ledger::{KEYS, Ledger};
use crate::cache::writers::Writers;
use crate::hlc::Stamp;
use crate::time::{Now, Time};

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Disk {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    contexts: CacheContexts,
}

#[derive(Debug)]
struct Node {
    map: CacheMap,
    exchange: Exchange,
    disk: Option<Disk>,
    /// The latest stamp that the process has read of each key.
    read: BTreeMap<&'static [u8], Stamp>,
    /// Its clock is ahead by so much.
    ahead_ms: u64,
    /// The process may have written ahead of the present.
    was_ahead: bool,
    /// It was away for longer than the others wait for it.
    dead: bool,
}

/// What a new process begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Restart {
    /// What the earlier one has saved.
    Saved,
    /// Nothing.
    Empty,
    /// Nothing, and it takes in only what is written from then on.
    Later,
}

/// The cluster.
#[derive(Debug)]
pub(super) struct World {
    nodes: Vec<Node>,
    queues: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    linked: BTreeMap<(usize, usize), bool>,
    /// These two nodes never have a link between them.
    apart: Option<(usize, usize)>,
    /// Some node was away for longer than the others wait for it.
    gave_up: bool,
    /// Some node has lost the last write of a key.
    is_wrong: bool,
    now_ms: u64,
    pub(super) collected: usize,
    ledger: Ledger,
    pub(super) trace: Trace,
}

/// What has happened, if somebody wants to read it.
#[derive(Default, Debug)]
pub(super) struct Trace(pub(super) Option<Vec<String>>);

impl Trace {
    fn push(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.0 {
            trace.push(what());
        }
    }
}

struct View {
    linked: BTreeSet<NodeName>,
    current: BTreeMap<NodeName, Incarnation>,
    dead: BTreeSet<NodeName>,
}

impl Writers for View {
    fn is_linked(&self, node: &NodeName) -> bool {
        self.linked.contains(node)
    }

    fn has_ended(&self, run: &Actor) -> bool {
        self.current.get(&run.node).is_some_and(|current| run.incarnation < *current)
    }

    fn lives(&self, run: &Actor) -> bool {
        !self.has_ended(run) && !self.dead.contains(&run.node)
    }
}

fn name(at: usize) -> NodeName {
    NodeName::new(&format!("n{at}")).unwrap()
}

fn budget() -> Arc<NodeBudget> {
    Arc::new(NodeBudget::new(Budget::default()))
}

impl World {
    pub(super) fn new(nodes: usize, apart: Option<(usize, usize)>, trace: Trace) -> Self {
        let map = |at| {
            let mut map = CacheMap::new(Actor::new(name(at), Incarnation(1)), Bounds::default(), 7, budget());
            map.keep_unsaved();
            map
        };
        let node = |at| Node {
            map: map(at),
            exchange: Exchange::new(StructureId(1)),
            disk: None,
            read: BTreeMap::new(),
            ahead_ms: 0,
            was_ahead: false,
            dead: false,
        };
        let mut world = Self {
            nodes: (0..nodes).map(node).collect(),
            queues: BTreeMap::new(),
            linked: BTreeMap::new(),
            apart,
            gave_up: false,
            is_wrong: false,
            now_ms: 1_000_000_000,
            collected: 0,
            ledger: Ledger::default(),
            trace,
        };
        for (i, j) in world.pairs() {
            world.linked.insert((i, j), false);
            world.link(i, j);
        }
        world
    }

    fn clock_of(&self, at: usize) -> UnixMs {
        UnixMs(self.now_ms + self.nodes[at].ahead_ms)
    }

    /// A clock goes ahead by more than others accept, or comes back.
    pub(super) fn set_clock(&mut self, at: usize, ahead_ms: u64) {
        self.trace.push(|| format!("the clock of n{at} is {ahead_ms} ms ahead"));
        self.nodes[at].ahead_ms = ahead_ms;
        self.nodes[at].was_ahead |= ahead_ms > 0;
    }

    /// Time passes.
    pub(super) fn wait(&mut self, ms: u64) {
        self.trace.push(|| format!("{ms} ms pass"));
        self.now_ms += ms;
    }

    /// The others do not wait any more for a node without links.
    pub(super) fn give_up(&mut self, at: usize) {
        if !self.linked.iter().any(|((i, j), linked)| *linked && (*i == at || *j == at)) {
            self.trace.push(|| format!("n{at} counts as dead for long"));
            self.nodes[at].dead = true;
            self.gave_up = true;
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let n = self.nodes.len();
        (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
    }

    pub(super) fn link(&mut self, i: usize, j: usize) {
        if i >= j || self.linked[&(i, j)] || self.apart == Some((i, j)) {
            return;
        }
        self.trace.push(|| format!("n{i} and n{j} have a link"));
        self.linked.insert((i, j), true);
        for (a, b) in [(i, j), (j, i)] {
            self.nodes[a].dead = false;
            self.queues.insert((a, b), VecDeque::new());
            self.nodes[a].exchange.link_up(&name(b));
        }
    }

    pub(super) fn unlink(&mut self, i: usize, j: usize) {
        if i >= j || !self.linked[&(i, j)] {
            return;
        }
        self.trace.push(|| format!("n{i} and n{j} lose their link"));
        self.linked.insert((i, j), false);
        for (a, b) in [(i, j), (j, i)] {
            self.queues.remove(&(a, b));
            self.nodes[a].exchange.link_down(&name(b));
        }
    }

    pub(super) fn write(&mut self, at: usize, key: &'static [u8], value: Option<&[u8]>) -> Result<(), String> {
        let unix_ms = self.clock_of(at);
        let node = &mut self.nodes[at];
        if value.is_none() && node.map.get(key).is_none_or(|entry| entry.value().is_none()) {
            return Ok(());
        }
        match node.map.write(key, value.map(|value| (UnixMs::ZERO, value)), unix_ms, |_| {}) {
            Ok(stamp) => self.trace.push(|| format!("n{at} writes {key:?} {value:?} at {stamp:?}")),
            Err(_) if node.was_ahead => {}
            Err(refused) => return Err(format!("n{at} cannot write: {refused:?}")),
        }
        Ok(())
    }

    /// Whether a node holds a value of a key.
    pub(super) fn holds(&self, at: usize, key: &[u8]) -> bool {
        self.nodes[at].map.get(key).is_some_and(|entry| entry.value().is_some())
    }

    /// Whether no node has skipped writes.
    pub(super) fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| node.map.is_whole())
    }

    /// Messages on their way.
    pub(super) fn waiting(&self, i: usize, j: usize) -> usize {
        self.queues.get(&(i, j)).map_or(0, VecDeque::len)
    }

    pub(super) fn send(&mut self, i: usize, j: usize) -> bool {
        let unix_ms = self.clock_of(i);
        let Some(queue) = self.queues.get_mut(&(i, j)) else { return false };
        let node = &mut self.nodes[i];
        let mut bytes = Vec::new();
        let encode = |message: &Message<'_>| message.encode(&mut bytes).unwrap();
        let sent = node.exchange.next(&mut node.map, &name(j), (unix_ms, 40), encode);
        if sent {
            self.trace.push(|| format!("n{i} sends to n{j}: {:?}", Message::decode(&bytes).unwrap()));
            queue.push_back(bytes);
        }
        sent
    }

    /// The next message is lost, comes later than the others, or comes twice.
    pub(super) fn lose(&mut self, i: usize, j: usize) {
        if let Some(bytes) = self.queues.get_mut(&(i, j)).and_then(VecDeque::pop_front) {
            self.trace.push(|| format!("lost from n{i} to n{j}: {:?}", Message::decode(&bytes).unwrap()));
        }
    }

    pub(super) fn delay(&mut self, i: usize, j: usize) {
        if let Some(queue) = self.queues.get_mut(&(i, j)).filter(|queue| queue.len() > 1) {
            queue.rotate_left(1);
            self.trace.push(|| format!("a message from n{i} to n{j} is delayed"));
        }
    }

    pub(super) fn double(&mut self, i: usize, j: usize) {
        if let Some(queue) = self.queues.get_mut(&(i, j))
            && let Some(first) = queue.front().cloned()
        {
            queue.push_back(first);
            self.trace.push(|| format!("a message from n{i} to n{j} comes twice"));
        }
    }

    pub(super) fn deliver(&mut self, i: usize, j: usize) -> bool {
        let Some(bytes) = self.queues.get_mut(&(i, j)).and_then(VecDeque::pop_front) else { return false };
        self.trace.push(|| format!("n{j} receives from n{i}"));
        let (view, unix_ms) = (self.view(j), self.clock_of(j));
        let Node { map, exchange, .. } = &mut self.nodes[j];
        let peer = name(i);
        match Message::decode(&bytes).unwrap() {
            Message::CacheReport(report) => {
                assert_eq!(exchange.handle_report(map, (&peer, unix_ms), &report, &view), None);
            }
            Message::CacheEntries(entries) => {
                exchange.handle_entries(map, (&peer, unix_ms), &entries, &view, |_| {}).unwrap();
            }
            Message::CacheCompare(compare) => exchange.handle_compare(&peer, compare),
            Message::CacheKeys(keys) => exchange.handle_keys(&peer, &keys),
            other => panic!("{other:?}"),
        }
        true
    }

    /// All directions.
    pub(super) fn directions(&self) -> Vec<(usize, usize)> {
        self.pairs().into_iter().flat_map(|(i, j)| [(i, j), (j, i)]).collect()
    }

    /// Sends and delivers everything in these directions.
    pub(super) fn exchange_all(&mut self, pairs: &[(usize, usize)]) -> Result<(), String> {
        for _ in 0..2 {
            for (i, j) in pairs {
                while self.send(*i, *j) | self.deliver(*i, *j) {}
            }
        }
        self.check()
    }

    /// A node goes on writing a key for some intervals, so no two nodes have taken in the same writes and compare what they hold.
    #[cfg(feature = "canaries")]
    pub(super) fn stay_busy(&mut self, at: usize, key: &'static [u8], intervals: u8) -> Result<(), String> {
        for n in 0..intervals {
            self.write(at, key, Some(&[n]))?;
            self.exchange_all(&self.directions())?;
            self.wait(1000);
            (0..self.nodes.len()).for_each(|at| self.tick(at));
        }
        Ok(())
    }

    /// What a node knows of the others.
    fn view(&self, at: usize) -> View {
        let current = self.nodes.iter().map(|node| (node.map.me().node.clone(), node.map.me().incarnation)).collect();
        let linked = self.linked.iter().filter(|((i, j), linked)| **linked && (*i == at || *j == at));
        let dead = (0..self.nodes.len()).filter(|other| self.nodes[*other].dead).map(name).collect();
        View { current, linked: linked.flat_map(|((i, j), _)| [name(*i), name(*j)]).collect(), dead }
    }

    pub(super) fn tick(&mut self, at: usize) {
        let (view, unix_ms) = (self.view(at), self.clock_of(at));
        let now = Now { mono: Time(self.now_ms * 1000), unix_ms };
        let others = (0..self.nodes.len()).filter(|other| *other != at && !self.nodes[*other].dead);
        let others: Vec<_> = others.map(name).collect();
        let Node { map, exchange, read, ahead_ms, .. } = &mut self.nodes[at];
        if *ahead_ms == 0 {
            let latest = map.clock.latest();
            map.return_to_present(unix_ms);
            if map.clock.latest() < latest {
                read.clear();
            }
        }
        let held = map.held();
        let before = KEYS.map(|key| map.get(key).map(|entry| entry.stamp));
        let round = Round::of(map.seen(), others.iter().map(|other| exchange.said(other)));
        exchange.collect(map, round, (UnixMs(self.now_ms), STEP), &view);
        self.collected += held - map.held();
        for (key, stamp) in KEYS.into_iter().zip(before) {
            if let Some(stamp) = stamp.filter(|_| map.get(key).is_none()) {
                self.ledger.note_collected(key, stamp, map);
            }
        }
        if self.gave_up {
            // Such a node may return with a write that is older than what was collected meanwhile.
            let Node { map, read, .. } = &mut self.nodes[at];
            read.retain(|key, _| map.get(key).is_some());
        }
        let Node { map, exchange, .. } = &mut self.nodes[at];
        exchange.tick(map, now, INTERVAL, &view);
        exchange.work(map, &view, |_| {});
        map.note_position();
        self.trace.push(|| format!("n{at} ticks at {} and holds {} of {held}", self.now_ms, map.held()));
    }

    /// Saves what has changed, in a unit of several pieces.
    pub(super) fn save(&mut self, at: usize) {
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
        self.trace.push(|| format!("n{at} saves"));
    }

    /// A fault: instead of the last write of a key, a node holds the one that it has saved. It counts the last one as taken in.
    pub(super) fn lose_last_write(&mut self, at: usize, key: &'static [u8]) {
        let Node { map, disk, read, .. } = &mut self.nodes[at];
        let Some(saved) = disk.as_ref().and_then(|disk| disk.entries.get(key)) else { return };
        let Some(slot) = map.slots.find(key) else { return };
        let saved = SavedEntry::decode(saved).unwrap();
        map.uninstall(slot);
        let put_back = saved.read(|wire| {
            let (stamp, write) = (Stamp(wire.stamp), (saved.run(), wire.number));
            map.take_in(key, stamp, write, (UnixMs(wire.expires_ms), wire.value));
            format!("n{at} loses the last write of {key:?} and holds {:?} of {stamp:?}", wire.value)
        });
        read.remove(key);
        self.is_wrong = true;
        self.trace.push(|| put_back.unwrap());
    }

    /// A process ends and another one begins: with what the earlier one has saved, without it, or without all that was written.
    pub(super) fn restart(&mut self, at: usize, with: Restart) {
        let (from_disk, joins_late) = (with == Restart::Saved, with == Restart::Later);
        let run = self.nodes[at].map.me().incarnation.0 + 1;
        let mut map = CacheMap::new(Actor::new(name(at), Incarnation(run)), Bounds::default(), 7, budget());
        map.keep_unsaved();
        if joins_late {
            map.start_in_the_middle();
        }
        match self.nodes[at].disk.as_ref().filter(|_| from_disk) {
            Some(disk) => {
                for bytes in disk.entries.values() {
                    assert!(map.restore(&SavedEntry::decode(bytes).unwrap()));
                }
                map.restore_contexts(&disk.contexts);
            }
            None => self.nodes[at].disk = None,
        }
        self.trace.push(|| format!("n{at} restarts as {run} with {} entries", map.held()));
        self.nodes[at].map = map;
        self.nodes[at].exchange = Exchange::new(StructureId(1));
        self.nodes[at].read.clear();
        for (i, j) in self.pairs().into_iter().filter(|(i, j)| *i == at || *j == at) {
            if self.linked[&(i, j)] {
                self.unlink(i, j);
                self.link(i, j);
            }
        }
    }
}
