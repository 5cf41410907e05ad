//! Applies faults.

use tallymesh_engine::Time;
use tallymesh_schemas::Actor;

use super::Cluster;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::network::{Messages, way};

/// The directions of a link that a cut ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    Both,
    One,
}

impl Cluster {
    pub(crate) fn strike(&mut self, fault: &Fault) {
        self.trace.note(self.now, &[b"fault", fault.to_string().as_bytes()], || format!("fault: {fault}"));
        let lonely = matches!(fault, Fault::Jump(..) | Fault::Set(..) | Fault::Forget(..) | Fault::Lie(..));
        if lonely && !fault.names().into_iter().all(|name| self.has_node(name)) {
            // In a shrunk script a twin may not exist.
            return;
        }
        match fault {
            Fault::Cut(a, b) => self.cut(a, b, Ways::Both),
            Fault::CutOneWay(a, b) => self.cut(a, b, Ways::One),
            Fault::Heal => self.heal(),
            Fault::Crash(names) => self.each(names, Self::crash),
            Fault::Restart(names) => self.each(names, |cluster, n| {
                cluster.crash(n);
                cluster.nodes[n].disk = Disk::default();
                cluster.start(n, None);
                cluster.trace.mark("restart");
            }),
            Fault::Reuse(names) => self.each(names, |cluster, n| {
                cluster.crash(n);
                let incarnation = cluster.nodes[n].began_as;
                cluster.nodes[n].disk = Disk::default();
                cluster.start(n, Some(incarnation));
                cluster.trace.mark("reuse");
            }),
            Fault::Twin(names) => self.each(names, |cluster, n| {
                let twin = cluster.add_twin(n);
                cluster.start(twin, None);
                cluster.trace.mark("twin");
            }),
            Fault::Leave(names) => self.each(names, Self::leave),
            Fault::Stop(names) => self.each(names, |cluster, n| {
                if cluster.nodes[n].is_working() {
                    cluster.nodes[n].stopped = true;
                    cluster.trace.mark("stop");
                }
            }),
            Fault::Resume(names) => self.each(names, Self::resume),
            Fault::Slow(names) => self.each(names, |cluster, n| {
                cluster.nodes[n].slow = true;
                cluster.trace.mark("slow");
            }),
            Fault::Forget(name, at) => self.forget(name, at),
            Fault::Lie(by, lie, about) => self.lie(by, *lie, about),
            Fault::Renew(names) => self.each(names, Self::renew),
            Fault::Reload(names) => self.each(names, |cluster, n| {
                // A leaving node does not return with its state.
                let leaves = cluster.nodes[n].process.as_ref().is_some_and(|process| process.leaving.is_some());
                if cluster.nodes[n].is_working() && !leaves {
                    cluster.hang_up(n);
                    cluster.renew(n);
                    cluster.trace.mark("reload");
                }
            }),
            Fault::Full(names) => self.each(names, |cluster, n| cluster.nodes[n].disk.full = true),
            Fault::Restore(..) | Fault::Reboot(_) | Fault::Rewind(..) => self.strike_disk(fault),
            Fault::Jump(..) | Fault::Set(..) => self.strike_clock(fault),
            _ => self.strike_network(fault),
        }
    }

    /// A process begins with an earlier state.
    fn strike_disk(&mut self, fault: &Fault) {
        match fault {
            Fault::Restore(name, age) => self.each(std::slice::from_ref(name), |cluster, n| {
                let Some(again) = cluster.again.clone() else {
                    return cluster.fail("restore needs to know how to repeat the run: call Cluster::again".to_owned());
                };
                cluster.restore(n, again(Time(cluster.now.0.saturating_sub(age.as_micros() as u64))));
            }),
            Fault::Reboot(names) => self.each(names, |cluster, n| {
                cluster.crash(n);
                cluster.start(n, None);
                cluster.trace.mark("reboot");
            }),
            Fault::Rewind(name, age) => self.each(std::slice::from_ref(name), |cluster, n| {
                cluster.crash(n);
                let at = Time(cluster.now.0.saturating_sub(age.as_micros() as u64));
                cluster.nodes[n].disk.rewind(at);
                cluster.start(n, None);
                cluster.trace.mark("rewind");
            }),
            _ => {}
        }
    }

    fn strike_clock(&mut self, fault: &Fault) {
        match fault {
            Fault::Jump(name, by) => {
                let n = self.find(name);
                self.nodes[n].clock.jump(*by);
                self.truth.borrow_mut().clock_off(*by);
                self.admissions.borrow_mut().jump(*by, self.now);
                self.trace.mark("jump");
                // If the node waited for a moment that has passed now, it wakes up.
                self.nodes[n].timer_at = self.now;
                self.timer(n);
            }
            Fault::Set(name, by) => {
                let n = self.find(name);
                self.nodes[n].clock.step_wall(*by);
                let unix_ms = self.nodes[n].clock.read(self.now).unix_ms;
                if let Some(process) = &mut self.nodes[n].process {
                    process.cache_seen.clock_set(unix_ms);
                }
                self.truth.borrow_mut().clock_off(std::time::Duration::from_millis(by.unsigned_abs()));
                self.trace.mark("set");
            }
            _ => {}
        }
    }

    fn strike_network(&mut self, fault: &Fault) {
        match fault {
            Fault::Lose(share) => self.conditions.lose = *share,
            Fault::Double(share) => self.conditions.double = *share,
            Fault::Reorder(share) => self.conditions.reorder = *share,
            Fault::Truncate(share) => self.conditions.truncate = *share,
            Fault::Corrupt(share) => {
                self.conditions.corrupt = *share;
                if *share > 0 {
                    self.messages = Messages::Spoilt;
                }
            }
            _ => {}
        }
    }

    fn each(&mut self, labels: &[String], strike: impl Fn(&mut Self, usize)) {
        for label in labels {
            // In a shrunk script a twin may not exist.
            if let Some(n) = self.nodes.iter().position(|node| node.label == *label) {
                strike(self, n);
            }
        }
    }

    /// The nodes of a side. If it names none, all nodes that are not on the other side.
    fn side(&self, labels: &[String], other: &[String]) -> Vec<usize> {
        let named = |label: &String| if labels.is_empty() { !other.contains(label) } else { labels.contains(label) };
        (0..self.nodes.len()).filter(|n| named(&self.nodes[*n].label)).collect()
    }

    fn cut(&mut self, a: &[String], b: &[String], ways: Ways) {
        for from in self.side(a, b) {
            for to in self.side(b, a).into_iter().filter(|to| *to != from) {
                let (pair, direction) = way(from, to);
                let Some(link) = self.links.get_mut(pair) else { continue };
                for (at, way) in link.ways.iter_mut().enumerate() {
                    if ways == Ways::Both || at == direction {
                        way.cut.get_or_insert(self.now);
                    }
                }
                self.trace.mark(if ways == Ways::Both { "cut" } else { "cut one way" });
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        for link in self.links.iter_mut() {
            for way in &mut link.ways {
                way.cut = None;
            }
        }
        self.conditions = self.calm.clone();
        for n in 0..self.nodes.len() {
            self.nodes[n].slow = false;
            self.nodes[n].disk.full = false;
            self.resume(n);
        }
    }

    fn crash(&mut self, n: usize) {
        if self.nodes[n].process.is_some() {
            self.end(n);
            self.trace.mark("crash");
        }
    }

    fn resume(&mut self, n: usize) {
        if !self.nodes[n].stopped {
            return;
        }
        self.nodes[n].stopped = false;
        self.trace.mark("resume");
        // The node received nothing while it was stopped; that does not mean that the others were silent.
        for contact in self.nodes[n].contacts.values_mut() {
            contact.at = self.now;
        }
        self.nodes[n].timer_at = self.now;
        self.timer(n);
        self.take_waiting(n);
    }

    fn leave(&mut self, n: usize) {
        let now = self.nodes[n].read_clock(self.now);
        let at = self.now;
        let node = &mut self.nodes[n];
        let Some(process) = node.process.as_mut().filter(|process| process.leaving.is_none() && !node.stopped) else {
            return;
        };
        self.truth.borrow_mut().leave(process.run);
        process.leaving = Some(at);
        process.service = None;
        for limiter in process.limiters.values() {
            limiter.leave();
            limiter.handle_timeout(now, process.replica.reach(), &process.replica.forgotten());
        }
        process.replica.leave(now);
        process.holds.clear();
        self.trace.mark("leave");
        self.pump(n);
    }

    pub(super) fn renew(&mut self, n: usize) {
        let now = self.nodes[n].read_clock(self.now);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        process.replica.renew(now, tallymesh_schemas::Incarnation(now.unix_ms.0)).expect("runs do not end here");
        self.trace.mark("renew");
        self.pump(n);
    }

    fn forget(&mut self, label: &str, at: &str) {
        let name = self.nodes[self.find(label)].name.clone();
        let n = self.find(at);
        let now = self.nodes[n].read_clock(self.now);
        let Some(process) = self.nodes[n].process.as_mut() else { return };
        let known = process.replica.nodes().find(|(node, ..)| **node == name).map(|(_, incarnation, _)| incarnation);
        let Some(incarnation) = known else { return };
        if process.replica.forget(now, &name) {
            let last = Actor::new(name, incarnation);
            self.truth.borrow_mut().forget(last.clone());
            self.forgotten.insert(last);
            self.trace.mark("forget");
            self.pump(n);
        }
    }
}
