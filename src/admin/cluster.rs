//! Requests about the cluster and the node itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tallymesh_engine::replica::{Fault, Finding, NotHeld, Outcome, PeerClock, Verification};
use tallymesh_engine::{Life, Time};
use tallymesh_schemas::admin::{self, Answer};
use tallymesh_schemas::{NodeName, Position, bounds};
use tallymesh_transport::Joining;

use crate::admin::budgets::budgets;
use crate::admin::session::{Refused, Served, Session};
use crate::admin::wire::{self, To};
use crate::certificates::Certificates;
use crate::command::{ClockStanding, Command, Forgetting, Status};
use crate::convergence::Convergence;
use crate::reached;
use crate::shared::Shared;
#[cfg(feature = "state")]
use crate::state::{RolledBack, StateStanding};

/// The longest patience that a client may ask for.
const PATIENCE: Duration = Duration::from_secs(600);

impl Session {
    pub(super) async fn members(&self) -> Result<Answer, Refused> {
        let status = self.ask(Command::Status).await?;
        let us = status.actor.node.clone();
        let members = self.shared().members(&status).into_iter().map(|member| admin::Member {
            state: if member.actor.node == us { "self".to_owned() } else { life_label(member.life).to_owned() },
            node: member.actor.node,
            incarnation: member.actor.incarnation,
            version: member.build,
            addr: member.addr,
            linked: member.linked,
            rtt_us: member.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        });
        Ok(Answer::Members(members.collect()))
    }

    pub(super) async fn info(&self) -> Result<Answer, Refused> {
        let status = self.ask(Command::Status).await?;
        let members = self.shared().members(&status);
        let alive = members.iter().filter(|member| matches!(member.life, Life::Alive | Life::Suspect)).count();
        Ok(Answer::Info(Box::new(admin::Info {
            node: status.actor.node.clone(),
            incarnation: status.actor.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: bounds::PROTOCOL_VERSION,
            listen: self.shared().endpoint.local_addr(),
            advertised: self.shared().endpoint.advertised(),
            uptime_s: self.shared().clock.time().0 / 1_000_000,
            alive: u32::try_from(alive).unwrap_or(u32::MAX),
            links: u32::try_from(members.iter().filter(|member| member.linked).count()).unwrap_or(u32::MAX),
            state: state_info(self.shared()),
            certificate: certificate_info(&self.shared().certificates),
            bounds: status.bounds.iter().map(|entry| bound_info(entry, self.shared().clock.now().unix_ms.0)).collect(),
            clocks: clock_info(&status.clocks),
            convergence: convergence_info(&status.convergence, self.shared().clock.time()),
            counters: counters(self.shared(), &status),
            budgets: budgets(self.shared()),
        })))
    }

    pub(super) async fn forget(&self, node: NodeName) -> Result<(), Refused> {
        let name = node.clone();
        match self.ask(|reply| Command::Forget { node, reply }).await? {
            Forgetting::Done => Ok(()),
            Forgetting::Unknown => {
                Err(Refused::no(format!("nothing is known of {name}: `cluster membership` lists who is")))
            }
            Forgetting::Ourselves => Err(Refused::bad(format!(
                "{name} is the node that you ask, and it cannot forget itself: ask another node"
            ))),
        }
    }

    pub(super) async fn flush(&self, nodes: u32, patience: Duration) -> Result<Answer, Refused> {
        let (nodes, patience) = (nodes as usize, patience.min(PATIENCE));
        let confirmed = self.ask(|reply| Command::Flush { nodes, patience, reply }).await?;
        Ok(Answer::Flushed { position: confirmed.position.to_string(), holders: confirmed.holders })
    }

    pub(super) async fn reach(&self, position: &str, patience: Duration) -> Result<(), Refused> {
        let position: Position = position.parse().map_err(Refused::bad)?;
        let (node, patience) = (position.actor.node.clone(), patience.min(PATIENCE));
        if self.ask(|reply| Command::Reach { position, patience, reply }).await? {
            return Ok(());
        }
        Err(Refused::no(format!("this node does not hold these changes of {node} yet: `verify` says who lags")))
    }

    pub(super) async fn verify(&self, patience: Duration, to: &mut To) -> Served {
        let patience = patience.min(PATIENCE);
        let found = match self.ask(|reply| Command::Verify { patience, reply }).await {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut verified = verified(found, self.shared());
        let findings = std::mem::take(&mut verified.findings);
        wire::write(to, &Answer::Verified(verified)).await?;
        wire::write_pages(to, findings, Answer::Findings).await.map(Ok)
    }
}

/// What the verification in the background has found.
fn convergence_info(convergence: &Convergence, now: Time) -> admin::ConvergenceInfo {
    let outcome = |outcome| match outcome {
        Outcome::Converged => admin::Outcome::Converged,
        Outcome::NotConverged => admin::Outcome::NotConverged,
        Outcome::NotCompared => admin::Outcome::NotCompared,
    };
    let ended = convergence.ended;
    admin::ConvergenceInfo {
        converged: convergence.converged.map(|at| now.since(at.mono)),
        ended: ended.map(|ended| (now.since(ended.at.mono), outcome(ended.outcome))),
        findings: ended.map_or(0, |ended| u32::try_from(ended.findings).unwrap_or(u32::MAX)),
    }
}

/// The status of the saved state.
#[cfg(feature = "state")]
fn state_info(shared: &Shared) -> Option<admin::StateInfo> {
    let StateStanding { saved_ms, age, trouble, rolled_back } = shared.saving.as_ref()?.read(shared.clock.time());
    let rolled_back = rolled_back.map(|RolledBack { restored_ms, last_ms, commits }| admin::RolledBack {
        restored_ms,
        last_ms,
        commits,
    });
    Some(admin::StateInfo { saved_ms, age, trouble, rolled_back })
}

#[cfg(not(feature = "state"))]
fn state_info(_shared: &Shared) -> Option<admin::StateInfo> {
    None
}

fn certificate_info(certificates: &Certificates) -> admin::CertificateInfo {
    let until = certificates.valid_until();
    let since_1970 = until.and_then(|until| until.duration_since(UNIX_EPOCH).ok());
    admin::CertificateInfo {
        valid_until_ms: since_1970.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        left: until.and_then(|until| until.duration_since(SystemTime::now()).ok()).unwrap_or_default(),
        trouble: certificates.trouble(),
    }
}

/// Whether this node has others to join and has no link to any of them yet.
fn searches(shared: &Shared) -> bool {
    matches!(*shared.endpoint.joining().borrow(), Joining::Trying | Joining::Unreachable)
}

/// Converts the result of a verification to the admin protocol.
fn verified(found: Verification, shared: &Shared) -> admin::Verified {
    let alone = searches(shared);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let outcome = match found.outcome() {
        Outcome::NotConverged => admin::Outcome::NotConverged,
        // A node without other members to compare with cannot confirm convergence.
        Outcome::Converged if !alone => admin::Outcome::Converged,
        Outcome::Converged | Outcome::NotCompared => admin::Outcome::NotCompared,
    };
    let finding = |finding: Finding| admin::Finding {
        object: finding.structure.to_string(),
        actor: finding.actor,
        member: finding.member,
        applied: finding.applied,
        head: finding.head,
        fault: match finding.fault {
            Fault::Lags => admin::Fault::Lags,
            Fault::Changes => admin::Fault::Changes,
            Fault::Differs => admin::Fault::Differs,
        },
    };
    let unheld = |unheld| match unheld {
        NotHeld::Run { structure, actor } => admin::Unheld::Run { object: structure.to_string(), actor },
        NotHeld::Node { node } => admin::Unheld::Node { node },
        NotHeld::Unsent { structure } => admin::Unheld::Unsent { object: structure.to_string() },
        NotHeld::NoRoom { structure } => admin::Unheld::NoRoom { object: structure.to_string() },
    };
    admin::Verified {
        outcome,
        alone,
        members: found.members,
        silent: found.silent,
        late: found.late,
        dead: found.dead,
        unlinked: found.unlinked,
        beyond: found.beyond,
        mismatched: found.mismatched.into_iter().map(|(member, name)| (member, name.to_string())).collect(),
        unheld: found.unheld.into_iter().map(unheld).collect(),
        more_unheld: found.more_unheld,
        structures: number(found.structures),
        actors: number(found.actors),
        copies: number(found.copies),
        findings: found.findings.into_iter().map(finding).collect(),
        clocks: found.clocks.iter().map(peer_clock).collect(),
    }
}

fn bound_info((bound, place, reached): &reached::Entry, unix_ms: u64) -> admin::BoundInfo {
    let ago = |at_ms| Duration::from_millis(unix_ms.saturating_sub(at_ms));
    admin::BoundInfo {
        name: bound.name().to_owned(),
        object: place.clone(),
        limit: reached.limit,
        times: reached.times,
        first: ago(reached.first_ms),
        last: ago(reached.last_ms),
        effect: bound.effect().to_owned(),
    }
}

fn life_label(life: Life) -> &'static str {
    match life {
        Life::Alive => "alive",
        Life::Suspect => "suspect",
        Life::Dead => "dead",
        Life::Left => "left",
    }
}

fn clock_info(clocks: &ClockStanding) -> admin::ClockInfo {
    let ClockStanding { bound, peers, windows_ahead } = clocks;
    admin::ClockInfo { bound: *bound, windows_ahead: *windows_ahead, peers: peers.iter().map(peer_clock).collect() }
}

fn peer_clock(clock: &PeerClock) -> admin::PeerClock {
    admin::PeerClock { node: clock.peer.clone(), ahead_ms: clock.ahead_ms, beyond: clock.beyond }
}

fn counters(shared: &Shared, status: &Status) -> Vec<(String, u64)> {
    let engine = &status.counters;
    let transport = shared.endpoint.counters();
    let mut list = vec![
        ("deltas_out", engine.deltas_out),
        ("deltas_in", engine.deltas_in),
        ("row_bytes_out", engine.row_bytes_out),
        ("row_bytes_in", engine.row_bytes_in),
        ("gaps", engine.gaps),
        ("wants_out", engine.wants_out),
        ("grafts_out", engine.grafts_out),
        ("digests_out", engine.digests_out),
        ("divergences", engine.divergences),
        ("snapshots_taken", engine.replaced),
        ("conflicts", engine.conflicts),
        ("conflicts_delayed", engine.claims_delayed),
        ("conflicts_refused", engine.claims_refused),
        ("messages_refused", engine.refused),
        ("deltas_unasked", engine.unasked),
        ("deltas_ahead", engine.ahead),
        ("gauges_below_zero", engine.below_zero),
        ("totals_full", engine.totals_full),
        ("keys_refused", engine.keys_refused),
        ("deltas_without_room", engine.deltas_without_room),
        ("clock_steps", engine.clock_steps),
        ("clocks_off", engine.clocks_off),
    ];
    list.push(("connections_refused", transport.refused_total()));
    list.push(("address_proofs_asked", transport.retries));
    list.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
}
