//! The mesh: the one task that decides which links stay, which addresses to dial, and what to report to the membership.

pub(crate) mod input;
mod links;
pub(crate) mod plan;
mod search;
mod settle;
mod shutdown;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::Bound;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use crate::closing::code::Code;
use crate::closing::ending::{Ending, Failure};
use crate::counters::Refusal;
use crate::counters::count;
use crate::dial::Dialer;
use crate::identity::Identity;
use crate::inbox::Inbox;
use crate::link::{Link, LinkId};
use crate::member::Joining;
use crate::membership::protocol::{DatagramError, Membership, MembershipEvent};
use crate::mesh::input::Input;
use crate::mesh::plan::{Origin, Plan, Task};
use crate::mesh::search::Search;
use crate::mesh::settle::Candidate;
use crate::notices::SeenMember;
use crate::shared::{KnownMember, Shared};
use crate::tls::TlsError;

/// Commands from the endpoint's handles.
#[derive(Debug)]
pub(crate) enum Command {
    Renew(Incarnation),
    Forget(NodeName),
    SetSeeds(Vec<String>),
    UseIdentity { identity: Box<Identity>, done: oneshot::Sender<Result<(), TlsError>> },
    Close { within: Duration, done: oneshot::Sender<()> },
}

/// The mesh and its tasks.
pub(crate) struct Mesh {
    pub(crate) shared: Arc<Shared>,
    pub(crate) dialer: Dialer,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) inbox: Inbox,
    pub(crate) membership: Box<dyn Membership>,
    pub(crate) plan: Plan,
    pub(crate) start: Instant,
    pub(crate) state: State,
}

/// The mesh's state while it runs.
#[derive(Default)]
pub(crate) struct State {
    links: BTreeMap<NodeName, Live>,
    by_id: BTreeMap<LinkId, NodeName>,
    /// Each one resolves when the latest link of its name has been reported down.
    tails: BTreeMap<NodeName, oneshot::Receiver<()>>,
    last_id: u64,
    search: Search,
    /// The sender of the membership datagram that was read last.
    datagram_from: Option<NodeName>,
    sessions: JoinSet<()>,
    tasks: JoinSet<()>,
}

struct Live {
    link: Link,
    candidate: Candidate,
    since: Duration,
}

impl Mesh {
    /// Runs until the endpoint is closed or all its handles are dropped.
    pub(crate) async fn run(mut self) {
        let acceptor =
            crate::accept::accept(Arc::clone(&self.shared), self.dialer.endpoint.clone(), self.dialer.mesh.clone());
        self.state.tasks.spawn(acceptor.in_current_span());
        loop {
            self.pump();
            let timeout = self.timeout();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Renew(incarnation)) => self.renew(incarnation),
                    Some(Command::Forget(name)) => self.forget(&name),
                    Some(Command::SetSeeds(seeds)) => self.plan.set_seeds(self.now(), seeds),
                    Some(Command::UseIdentity { identity, done }) => {
                        // An error means that the caller no longer waits.
                        let _ = done.send(self.use_identity(*identity));
                    }
                    Some(Command::Close { within, done }) => {
                        self.leave(within).await;
                        // An error means that the caller no longer waits.
                        let _ = done.send(());
                        return;
                    }
                    None => return self.abandon().await,
                },
                Some(input) = self.inputs.recv() => self.handle(input),
                () = sleep_until(timeout) => self.membership.handle_timeout(self.now()),
                Some(_) = self.state.sessions.join_next(), if !self.state.sessions.is_empty() => self.sweep(),
                Some(_) = self.state.tasks.join_next(), if !self.state.tasks.is_empty() => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn timeout(&self) -> Option<Instant> {
        let search = self.state.search.timeout().filter(|at| *at > self.now());
        let next = self.membership.poll_timeout().into_iter().chain(self.plan.timeout()).chain(search).min();
        let next = next.map(|next| self.start + next);
        next.into_iter().chain(self.shared.reports.due().map(Instant::from_std)).min()
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Greeted { greeted, origin } => self.greeted(*greeted, &origin),
            Input::Failed { origin, addr, failure } => self.failed(&origin, addr, &failure),
            Input::Resolved { seed, addrs } => {
                let addrs = addrs.unwrap_or_else(|why| {
                    self.plan.seed_trouble(seed, &why);
                    Vec::new()
                });
                self.plan.resolved(self.now(), seed, addrs);
            }
            Input::Datagram { link, data } => self.datagram(link, &data),
            Input::Ended { link, ending } => self.ended(&link, &ending),
        }
    }

    /// Does everything that is due.
    fn pump(&mut self) {
        while let Some((to, data)) = self.membership.poll_transmit() {
            let Some(live) = self.state.links.get(&to) else { continue };
            match live.link.conn().send_datagram(data) {
                Ok(()) => count(&self.shared.tally.datagrams_out, 1),
                Err(error) => tracing::debug!(peer = %to, %error, "a membership datagram was not sent"),
            }
        }
        let unlinked = self.membership.unreachable();
        self.shared.tally.datagrams_unlinked.store(unlinked, std::sync::atomic::Ordering::Relaxed);
        while let Some(event) = self.membership.poll_event() {
            self.member(event);
        }
        while let Some(task) = self.plan.poll(self.now()) {
            self.spawn(task);
        }
        self.search();
        self.shared.reports.poll();
    }

    /// Reports whether this node has joined others, and logs warnings while it cannot.
    fn search(&mut self) {
        let now = self.now();
        let (joining, warning) = if self.state.links.is_empty() {
            self.state.search.without_links(now, &self.plan)
        } else {
            self.state.search.linked(now);
            (Joining::Linked, None)
        };
        self.shared.joining.send_if_modified(|known| std::mem::replace(known, joining) != joining);
        if let Some(warning) = warning {
            tracing::warn!(
                node = %self.shared.name, tried = warning.tried, alone_for = ?warning.alone,
                "this node has not joined its cluster: no seed leads to another node; it counts alone and keeps trying"
            );
        }
    }

    fn spawn(&mut self, task: Task) {
        let dialer = self.dialer.clone();
        match task {
            Task::Resolve { seed, host } => {
                self.state.tasks.spawn(dialer.resolve(seed, host).in_current_span());
            }
            Task::Seed { seed, addr } => {
                let span = tracing::debug_span!("dial", %addr);
                self.state.tasks.spawn(dialer.dial(addr, None, Origin::Seed { seed, addr }).instrument(span));
            }
            Task::Member { name, addr } => {
                let span = tracing::debug_span!("dial", %addr, peer = %name);
                let origin = Origin::Member(name.clone());
                self.state.tasks.spawn(dialer.dial(addr, Some(name), origin).instrument(span));
            }
        }
    }

    fn member(&mut self, event: MembershipEvent) {
        match event {
            MembershipEvent::Changed { peer, state, introduced_by } => {
                tracing::info!(peer = %peer.name, addr = %peer.addr, incarnation = %peer.incarnation, %state, "member");
                self.plan.member(self.now(), &peer.name, peer.addr, state);
                let mut members = self.shared.members.lock();
                let before = members.get_mut(&peer.name).map(|known| (known.met, known.link.take()));
                let (met, link) = before.unwrap_or_default();
                let (addr, incarnation) = (peer.addr, peer.incarnation);
                members.insert(peer.name.clone(), KnownMember { addr, incarnation, state, met, link });
                drop(members);
                self.shared.notices.member(peer.name, SeenMember { state, incarnation, addr, introduced_by });
            }
            MembershipEvent::Dropped(name) => {
                if !self.state.links.contains_key(&name) {
                    self.plan.forget(&name);
                    self.shared.members.lock().remove(&name);
                    self.shared.notices.dropped(name);
                }
            }
            MembershipEvent::Superseded { by, addr } => {
                if let Some(from) = &self.state.datagram_from {
                    self.superseded(by, from, addr);
                }
            }
        }
    }

    /// Reports that `peer` knows a later run of this name, or that another process has proven to be such a run.
    fn superseded(&self, by: Incarnation, peer: &NodeName, addr: Option<SocketAddr>) {
        if by >= self.shared.incarnation() {
            self.shared.notices.superseded(by, peer, addr);
        }
    }

    fn datagram(&mut self, link: LinkId, data: &[u8]) {
        let Some(peer) = self.state.by_id.get(&link).cloned() else { return };
        self.state.datagram_from = Some(peer.clone());
        if let Err(error) = self.membership.handle_datagram(self.now(), &peer, data) {
            count(&self.shared.tally.datagrams_bad, 1);
            if matches!(error, DatagramError::Full) {
                self.shared.tally.bounds.reached(Bound::Members);
            }
            tracing::debug!(%peer, %error, "a membership datagram was dropped");
        }
        self.shared.tally.bounds.reached_times(Bound::Introduced, self.membership.take_not_introduced());
    }

    /// A connection did not become a link. Only a statement of a node of the cluster has further effects.
    fn failed(&mut self, origin: &Origin, addr: SocketAddr, failure: &Failure) {
        let dialed = *origin != Origin::Incoming;
        let has_met = failure.has_met(&self.shared.name);
        count(&self.shared.tally.dials_failed, usize::from(dialed && !has_met));
        match failure {
            Failure::Unproven(unproven) => {
                self.log_failure(addr, None, unproven.refusal, &unproven.reason);
                self.plan.trouble(origin, &unproven.reason);
                self.plan.ended(self.now(), origin, None);
            }
            Failure::Proven { peer, ending } => {
                self.log_failure(addr, Some(peer), ending.refusal, &ending.reason);
                self.plan.trouble(origin, &ending.reason);
                if let Some(by) = ending.superseded {
                    self.superseded(by, peer, None);
                }
                if let Origin::Member(member) = origin
                    && member != peer
                {
                    self.plan.wrong_name(member);
                }
                self.plan.ended(self.now(), origin, Some(peer).filter(|_| has_met));
            }
        }
    }

    fn log_failure(&self, addr: SocketAddr, peer: Option<&NodeName>, refusal: Option<Refusal>, reason: &str) {
        match refusal {
            Some(refusal) => self.shared.refuse(addr, peer, refusal, reason),
            None => tracing::debug!(%addr, peer = peer.map(tracing::field::display), reason, "a dial failed"),
        }
    }

    fn renew(&mut self, incarnation: Incarnation) {
        if incarnation <= self.shared.incarnation() {
            tracing::warn!(now = %self.shared.incarnation(), asked = %incarnation, "a renewed run needs a higher incarnation");
            return;
        }
        if let Err(error) = incarnation.checked() {
            tracing::error!(%error, "this node stays in its run");
            return;
        }
        tracing::debug!(node = %self.shared.name, %incarnation, "this node continues as a new run");
        self.shared.renew(incarnation);
        let now = self.now();
        self.membership.renew(now, incarnation);
        // The links belong to the previous run. Each peer learns of the new run when it links again, which happens at once.
        for live in self.state.links.values() {
            live.link.end(Code::Renewed, Ending::local("this node continues as a new run"), "renewed");
        }
        self.plan.hurry(now);
    }

    fn forget(&mut self, name: &NodeName) {
        tracing::info!(peer = %name, "forgotten");
        self.membership.forget(self.now(), name);
        self.plan.forget(name);
        if let Some(live) = self.state.links.get(name) {
            live.link.end(Code::Closed, Ending::local("forgotten"), "forgotten");
        }
        self.shared.members.lock().remove(name);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
