//! Links and a failure detector, in a simple form that gives the same guarantees as the real ones.

use tallymesh_engine::{Life, Time};
use tallymesh_schemas::{Incarnation, NodeName};

use super::{Cluster, Event};
use crate::network::way;
use crate::node::{Contact, Node};

impl Cluster {
    pub(crate) fn tick(&mut self) {
        self.schedule(self.now.after(self.timing.tick), Event::Tick);
        if self.nodes.len() > self.timing.mesh {
            // A node that knows no others would want a link to every node.
            self.detect_all();
        }
        for pair in self.links.pairs() {
            self.tend(pair);
        }
        if self.nodes.len() <= self.timing.mesh {
            self.detect_all();
        }
        self.end_leavers();
    }

    fn detect_all(&mut self) {
        for n in 0..self.nodes.len() {
            self.detect(n);
            let Node { overlay, contacts, .. } = &mut self.nodes[n];
            overlay.update(contacts.iter().filter(|(_, contact)| contact.life != Life::Dead).map(|(name, _)| name));
        }
    }

    /// Whether at least one end should have a link to the other.
    fn is_wanted(&self, (a, b): (usize, usize)) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.overlay.links_to(&b.name) || b.overlay.links_to(&a.name)
    }

    /// Closes a link whose other end is silent, and opens one that can be open.
    fn tend(&mut self, pair: (usize, usize)) {
        let now = self.now;
        let working = self.nodes[pair.0].is_working() && self.nodes[pair.1].is_working();
        let wanted = self.is_wanted(pair);
        let Some(link) = self.links.get_mut(pair) else { return };
        let cut = link.ways.iter().filter_map(|way| way.cut).min();
        if link.up {
            link.silent = if working { None } else { link.silent.or(Some(now)) };
            link.unwanted = if wanted { None } else { link.unwanted.or(Some(now)) };
            let silent = [link.silent, cut].into_iter().flatten().min();
            if silent.is_some_and(|since| now.since(since) >= self.timing.idle_timeout) {
                self.close(pair, "it was silent");
            } else if link.unwanted.is_some_and(|since| now.since(since) >= self.timing.idle_timeout) {
                self.trace.mark("link not needed");
                self.close(pair, "neither end needs it");
            }
        } else if wanted && working && cut.is_none() && now >= link.retry_at && self.vacant(pair.0, pair.1) {
            self.open(pair);
        }
    }

    /// Whether neither name has a link to the other: there is one link for each name.
    fn vacant(&self, a: usize, b: usize) -> bool {
        let taken = |end: usize, other: usize| {
            (0..self.nodes.len()).any(|n| {
                n != other
                    && self.nodes[n].name == self.nodes[other].name
                    && n != end
                    && self.links.get(way(end, n).0).is_some_and(|link| link.up)
            })
        };
        self.nodes[a].name != self.nodes[b].name && !taken(a, b) && !taken(b, a)
    }

    fn open(&mut self, pair: (usize, usize)) {
        let Some(link) = self.links.get_mut(pair) else { return };
        link.up = true;
        link.generation += 1;
        (link.silent, link.unwanted) = (None, None);
        for way in &mut link.ways {
            (way.in_flight, way.last) = (0, Time(0));
        }
        let (a, b) = pair;
        self.nodes[a].linked.insert(b);
        self.nodes[b].linked.insert(a);
        self.trace.mark("link up");
        self.trace.note(self.now, &[b"up", &[a as u8, b as u8]], || {
            format!("{} - {}: link up", self.nodes[a].label, self.nodes[b].label)
        });
        for (end, other) in [(a, b), (b, a)] {
            let now = self.nodes[end].read_clock(self.now);
            let peer = self.nodes[other].name.clone();
            let run = self.nodes[other].process.as_ref().map(|process| process.replica.actor().incarnation);
            run.iter().for_each(|run| self.hello(end, other, *run));
            if let Some(process) = &mut self.nodes[end].process {
                process.replica.handle_link_up(now, &peer);
            }
        }
        self.pump(a);
        self.pump(b);
    }

    pub(crate) fn close(&mut self, pair: (usize, usize), why: &str) {
        let retry_at = self.now.after(self.network_random.duration(self.timing.retry / 2, self.timing.retry));
        let Some(link) = self.links.get_mut(pair).filter(|link| link.up) else { return };
        link.up = false;
        link.silent = None;
        link.retry_at = retry_at;
        let (a, b) = pair;
        self.nodes[a].linked.remove(&b);
        self.nodes[b].linked.remove(&a);
        self.trace.mark("link down");
        self.trace.note(self.now, &[b"down", &[a as u8, b as u8]], || {
            format!("{} - {}: link down, {why}", self.nodes[a].label, self.nodes[b].label)
        });
        for (end, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].name.clone();
            self.nodes[end].waiting.retain(|message| message.from != other);
            if let Some(process) = &mut self.nodes[end].process {
                process.replica.handle_link_down(&peer);
            }
        }
        self.pump(a);
        self.pump(b);
    }

    /// Closes all links of a node.
    pub(crate) fn hang_up(&mut self, n: usize) {
        for pair in self.links.pairs().filter(|(a, b)| *a == n || *b == n) {
            self.close(pair, "its process is another one");
        }
    }

    /// Whether a message from `from` arrives at `to`, and both processes run to send and read it.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let (pair, direction) = way(from, to);
        let open = self.links.get(pair).is_some_and(|link| link.ways[direction].cut.is_none());
        open && self.nodes[from].is_working() && self.nodes[to].is_working()
    }

    /// Whether `n` gets news of `other`, directly or through another node, in both directions: membership asks and is answered.
    pub(super) fn in_contact(&self, n: usize, other: usize) -> bool {
        let both = |a: usize, b: usize| self.reaches(a, b) && self.reaches(b, a);
        both(n, other) || (0..self.nodes.len()).any(|by| by != n && by != other && both(n, by) && both(by, other))
    }

    fn detect(&mut self, n: usize) {
        if !self.nodes[n].is_working() {
            return;
        }
        self.greet(n);
        let mut heard: Vec<(NodeName, Incarnation)> = Vec::new();
        for other in 0..self.nodes.len() {
            let node = &self.nodes[other];
            if other != n && node.name != self.nodes[n].name && self.in_contact(n, other) {
                let Some(process) = node.process.as_ref().filter(|process| process.leaving.is_none()) else { continue };
                heard.push((node.name.clone(), process.replica.actor().incarnation));
            }
        }
        let now = self.now;
        for (name, incarnation) in heard {
            let new = Contact { at: now, incarnation, life: Life::Alive };
            let contact = self.nodes[n].contacts.entry(name.clone()).or_insert(Contact { life: Life::Dead, ..new });
            contact.at = now;
            if contact.life != Life::Alive || contact.incarnation < incarnation {
                (contact.life, contact.incarnation) = (Life::Alive, incarnation.max(contact.incarnation));
                let incarnation = contact.incarnation;
                self.tell_member(n, &name, incarnation, Life::Alive);
            }
        }
        let timing = &self.timing;
        let silent = self.nodes[n].contacts.iter_mut().filter_map(|(name, contact)| {
            let silent = now.since(contact.at);
            let life = match () {
                () if silent >= timing.dead_after => Life::Dead,
                () if silent >= timing.suspect_after => Life::Suspect,
                () => return None,
            };
            let news = contact.life != life && contact.life != Life::Dead;
            contact.life = life;
            news.then(|| (name.clone(), contact.incarnation, life))
        });
        let silent: Vec<_> = silent.collect();
        for (name, incarnation, life) in silent {
            self.tell_member(n, &name, incarnation, life);
        }
    }

    pub(super) fn tell_member(&mut self, n: usize, name: &NodeName, incarnation: Incarnation, life: Life) {
        let now = self.nodes[n].read_clock(self.now);
        self.trace.mark(match life {
            Life::Alive => "member alive",
            Life::Suspect => "member suspect",
            Life::Dead => "member dead",
            Life::Left => "member left",
        });
        if let Some(process) = &mut self.nodes[n].process {
            process.replica.handle_member(now, name, incarnation, life);
        }
        self.pump(n);
    }

    /// A leaving node ends when its goodbye has arrived at all nodes, or when its time is up.
    fn end_leavers(&mut self) {
        for n in 0..self.nodes.len() {
            let Some(process) = self.nodes[n].process.as_ref() else { continue };
            let Some(since) = process.leaving else { continue };
            let under_way = (0..self.nodes.len()).filter(|other| *other != n).any(|other| {
                let (pair, direction) = way(n, other);
                self.links.get(pair).is_some_and(|link| link.up && link.ways[direction].in_flight > 0)
            });
            let told = process.replica.has_left() && !under_way;
            if told {
                self.trace.mark("left in peace");
            }
            if told || self.now.since(since) >= self.timing.leave_within {
                self.end(n);
                self.hang_up(n);
            }
        }
    }
}
