//! Messages: from a replica onto a link, and from a link into a replica.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tallymesh_engine::{Event as Told, Time};
use tallymesh_schemas::Actor;
use tallymesh_schemas::message::Message;

use super::{Cluster, Event};
use crate::check::process::{Replaced, after_delta, changes};
use crate::gauges::Look;
use crate::network::{Fate, Messages, way};
use crate::node::{Node, Waiting};

/// The most messages of a node at one moment. More messages mean an endless exchange.
const SENT_AT_ONCE: usize = 20_000;

/// The longest time by which another message overtakes a message.
const OVERTAKEN: Duration = Duration::from_millis(400);

/// The extra delay of a slow node's messages.
const SLOW: Duration = Duration::from_millis(150);

/// The kind of a message, for the trace; the first byte determines it.
pub(crate) fn kind(bytes: &[u8]) -> &'static str {
    match bytes.first() {
        Some(0) => "digest",
        Some(1) => "want",
        Some(2) => "delta",
        Some(3) => "probe",
        Some(4) => "goodbye",
        Some(5) => "seen",
        Some(6) => "prune",
        _ => "unreadable",
    }
}

impl Cluster {
    /// Does what a driver does after any input: releases changes, sends what there is room for, reads events, sets the timer.
    pub(crate) fn pump(&mut self, n: usize) {
        let now = self.nodes[n].read_clock(self.now);
        self.nodes[n].units = None;
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        if !self.rests {
            process.limit(now);
        }
        if process.woken.swap(false, Ordering::Relaxed) {
            process.replica.handle_changes(now);
        }
        self.look_at_gauges(n);
        self.transmit(n);
        let node = &mut self.nodes[n];
        let Some(process) = node.process.as_mut() else { return };
        while let Some(event) = process.replica.poll_event() {
            let mark = match event {
                Told::Conflict { .. } => "told: conflict",
                Told::ConflictWaits { .. } => "told: conflict waits",
                Told::ClaimRefused { .. } => "told: claim refused",
                Told::LastRun => "told: last run",
                Told::Diverged { .. } => "told: diverged",
                Told::Replaced { .. } => "told: replaced",
                Told::Unasked { .. } => "told: unasked",
                Told::KindMismatch { .. } => "told: kind mismatch",
                Told::ClockStepped { .. } => "told: clock stepped",
                Told::ClockOff { .. } => "told: clock off",
                Told::ClockRight { .. } => "told: clock right",
                Told::Ahead { .. } => "told: ahead",
                Told::BelowZero { .. } => "told: below zero",
                Told::TotalFull { .. } => "told: total full",
                Told::Life { .. } => "told: life",
                Told::Superseded { .. } => "told: superseded",
                Told::NotRestored(_) => "told: not restored",
                Told::Forgotten { .. } => "told: forgotten",
                Told::Repeated { .. } => "told: repeated",
            };
            self.trace.mark(mark);
            if let Told::Conflict { was, .. } = &event {
                self.truth.borrow_mut().conflict(was.node.clone());
            }
            // The kind is in the hash and the words are not: a renamed field does not change the behaviour.
            self.trace
                .note(self.now, &[node.label.as_bytes(), mark.as_bytes()], || format!("{}: {event:?}", node.label));
        }
        let turned = process.note_windows(&mut self.truth.borrow_mut());
        let noted = process.note_actor(&mut self.truth.borrow_mut()).and(turned);
        let limits_due = if self.rests { Time::NEVER } else { process.limits_due().max(Time(now.mono.0 + 1)) };
        let due = limits_due.min(process.replica.poll_timeout());
        let at = node.clock.when(self.now, due);
        if at != node.timer_at {
            node.timer_at = at;
            self.schedule(at, Event::Timer(n));
        }
        match noted {
            Ok(turned) => (0..turned).for_each(|_| self.trace.mark("window turned")),
            Err(what) => self.fail(format!("{}: {what}", self.nodes[n].label)),
        }
    }

    /// Records a process's removals from gauge caches in the ledger, before another node receives them.
    fn look_at_gauges(&mut self, n: usize) {
        let now = self.nodes[n].read_clock(self.now).mono;
        let Some(process) = self.nodes[n].process.as_ref().filter(|process| process.leaving.is_none()) else { return };
        let actor = process.replica.actor();
        let unsettled = self.messages == Messages::Spoilt || self.truth.borrow().contested(actor);
        let look = Look { actor, run: process.run, truth: &self.truth, now, at: self.now, unsettled };
        let looked = process.gauges.values().try_for_each(|gauge| gauge.look(&look));
        if let Err(what) = looked {
            self.fail(format!("{}: {what}", self.nodes[n].label));
        }
    }

    pub(crate) fn timer(&mut self, n: usize) {
        if self.nodes[n].timer_at != self.now || self.nodes[n].stopped {
            return;
        }
        let now = self.nodes[n].read_clock(self.now);
        let label = self.nodes[n].label.clone();
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        self.trace.note(self.now, &[b"timer", label.as_bytes()], || format!("{label}: timer"));
        if now.mono >= process.replica.poll_timeout() {
            process.replica.handle_timeout(now);
            let due = process.replica.poll_timeout();
            if due <= now.mono {
                self.fail(format!("{label}: the timer is due at {due:?} again, which is not after {:?}", now.mono));
            }
        }
        self.nodes[n].timer_at = Time::NEVER;
        self.pump(n);
        if let Err(what) = self.check_shares() {
            self.fail(what);
        }
    }

    fn transmit(&mut self, n: usize) {
        let mut sent = 0;
        let linked: Vec<usize> = self.nodes[n].linked.iter().copied().collect();
        for peer in linked {
            let (pair, direction) = way(n, peer);
            let room = if self.nodes[n].slow || self.nodes[peer].slow { 1 } else { self.conditions.room };
            while let Some(link) = self.links.get(pair).filter(|link| link.up) {
                if link.ways[direction].in_flight >= room {
                    if room < self.conditions.room || self.nodes[peer].stopped {
                        self.trace.mark("full link");
                    }
                    break;
                }
                let Ok([node, peer_node]) = self.nodes.get_disjoint_mut([n, peer]) else { return };
                let Some(process) = node.process.as_mut() else { return };
                let mut bytes = Vec::new();
                if !process.replica.poll_transmit(&peer_node.name, &mut bytes) {
                    break;
                }
                self.send(n, peer, bytes);
                sent += 1;
                if sent > SENT_AT_ONCE {
                    return self.fail(format!("{} talks without end", self.nodes[n].label));
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) {
        let (pair, direction) = way(from, to);
        let conditions = &self.conditions;
        let random = &mut self.network_random;
        let mut latency = conditions.draw_latency(random);
        if self.nodes[from].slow || self.nodes[to].slow {
            latency += SLOW;
        }
        let mut fate = Fate::Whole;
        if random.chance(conditions.lose) {
            fate = Fate::Lost;
        } else if random.chance(conditions.truncate) {
            fate = Fate::Damaged;
            bytes.truncate(random.index(bytes.len()));
        } else if random.chance(conditions.corrupt) {
            fate = Fate::Damaged;
            for _ in 0..=random.below(2) {
                let at = random.index(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        let overtaken = random.chance(conditions.reorder);
        let copy = random.chance(conditions.double);
        let copy_latency = latency + random.duration(Duration::ZERO, OVERTAKEN);
        let later = random.duration(Duration::ZERO, OVERTAKEN);
        let Some(link) = self.links.get_mut(pair) else { return };
        let generation = link.generation;
        let way = &mut link.ways[direction];
        way.in_flight += 1;
        self.sent.count(bytes.len());
        if kind(&bytes) == "delta" {
            self.sent.count_delta(bytes.len());
        }
        let mut at = self.now.after(latency);
        if overtaken {
            at = at.after(later);
            self.trace.mark("reordered");
        } else {
            at = at.max(way.last);
            way.last = at;
        }
        if copy && fate == Fate::Whole {
            let bytes = bytes.clone();
            let event = Event::Deliver { from, to, generation, fate: Fate::Copy, bytes };
            self.schedule(self.now.after(copy_latency), event);
        }
        self.schedule(at, Event::Deliver { from, to, generation, fate, bytes });
    }

    pub(crate) fn arrive(&mut self, from: usize, to: usize, generation: u64, fate: Fate, bytes: Vec<u8>) {
        let (pair, direction) = way(from, to);
        let Some(link) = self.links.get_mut(pair) else { return };
        if !link.up || link.generation != generation {
            return;
        }
        let cut = link.ways[direction].cut.is_some();
        let stands = self.nodes[to].stopped;
        if stands && !cut && fate != Fate::Lost {
            // The message keeps its room on the link, because the stopped process does not read it.
            if fate != Fate::Copy {
                self.nodes[to].waiting.push_back(Waiting { from, generation, fate, bytes });
            }
            return;
        }
        if fate != Fate::Copy {
            link.ways[direction].in_flight -= 1;
        }
        if cut {
            self.trace.mark("message cut off");
        } else if fate == Fate::Lost {
            self.trace.mark("message lost");
        } else {
            match fate {
                Fate::Copy => self.trace.mark("message doubled"),
                Fate::Damaged => self.trace.mark("message damaged"),
                Fate::Whole | Fate::Lost => {}
            }
            self.receive(from, to, fate, &bytes);
        }
        self.pump(from);
        self.pump(to);
    }

    /// Delivers the messages that waited for a stopped process.
    pub(crate) fn take_waiting(&mut self, n: usize) {
        while let Some(Waiting { from, generation, fate, bytes }) = self.nodes[n].waiting.pop_front() {
            let (pair, direction) = way(from, n);
            let Some(link) = self.links.get_mut(pair).filter(|link| link.up && link.generation == generation) else {
                continue;
            };
            link.ways[direction].in_flight -= 1;
            self.receive(from, n, fate, &bytes);
            // It also records entries that come and go at once.
            self.look_at_gauges(n);
            self.pump(from);
        }
        self.pump(n);
    }

    fn receive(&mut self, from: usize, to: usize, fate: Fate, bytes: &[u8]) {
        let now = self.nodes[to].read_clock(self.now);
        let peer = self.nodes[from].name.clone();
        let label = &self.nodes[to].label;
        let from_label = &self.nodes[from].label;
        self.trace.note(self.now, &[label.as_bytes(), from_label.as_bytes(), bytes], || {
            let text = Message::decode(bytes).map_or_else(|error| error.to_string(), |message| show(&message));
            format!("{from_label} → {label}: {text}")
        });
        self.trace.mark(kind(bytes));
        let Some(process) = self.nodes[to].process.as_mut() else { return };
        let handled = process.replica.handle_message(now, &peer, bytes);
        let noted = process.note_actor(&mut self.truth.borrow_mut());
        if let Err(what) = noted {
            return self.fail(format!("{}: {what}", self.nodes[to].label));
        }
        match handled {
            Err(error) => {
                if fate != Fate::Damaged && self.messages == Messages::Intact {
                    return self.fail(format!("{} refused what {} sent: {error}", self.nodes[to].label, peer));
                }
                self.trace.mark("message refused");
                self.close(way(from, to).0, "a message was refused");
            }
            Ok(()) => self.look(from, to, bytes),
        }
    }

    /// Checks what a message has changed.
    fn look(&mut self, from: usize, n: usize, bytes: &[u8]) {
        self.deliveries += 1;
        let unix_ms = self.nodes[n].read_clock(self.now).unix_ms;
        if !self.cache_specs.is_empty()
            && self.messages == Messages::Intact
            // A leaving node republishes nothing.
            && let Some(process) = self.nodes[n].process.as_mut().filter(|process| process.leaving.is_none())
        {
            let (caches, seen) = (&mut process.caches, &mut process.cache_seen);
            let looked = caches.values_mut().try_for_each(|sim| crate::caches::look_at_changes(sim, seen, unix_ms));
            if let Err(what) = looked {
                return self.fail(format!("{}: {what}", self.nodes[n].label));
            }
        }
        if self.messages == Messages::Intact
            && let Ok(Message::Delta(delta)) = Message::decode(bytes)
        {
            let truth = self.truth_handle();
            let gone = |actor: &Actor| {
                let of = |node: &Node| node.process.as_ref().is_some_and(|process| process.actor == *actor);
                !(0..self.nodes.len()).any(|owner| of(&self.nodes[owner]) && self.in_contact(from, owner))
            };
            let whole = delta.snapshot && delta.fingerprint.is_some();
            let traded = whole && delta.actor.node != self.nodes[from].name && gone(&delta.actor);
            let replaced = if traded { Replaced::Maybe } else { Replaced::No };
            let Some(process) = self.nodes[n].process.as_mut() else { return };
            if !self.series_specs.is_empty() && process.structure_of(delta.structure).is_none() {
                // For a window that has aged out on this node, or that it has not reached.
                self.trace.mark("delta for no window");
                return;
            }
            if let Err(what) = after_delta(process, &truth.borrow(), delta.structure, &delta.actor, replaced) {
                return self.fail(format!("{}: {what}", self.nodes[n].label));
            }
        }
        if self.deliveries.is_multiple_of(self.timing.audit_every) {
            let Some(process) = self.nodes[n].process.as_mut() else { return };
            let looked = changes(process, &self.truth.borrow(), self.messages);
            if let Err(what) = looked {
                self.fail(format!("{}: {what}", self.nodes[n].label));
            }
        }
    }
}

fn show(message: &Message<'_>) -> String {
    match message {
        Message::Delta(d) => {
            let fingerprint = d.fingerprint.map_or(String::new(), |f| format!(" complete {:04x}", f & 0xffff));
            let snapshot = if d.snapshot { " snapshot" } else { "" };
            format!(
                "delta{snapshot} {:x} {} ({}..) {}..{} floor {} {} bytes{fingerprint}",
                d.structure.0,
                d.actor,
                d.since,
                d.after,
                d.upto,
                d.low_water,
                d.rows.len()
            )
        }
        Message::Want(w) => {
            let snapshot = if w.snapshot { " snapshot" } else { "" };
            format!("want{snapshot} {:x} {} ({}..) after {}", w.structure.0, w.actor, w.since, w.after)
        }
        Message::Digest(d) => {
            let entries = d.structures.iter().flat_map(|s| s.entries.iter().map(|e| (s.structure.0, e)));
            let entries: Vec<_> = entries
                .map(|(id, e)| {
                    format!(
                        "{id:x} {} {}..{} f{} {:04x}",
                        e.actor,
                        e.since,
                        e.applied,
                        e.low_water,
                        e.fingerprint & 0xffff
                    )
                })
                .collect();
            format!("digest of {}{}: {}", d.incarnation, if d.complete { " complete" } else { "" }, entries.join(", "))
        }
        Message::CacheEntries(entries) => {
            let mark = entries.mark.as_ref().map(|mark| format!(" mark {:?} {:?}", mark.runs, mark.ended));
            format!(
                "entries {}.{} {} bytes{}",
                entries.session,
                entries.position,
                entries.entries.len(),
                mark.unwrap_or_default()
            )
        }
        other => format!("{other:?}"),
    }
}
