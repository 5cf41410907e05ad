//! The driver: the one loop that connects engine and transport. It owns the replication state machine, passes it incoming
//! messages and the time, and sends the outgoing messages over every link that has room.

mod background;
mod commands;
mod events;
mod listener;
mod reload;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Limiter, Reach};
use tallymesh_engine::replica::{Backlog, Verification, Verifier};
use tallymesh_engine::{Difference, Life, Now, Replica, Settings, Time, Wake};
use tallymesh_schemas::{Bound, Incarnation, NodeName, StructureId, bound, bounds};
use tallymesh_transport::{Endpoint, Event, Events, Gate, Link};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::admin;
use crate::clock::Clock;
use crate::command::Command;
use crate::configuration::Declared;
use crate::driver::background::Background;
use crate::driver::waits::Waits;
use crate::events::{Announcer, NodeEvent};
use crate::http;
#[cfg(feature = "http")]
use crate::http::Facts;
use crate::reached::Bounds;
use crate::report::Reports;
use crate::set_log::SetLog;
use crate::shared::Shared;
use crate::state::{Outcome, Saving};
use crate::topology::Topology;
#[cfg(feature = "http")]
use crate::work::Work;

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

/// What a step of the loop begins with.
enum Input {
    Event(Option<Event>),
    Command(Option<Command>),
    Saved(Outcome),
    /// Handles have changed something, or it is time.
    Due,
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
    admin: Option<admin::Serving>,
    http: Option<http::Serving>,
    /// The connections to other members.
    links: BTreeMap<NodeName, Link>,
    /// Selects the connections that carry a replication link.
    topology: Topology,
    verifying: Vec<Verifying>,
    /// The verification in the background.
    background: Background,
    /// Callers who wait for changes to reach other nodes, or this one.
    waits: Waits,
    incarnation: Incarnation,
    limiters: BTreeMap<StructureId, Arc<Limiter>>,
    settings: Arc<Settings>,
    /// `None` for a node without saved state.
    saving: Option<Saving>,
    /// Counts how often handles, the admin socket and the HTTP listener reached their bounds.
    tally: Arc<bound::Tally>,
    reports: Reports,
    announcer: Announcer,
    /// Watches the files of the certificate.
    certificates: JoinHandle<()>,
    shared: Arc<Shared>,
    /// For the HTTP listener.
    #[cfg(feature = "http")]
    sender: mpsc::WeakSender<Command>,
    #[cfg(feature = "http")]
    facts: Facts,
    /// The configuration that the node runs with.
    running: Declared,
    set_log: Option<SetLog>,
    bounds: Bounds,
    /// The last batch of events was full, so more may wait.
    behind: bool,
    #[cfg(feature = "http")]
    work: Work,
}

/// What a driver connects.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) endpoint: Endpoint,
    pub(crate) gate: Gate,
    pub(crate) events: Events,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Notified when handles have changed something.
    pub(crate) changed: Arc<Notify>,
    pub(crate) clock: Clock,
    pub(crate) admin: Option<admin::Serving>,
    pub(crate) http: Option<http::Serving>,
    pub(crate) limiters: BTreeMap<StructureId, Arc<Limiter>>,
    pub(crate) settings: Arc<Settings>,
    /// `None` for a node without saved state.
    pub(crate) saving: Option<Saving>,
    pub(crate) topology: Topology,
    pub(crate) announcer: Announcer,
    /// Watches the files of the certificate.
    pub(crate) certificates: JoinHandle<()>,
    /// Counts how often handles, the admin socket and the HTTP listener reached their bounds.
    pub(crate) tally: Arc<bound::Tally>,
    pub(crate) shared: Arc<Shared>,
    #[cfg(feature = "http")]
    pub(crate) sender: mpsc::WeakSender<Command>,
    #[cfg(feature = "http")]
    pub(crate) facts: Facts,
    pub(crate) running: Declared,
    pub(crate) set_log: Option<SetLog>,
}

/// A wake that notifies the driver of changes.
pub(crate) fn wake(changed: &Arc<Notify>) -> Wake {
    let changed = Arc::clone(changed);
    Arc::new(move || changed.notify_one())
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            incarnation: parts.replica.actor().incarnation,
            reports: Reports::new(parts.endpoint.advertised()),
            background: Background::new(parts.clock.time(), parts.replica.actor()),
            replica: parts.replica,
            endpoint: parts.endpoint,
            gate: parts.gate,
            events: parts.events,
            commands: parts.commands,
            changed: parts.changed,
            clock: parts.clock,
            admin: parts.admin,
            http: parts.http,
            links: BTreeMap::new(),
            topology: parts.topology,
            verifying: Vec::new(),
            waits: Waits::default(),
            limiters: parts.limiters,
            settings: parts.settings,
            saving: parts.saving,
            tally: parts.tally,
            announcer: parts.announcer,
            certificates: parts.certificates,
            shared: parts.shared,
            #[cfg(feature = "http")]
            sender: parts.sender,
            #[cfg(feature = "http")]
            facts: parts.facts,
            running: parts.running,
            set_log: parts.set_log,
            bounds: Bounds::new(),
            behind: false,
            #[cfg(feature = "http")]
            work: Work::default(),
        }
    }

    #[tracing::instrument(name = "node", skip_all, fields(node = %self.endpoint.name()))]
    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Some(end) = self.step(None).await {
                break end;
            }
        };
        self.certificates.abort();
        // The only error is that it was aborted.
        let _ = (&mut self.certificates).await;
        if let Some(admin) = self.admin.take() {
            admin.close().await;
        }
        if let Some(http) = self.http.take() {
            http.close().await;
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
        let input = tokio::select! {
            event = self.events.recv() => Input::Event(event),
            () = self.changed.notified() => Input::Due,
            command = self.commands.recv() => Input::Command(command),
            done = saved(&mut self.saving) => Input::Saved(done),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Input::Due,
        };
        #[cfg(feature = "http")]
        let began = self.clock.time();
        let (mut end, mut outcome) = (None, None);
        match input {
            Input::Event(Some(event)) => self.take_events(event),
            Input::Event(None) => end = Some(End::Abort),
            Input::Command(command) => end = self.handle_command(command),
            Input::Saved(done) => outcome = Some(done),
            Input::Due => {}
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
        self.waits.poll(&mut self.replica, now);
        self.transmit();
        self.report(now);
        #[cfg(feature = "http")]
        self.work.note_step(self.clock.time().since(began));
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
        for Difference { node, what, here, there } in self.settings.poll(now.mono) {
            tracing::warn!(%node, what, here, there, "another node has another configuration: make all nodes alike");
        }
    }

    /// Begins and ends replication links over the existing connections.
    fn relink(&mut self, now: Now) {
        let Some(wanted) = self.topology.poll(now.mono, self.links.keys()) else { return };
        let linked: BTreeSet<_> = self.replica.links().cloned().collect();
        for peer in wanted.difference(&linked) {
            self.link_up(now, peer);
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
            .chain([self.waits.due(), self.background.due()])
            .min()
            .unwrap_or(Time::NEVER)
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
        let is_due = |due: Time| due <= now.mono;
        if (self.verifying.iter().any(|verifying| is_due(verifying.verifier.poll_timeout()))
            || is_due(self.background.due()))
            && let Some(event) = self.events.try_recv()
        {
            self.take_events(event);
        }
        let linked = |name: &NodeName| self.topology.links_to(name);
        let backlog = if self.behind { Backlog::Waiting } else { Backlog::Empty };
        for mut verifying in std::mem::take(&mut self.verifying) {
            if let Some(found) = verifying.verifier.poll(&mut self.replica, now, linked, backlog) {
                #[cfg(feature = "http")]
                self.work.verified.note(&found);
                self.background.note(now, &found);
                let _ = verifying.reply.send(found);
                continue;
            }
            self.verifying.push(verifying);
        }
        let found = self.background.poll((&mut self.replica, now), linked, backlog, || self.clock.time());
        if let Some(found) = found {
            #[cfg(feature = "http")]
            self.work.verified.note(&found.verification);
            for finding in found.differences {
                self.reports.difference(&finding);
                self.announcer.tell(NodeEvent::differs(finding));
            }
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

/// The value of a bound whose use the handles, the admin socket and the HTTP listener count.
fn shared_limit(bound: Bound) -> u64 {
    let limit = match bound {
        Bound::WatchedChanges => bounds::WATCHED_CHANGES,
        Bound::AdminStays => bounds::ADMIN_STAYS,
        Bound::HttpConnections => bounds::HTTP_CONNECTIONS,
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
