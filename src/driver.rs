//! The driver: the one loop that connects engine and transport. It owns the replication state machine, passes it incoming
//! messages and the time, and sends the outgoing messages over every link that has room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Limiter, Reach};
use tallymesh_engine::replica::{Verification, Verifier};
use tallymesh_engine::{Difference, Life, Now, Replica, Settings, Time};
use tallymesh_schemas::{Bound, Incarnation, NodeName, StructureId, bound, bounds};
use tallymesh_transport::{Endpoint, Event, Events, Gate, Link, LinkId, MemberState};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::admin::Serving;
use crate::clock::Clock;
use crate::command::{ClockStanding, Command, Forgetting, Status};
use crate::events::{Announcer, NodeEvent};
use crate::reached::Bounds;
use crate::report::Reports;
use crate::state::{Outcome, Saving};
use crate::topology::Topology;

/// The most events that the driver handles before it sends the resulting messages.
const BATCH: usize = 256;

/// How long a leaving node waits until its last changes are sent, and again until they are delivered.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stopping node waits for its disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running verification.
#[derive(Debug)]
struct Verifying {
    verifier: Verifier,
    reply: oneshot::Sender<Verification>,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Leave,
    Abort,
}

pub(crate) struct Driver {
    replica: Replica,
    endpoint: Endpoint,
    gate: Gate,
    events: Events,
    commands: mpsc::Receiver<Command>,
    changed: Arc<Notify>,
    clock: Clock,
    admin: Option<Serving>,
    /// The connections to other members.
    links: BTreeMap<NodeName, Link>,
    /// Selects the connections that carry a replication link.
    topology: Topology,
    verifying: Vec<Verifying>,
    incarnation: Incarnation,
    limiters: BTreeMap<StructureId, Arc<Limiter>>,
    settings: Arc<Settings>,
    /// `None` for a node without saved state.
    saving: Option<Saving>,
    /// Counts how often handles and the admin socket reached their bounds.
    tally: Arc<bound::Tally>,
    reports: Reports,
    announcer: Announcer,
    bounds: Bounds,
    /// The last batch of events was full, so more may wait.
    behind: bool,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "called once, by the node that makes all of these")]
    pub(crate) fn new(
        replica: Replica,
        endpoint: Endpoint,
        gate: Gate,
        events: Events,
        commands: mpsc::Receiver<Command>,
        changed: Arc<Notify>,
        clock: Clock,
        admin: Option<Serving>,
        limiters: BTreeMap<StructureId, Arc<Limiter>>,
        settings: Arc<Settings>,
        saving: Option<Saving>,
        topology: Topology,
        announcer: Announcer,
        tally: Arc<bound::Tally>,
    ) -> Self {
        let incarnation = replica.actor().incarnation;
        let (links, verifying) = (BTreeMap::new(), Vec::new());
        let reports = Reports::new(endpoint.advertised());
        Self {
            replica,
            endpoint,
            gate,
            events,
            commands,
            changed,
            clock,
            admin,
            links,
            topology,
            verifying,
            incarnation,
            limiters,
            settings,
            saving,
            tally,
            reports,
            announcer,
            bounds: Bounds::new(),
            behind: false,
        }
    }

    #[tracing::instrument(name = "node", skip_all, fields(node = %self.endpoint.name()))]
    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Some(end) = self.step(None).await {
                break end;
            }
        };
        if let Some(admin) = self.admin.take() {
            admin.close().await;
        }
        match end {
            End::Leave => self.leave().await,
            End::Abort => {
                self.gate.close();
                self.endpoint.close(Duration::ZERO).await;
                if let Some(saving) = self.saving.take() {
                    saving.close(SAVE_TIMEOUT).await;
                }
            }
        }
    }

    /// Waits for one event and handles it with all its consequences. Returns at the latest at `deadline`.
    async fn step(&mut self, deadline: Option<Instant>) -> Option<End> {
        let wake = self.clock.instant(self.next_time()).map(Instant::from_std);
        let wake = [wake, deadline].into_iter().flatten().min();
        let (mut end, mut outcome) = (None, None);
        tokio::select! {
            event = self.events.recv() => match event {
                Some(event) => self.take_events(event),
                None => end = Some(End::Abort),
            },
            () = self.changed.notified() => {}
            command = self.commands.recv() => end = self.handle_command(command),
            done = saved(&mut self.saving) => outcome = Some(done),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        let now = self.clock.now();
        self.relink(now);
        self.limit(now);
        if now.mono >= self.replica.poll_timeout() {
            self.replica.handle_timeout(now);
        } else {
            self.replica.handle_changes(now);
        }
        self.save(now, outcome);
        self.compare(now);
        self.verify(now);
        self.transmit();
        self.report(now);
        end
    }

    /// Lets the limits process incoming rows, if it is time. Runs before changes are released, because limits write changes.
    fn limit(&self, now: Now) {
        self.turn_limits(now, |limiter| limiter.poll_timeout() <= now.mono);
    }

    fn turn_limits(&self, now: Now, due: impl Fn(&Limiter) -> bool) {
        for limiter in self.limiters.values().filter(|limiter| due(limiter)) {
            limiter.handle_timeout(now, self.replica.reach(), &self.replica.forgotten());
            for Difference { node, what, here, there } in limiter.take_differences(now.mono) {
                tracing::warn!(
                    %node, limit = what, here, there,
                    "another node has another configuration of hard limits: make all nodes alike; limits of different \
                     configurations do not mix"
                );
            }
        }
    }

    /// Logs the settings in which other nodes differ.
    fn compare(&self, now: Now) {
        let live = self.replica.nodes().filter(|(.., life)| matches!(life, Life::Alive | Life::Suspect));
        for Difference { node, what, here, there } in self.settings.poll(now.mono, live.map(|(name, ..)| name)) {
            tracing::warn!(%node, what, here, there, "another node has another configuration: make all nodes alike");
        }
    }

    /// Begins and ends replication links over the existing connections.
    fn relink(&mut self, now: Now) {
        let Some(wanted) = self.topology.poll(now.mono, self.links.keys()) else { return };
        let linked: BTreeSet<_> = self.replica.links().cloned().collect();
        for peer in wanted.difference(&linked) {
            self.replica.handle_link_up(now, peer);
        }
        for peer in linked.difference(&wanted) {
            self.reports.unlinked(now, peer);
            self.replica.handle_link_down(peer);
        }
    }

    /// Handles the result of the last save, and starts the next one.
    fn save(&mut self, now: Now, outcome: Option<Outcome>) {
        let Some(saving) = &mut self.saving else { return };
        if let Some(outcome) = outcome {
            saving.handle(outcome, &mut self.replica, now);
        }
        saving.poll(&mut self.replica, now);
    }

    fn next_time(&self) -> Time {
        let again = self.verifying.iter().map(|verifying| verifying.verifier.poll_timeout());
        let limits = self.limiters.values().map(|limiter| limiter.poll_timeout());
        let saving = self.saving.as_ref().map_or(Time::NEVER, Saving::due);
        again
            .chain(limits)
            .chain([self.replica.poll_timeout(), self.settings.poll_timeout(), saving, self.topology.due()])
            .min()
            .unwrap_or(Time::NEVER)
    }

    fn handle_command(&mut self, command: Option<Command>) -> Option<End> {
        let now = self.clock.now();
        match command {
            None => return Some(End::Leave),
            Some(Command::Leave(reply)) => {
                let _ = reply.send(());
                return Some(End::Leave);
            }
            Some(Command::Abort(reply)) => {
                let _ = reply.send(());
                return Some(End::Abort);
            }
            Some(Command::Status(reply)) => {
                let _ = reply.send(self.status());
            }
            Some(Command::Forget { node, reply }) => {
                let _ = reply.send(self.forget(now, &node));
            }
            Some(Command::Verify { patience, reply }) => {
                let verifier = Verifier::new(&mut self.replica, now, patience);
                self.verifying.push(Verifying { verifier, reply });
            }
        }
        None
    }

    fn forget(&mut self, now: Now, node: &NodeName) -> Forgetting {
        if node == self.endpoint.name() {
            return Forgetting::Ourselves;
        }
        let known = self.replica.forget(now, node);
        let member = self.endpoint.members().iter().any(|member| member.name == *node);
        if !known && !member {
            return Forgetting::Unknown;
        }
        self.endpoint.forget(node);
        Forgetting::Done
    }

    fn clock_standing(&self) -> ClockStanding {
        let now = self.clock.now();
        let (bound, windows_ahead) = (self.replica.clock_bound(), self.replica.windows_ahead(now));
        ClockStanding { bound, peers: self.replica.clocks(), windows_ahead }
    }

    fn status(&self) -> Status {
        Status {
            actor: self.replica.actor().clone(),
            nodes: self.replica.members().map(|(name, incarnation, life)| (name.clone(), incarnation, life)).collect(),
            builds: self.links.iter().map(|(name, link)| (name.clone(), link.build().to_owned())).collect(),
            counters: self.replica.counters(),
            bounds: self.bounds.entries(),
            clocks: self.clock_standing(),
        }
    }

    fn take_events(&mut self, first: Event) {
        let now = self.clock.now();
        self.handle_event(now, first);
        self.behind = false;
        for _ in 1..BATCH {
            let Some(event) = self.events.try_recv() else { return };
            self.handle_event(now, event);
        }
        self.behind = true;
    }

    fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::Up(link) => {
                self.replica.handle_hello(now, link.peer(), link.incarnation());
                tracing::debug!(peer = %link.peer(), incarnation = %link.incarnation(), "the driver has a link");
                if self.topology.connected(link.peer()) {
                    self.replica.handle_link_up(now, link.peer());
                } else {
                    // The new connection replaces one that carried a link.
                    self.replica.handle_link_down(link.peer());
                }
                self.announcer.tell(NodeEvent::Linked { node: link.peer().clone() });
                self.links.insert(link.peer().clone(), link);
            }
            Event::Frame { peer, link, payload } => self.handle_frame(now, &peer, link, &payload),
            // `transmit` checks all links for room.
            Event::Writable { .. } => {}
            Event::Down { peer, link, reason, goodbye } => {
                tracing::debug!(%peer, reason, goodbye, "the driver has lost a link");
                if self.links.get(&peer).is_some_and(|current| current.id() == link) {
                    self.disconnected(&peer, reason.to_string());
                }
            }
            Event::Member { name, state, incarnation, addr, teller } => {
                tracing::debug!(member = %name, %state, %incarnation, %addr, "the membership tells of a member");
                // A member that is known only from hearsay does not take part in the overlay.
                let lives = matches!(state, MemberState::Alive | MemberState::Suspect);
                self.topology.member(&name, lives && teller.is_none());
                match teller {
                    Some(teller) => self.replica.handle_introduced(now, &name, incarnation, life(state), &teller),
                    None => self.replica.handle_member(now, &name, incarnation, life(state)),
                }
            }
            Event::Dropped { name } => {
                self.topology.member(&name, false);
                self.replica.handle_dropped(now, &name);
            }
            Event::Superseded { by, peer, addr } => {
                addr.into_iter().for_each(|addr| self.reports.met_rival(addr));
                self.replica.handle_superseded(now, by, &peer);
            }
            Event::Refused { addr, name, reason } => {
                let name = name.map(|name| name.to_string()).unwrap_or_default();
                tracing::debug!(%addr, name, ?reason, "connection refused");
            }
        }
    }

    fn handle_frame(&mut self, now: Now, peer: &NodeName, id: LinkId, payload: &[u8]) {
        let Some(link) = self.links.get(peer).filter(|link| link.id() == id) else { return };
        if !self.topology.takes(now.mono, peer, payload) {
            return;
        }
        if !self.replica.is_linked(peer) {
            self.replica.handle_link_up(now, peer);
        }
        if let Err(error) = self.replica.handle_message(now, peer, payload) {
            self.reports.refused(now, peer, &error);
            link.close(&error.to_string());
            self.disconnected(peer, error.to_string());
        }
    }

    fn disconnected(&mut self, peer: &NodeName, reason: String) {
        self.announcer.tell(NodeEvent::Unlinked { node: peer.clone(), reason });
        self.links.remove(peer);
        self.topology.disconnected(peer);
        self.replica.handle_hangup(peer);
        self.replica.handle_link_down(peer);
    }

    /// Sends waiting messages over every link that has room.
    fn transmit(&mut self) {
        for (peer, link) in &self.links {
            while link.has_room() {
                let mut message = Vec::new();
                if !self.replica.poll_transmit(peer, &mut message) {
                    break;
                }
                if let Err(error) = link.send(message.into()) {
                    // The link is closing. An event reports that.
                    tracing::debug!(%peer, %error, "not sent");
                    break;
                }
            }
        }
    }

    fn verify(&mut self, now: Now) {
        // Read waiting events before a verification counts a member as silent.
        if self.verifying.iter().any(|verifying| verifying.verifier.poll_timeout() <= now.mono)
            && let Some(event) = self.events.try_recv()
        {
            self.take_events(event);
        }
        for mut verifying in std::mem::take(&mut self.verifying) {
            let linked = |name: &NodeName| self.topology.links_to(name);
            if let Some(found) = verifying.verifier.poll(&mut self.replica, now, linked, self.behind) {
                let _ = verifying.reply.send(found);
                continue;
            }
            self.verifying.push(verifying);
        }
    }

    /// Reports events to operators, and a new incarnation of this node to the transport.
    fn report(&mut self, now: Now) {
        while let Some(event) = self.replica.poll_event() {
            let Reach { alive, known, .. } = self.replica.reach();
            self.reports.event(now, &event, (alive, known));
            if let Some(event) = NodeEvent::of(&event) {
                self.announcer.tell(event);
            }
        }
        while let Some(node) = self.replica.poll_forgotten() {
            self.endpoint.forget(&node);
        }
        let (replica, topology) = (&self.replica, &self.topology);
        self.reports.cuts(now, || {
            let lives = replica.nodes().filter(|(_, _, life)| matches!(life, Life::Alive | Life::Suspect));
            let linked = |name: &NodeName| replica.is_linked(name) || !topology.links_to(name);
            lives.map(|(name, ..)| name).filter(|name| !linked(name)).cloned().collect()
        });
        self.reports.summarize(now);
        let (replica, endpoint, limiters, tally) = (&self.replica, &self.endpoint, &self.limiters, &self.tally);
        let settings = &self.settings;
        self.bounds.poll(now, || {
            let limiters = limiters.values().flat_map(|limiter| limiter.bounds());
            [replica.bounds(), endpoint.bounds(), tally.reports(shared_limit), settings.bounds()]
                .into_iter()
                .flatten()
                .chain(limiters)
                .collect()
        });
        let incarnation = self.replica.actor().incarnation;
        if incarnation != self.incarnation {
            self.incarnation = incarnation;
            self.endpoint.renew(incarnation);
        }
    }

    /// Leaves: gives back shares first, so that other nodes need not wait until they expire; then sets counts to zero; then
    /// says goodbye.
    async fn leave(mut self) {
        tracing::info!("leaving");
        self.limiters.values().for_each(|limiter| limiter.leave());
        self.turn_limits(self.clock.now(), |_| true);
        let deadline = Instant::now() + LEAVE_TIMEOUT / 2;
        while self.limiters.values().any(|limiter| !limiter.has_left()) && Instant::now() < deadline {
            self.step(Some(deadline)).await;
        }
        // Limiters that remain would keep sending heartbeats. Leases that were not given back expire.
        self.limiters.clear();
        self.replica.leave(self.clock.now());
        self.transmit();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while !self.replica.has_left() && Instant::now() < deadline {
            self.step(Some(deadline)).await;
        }
        self.endpoint.close(LEAVE_TIMEOUT).await;
        if let Some(saving) = self.saving.take() {
            saving.finish(&mut self.replica, || self.clock.now(), SAVE_TIMEOUT).await;
        }
        tracing::info!("left");
    }
}

/// The value of a bound whose use the handles and the admin socket count.
fn shared_limit(bound: Bound) -> u64 {
    let limit = match bound {
        Bound::WatchedChanges => bounds::WATCHED_CHANGES,
        Bound::AdminStays => bounds::ADMIN_STAYS,
        _ => 0,
    };
    limit as u64
}

/// Waits for the result of the running save; waits for ever if nothing is saved.
async fn saved(saving: &mut Option<Saving>) -> Outcome {
    match saving {
        Some(saving) => saving.done().await,
        None => std::future::pending().await,
    }
}

fn life(state: MemberState) -> Life {
    match state {
        MemberState::Alive => Life::Alive,
        MemberState::Suspect => Life::Suspect,
        MemberState::Dead => Life::Dead,
        MemberState::Left => Life::Left,
    }
}
