//! Starts and ends processes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tallymesh_engine::replica::next_run;
use tallymesh_engine::{Cache, Config, Now, Replica, Structure, Time, Wake};
use tallymesh_schemas::saved::{Part, SavedEntry};
use tallymesh_schemas::{Incarnation, Overlay, StructureName, StructureSpec};

use super::{Cluster, Event};
use crate::admissions::References;
use crate::caches::{self, SimCache};
use crate::check::seen::{Looked, Seen};
use crate::disk::Saved;
use crate::gauges::SimGauge;
use crate::limits::Limits;
use crate::node::{Node, Process, events};

/// Restores a replica from its saved state, and checks the result.
fn take_back(replica: &mut Replica, saved: &Saved, now: Now) -> Result<(), String> {
    replica.restore_facts(now, saved.facts.clone());
    for part in saved.parts() {
        replica.restore(now, part).map_err(|error| error.to_string())?;
    }
    for saved in saved.caches() {
        for bytes in saved.entries.values() {
            let entry = SavedEntry::decode(bytes).map_err(|error| error.to_string())?;
            replica.restore_entry(&saved.shape, &entry).map_err(|error| error.to_string())?;
        }
        replica.restore_contexts(&saved.shape, &saved.contexts).map_err(|error| error.to_string())?;
    }
    replica.restored(now);
    for Part { shape, actor, extent, .. } in saved.parts() {
        let Some(structure) = replica.structure(&shape.name).filter(|_| !replica.is_void(&actor)) else { continue };
        let held = structure.held().into_iter().find(|held| held.actor == actor);
        let same = held.as_ref().is_some_and(|held| {
            (held.since, held.applied) == (extent.since, extent.applied)
                && extent.fingerprint.is_none_or(|saved| saved == held.fingerprint)
        });
        if !same {
            return Err(format!("{}: of {actor} {extent:?} was saved, taken back is {held:?}", shape.name));
        }
    }
    for saved in saved.caches() {
        let Some(cache) = replica.caches().into_iter().find(|cache| cache.spec().name.as_str() == saved.shape.name)
        else {
            continue;
        };
        let held = cache.held_entries(None, usize::MAX).into_iter().map(|entry| entry.key);
        if !held.eq(saved.entries.keys().cloned()) || cache.seen() != saved.contexts.seen.runs {
            return Err(format!("{}: what was taken back is not what was saved", saved.shape.name));
        }
    }
    Ok(())
}

/// The objects of a process.
#[derive(Default)]
struct Made {
    structures: BTreeMap<StructureName, Arc<Structure>>,
    caches: BTreeMap<StructureName, SimCache>,
    gauges: BTreeMap<StructureName, SimGauge>,
    levels: BTreeMap<StructureName, Cache>,
}

impl Cluster {
    /// Starts a process on a node with the state saved there, in a given incarnation or in that of its wall clock.
    pub(crate) fn start(&mut self, n: usize, incarnation: Option<Incarnation>) {
        self.hang_up(n);
        let seed = self.network_random.bits();
        let node = &mut self.nodes[n];
        let saved = self.save_every.and(node.disk.saved()).cloned();
        let wall = node.clock.read(self.now).unix_ms;
        let next = |saved: &Saved| next_run(&saved.facts, wall).expect("runs do not end here");
        let later = || saved.as_ref().map_or(Incarnation(wall.0), next);
        let incarnation = incarnation.unwrap_or_else(later);
        let mut config = Config { seed, ..self.config.clone() };
        config.budget.keys = self.max_keys.get(&node.label).copied();
        let mut replica = Replica::new(config, node.name.clone(), incarnation);
        if self.save_every.is_some() {
            replica.keep_state();
        }
        let woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&woken);
        let wake: Wake = Arc::new(move || flag.store(true, Ordering::Relaxed));
        let now = node.clock.read(self.now);
        let made = self.replicate(&mut replica, now, &wake);
        let node = &mut self.nodes[n];
        let mut wrong = None;
        if self.save_every.is_some() {
            wrong = saved.as_ref().and_then(|saved| take_back(&mut replica, saved, now).err());
            node.disk.begin(replica.facts());
        }
        let mut cache_seen = saved.as_ref().map(|saved| saved.seen.clone()).unwrap_or_default();
        if saved.is_some() && wrong.is_none() {
            let looked = made.caches.values().try_for_each(|sim| caches::look(sim, &mut cache_seen, now.unix_ms));
            wrong = looked.err().map(|what| format!("{}: taken back, {what}", node.label));
        }
        let limits = self.limits.as_ref();
        let limiters =
            limits.map(|limits| limits.start(&made.structures, &node.name, seed, now.mono, &wake)).unwrap_or_default();
        let references = References::start(limits, &made.structures, now.mono);
        made.levels.into_iter().for_each(|(name, cache)| limiters[&name].keep(cache, now));
        let actor = replica.actor().clone();
        let run = self.truth.borrow_mut().begin(actor.clone());
        self.writes.borrow_mut().contest(self.truth.borrow().sharing(&actor).iter().copied());
        node.begin(incarnation);
        self.trace.note(self.now, &[b"start", node.label.as_bytes(), &incarnation.0.to_le_bytes()], || {
            format!("{} starts as {actor}", node.label)
        });
        node.process = Some(Process {
            windows: events(&replica),
            replica,
            structures: made.structures,
            limiters,
            references,
            caches: made.caches,
            gauges: made.gauges,
            cache_seen,
            run,
            actor,
            woken,
            holds: Vec::new(),
            leaving: None,
            service: self.new_service.as_ref().map(|new| new(&node.name)),
            seen: Seen::default(),
            said: BTreeMap::new(),
            looked: Looked::default(),
            windows_seen: Vec::new(),
        });
        node.timer_at = Time::NEVER;
        self.schedule_work(n);
        if let Some(what) = wrong {
            self.fail(what);
        }
        self.pump(n);
    }

    /// Schedules the first turns of a node's service and of its saving.
    fn schedule_work(&mut self, n: usize) {
        let start = self.nodes[n].starts;
        if self.new_service.is_some() {
            self.schedule(self.now, Event::Service { node: n, start });
        }
        if let Some(every) = self.save_every {
            self.schedule(self.now.after(every), Event::Save { node: n, start });
        }
    }

    /// Makes the objects of a process, in the order of the configuration.
    fn replicate(&self, replica: &mut Replica, now: Now, wake: &Wake) -> Made {
        let mut made = Made::default();
        for spec in &self.specs {
            let structure = replica.replicate(spec.clone(), Arc::clone(wake));
            let structure = structure.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
            made.structures.insert(spec.name.clone(), structure);
        }
        for spec in &self.cache_specs {
            let cache = replica.replicate_cache(spec.clone(), Arc::clone(wake));
            let cache = cache.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
            made.caches.insert(spec.name.clone(), SimCache::new(cache, Rc::clone(&self.writes)));
        }
        for spec in &self.gauge_specs {
            let gauge = replica.replicate_gauge_cache(spec.clone(), Arc::clone(wake));
            let gauge = gauge.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
            made.gauges.insert(spec.name.clone(), SimGauge::new(gauge));
        }
        for spec in &self.series_specs {
            let series = replica.replicate_series(now, spec.clone(), Arc::clone(wake));
            series.unwrap_or_else(|error| panic!("{}: {error}", spec.name));
        }
        let saves = self.limits.is_some() && self.save_every.is_some();
        for (name, _) in made.structures.iter().filter(|(_, structure)| saves && Limits::limited(structure)) {
            let cache = replica.keep_cache(StructureSpec::levels(name), Arc::clone(wake));
            made.levels.insert(name.clone(), cache.unwrap_or_else(|error| panic!("no levels of {name}: {error}")));
        }
        made
    }

    /// A process saves what has changed, a batch at a time.
    pub(crate) fn save(&mut self, n: usize, start: u64) {
        let Some(every) = self.save_every else { return };
        let now = self.now;
        let node = &mut self.nodes[n];
        if node.starts != start {
            return;
        }
        let mut next = every;
        if let Some(process) = node.process.as_mut().filter(|_| !node.stopped)
            && let Some(batch) = process.replica.poll_save()
        {
            node.disk.note(&process.cache_seen);
            let written = node.disk.write(now, &batch);
            if written {
                process.replica.handle_saved();
            } else {
                process.replica.handle_not_saved();
            }
            next = if written && !batch.complete { Duration::from_millis(1) } else { every };
            self.trace.mark(if written { "saved" } else { "not saved" });
        }
        self.schedule(now.after(next), Event::Save { node: n, start });
        self.pump(n);
    }

    /// Ends the process of a node, and starts one with the memory that the process had in an earlier state of the cluster, in a
    /// new incarnation. Nothing happens if there was no process then, or one that was about to end.
    pub(crate) fn restore(&mut self, n: usize, mut earlier: Self) {
        let label = &self.nodes[n].label;
        let leaves = |node: &Node| node.process.as_ref().is_some_and(|process| process.leaving.is_some());
        let Some(copy) = earlier.nodes.iter_mut().find(|node| node.label == *label && !leaves(node)) else { return };
        let Some(mut process) = copy.process.take().filter(|_| !leaves(&self.nodes[n])) else { return };
        let (mut contacts, disk) = (std::mem::take(&mut copy.contacts), std::mem::take(&mut copy.disk));
        contacts.values_mut().for_each(|contact| contact.at = self.now);
        self.end(n);
        self.hang_up(n);
        let was = process.run;
        process.run = self.truth.borrow_mut().restore(&earlier.truth.borrow(), was);
        self.admissions.borrow_mut().restore(&earlier.admissions.borrow(), was, process.run);
        for hold in &mut process.holds {
            (hold.truth, hold.run) = (Rc::clone(&self.truth), process.run);
        }
        // Its writes are in the ledger of that time, and so in this one.
        process.caches.values_mut().for_each(|sim| sim.writes = Rc::clone(&self.writes));
        let links: Vec<_> = process.replica.links().cloned().collect();
        links.iter().for_each(|peer| process.replica.handle_link_down(peer));
        for other in std::mem::take(&mut copy.hellos).into_keys() {
            process.replica.handle_hangup(&earlier.nodes[other].name);
        }
        let node = &mut self.nodes[n];
        node.starts += 1;
        node.hellos.clear();
        (node.contacts, node.timer_at) = (contacts, Time::NEVER);
        (node.process, node.disk) = (Some(process), disk);
        let start = node.starts;
        if let Some(every) = self.save_every {
            self.schedule(self.now.after(every), Event::Save { node: n, start });
        }
        let label = self.nodes[n].label.clone();
        self.trace.note(self.now, &[b"restore", label.as_bytes()], || format!("{label} is restored"));
        self.trace.mark("restore");
        self.renew(n);
        let node = &mut self.nodes[n];
        node.began_as = node.process.as_ref().map_or(node.began_as, |process| process.replica.actor().incarnation);
    }

    /// Ends the process of a node; the other nodes see only silence.
    pub(crate) fn end(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        let Some(process) = node.process.take() else { return };
        node.units = None;
        self.trace.note(now, &[b"end", node.label.as_bytes()], || format!("{} ends", node.label));
        if process.leaving.is_some() {
            node.left = node.left.max(Some(process.replica.actor().incarnation));
        }
        node.stopped = false;
        node.waiting.clear();
        // Its holds end with it, so it does not count them any more.
        self.truth.borrow_mut().end(process.run);
        self.writes.borrow_mut().end(process.run);
        drop(process);
    }

    /// Starts another process under the name of a node, on a machine of its own.
    pub(crate) fn add_twin(&mut self, n: usize) -> usize {
        let name = self.nodes[n].name.clone();
        let overlay = Overlay::new(name.clone(), self.timing.mesh, self.timing.rings);
        let twin = Node::new(format!("{}'", self.nodes[n].label), overlay, name, self.nodes[n].clock);
        self.nodes.push(twin);
        self.links.add_node();
        self.nodes.len() - 1
    }

    pub(crate) fn truth_handle(&self) -> Rc<std::cell::RefCell<crate::truth::Truth>> {
        Rc::clone(&self.truth)
    }
}
