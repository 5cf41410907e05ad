//! Reads the figures of a node for one scrape.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use tallymesh_engine::Life;
use tallymesh_engine::replica::{Fault, Outcome};
use tallymesh_schemas::{NodeName, bounds};
use tallymesh_transport::{Counters as TransportCounters, Refusal};

use crate::command::{ClockStanding, Status};
use crate::metrics::definition::Metric;
use crate::metrics::figures::Figures;
use crate::metrics::objects::Behind;
use crate::metrics::{limits, objects};
use crate::shared::Shared;

/// What the figures of a node are read from, apart from what its handles share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// What the driver knows.
    pub(crate) status: &'a Status,
    /// The conditions of readiness, by name.
    pub(crate) conditions: &'a [(&'static str, bool)],
    /// Commands that wait for the driver.
    pub(crate) commands: usize,
    /// Requests that the HTTP listener has answered: route, code and how many.
    pub(crate) requests: &'a [(&'static str, u16, u64)],
    /// Connections of the HTTP listener.
    pub(crate) connections: usize,
}

/// Reads all figures. Takes each object's locks for reading, one after the other.
pub(crate) fn gather(shared: &Shared, sources: &Sources<'_>) -> Figures {
    let mut figures = Figures::default();
    of_node(&mut figures, shared, sources);
    of_cluster(&mut figures, shared, sources.status);
    of_replication(&mut figures, sources.status);
    let behind = objects::gather(&mut figures, shared);
    of_peers(&mut figures, shared, sources.status, &behind);
    limits::gather(&mut figures, shared);
    of_state(&mut figures, shared);
    figures
}

fn of_node(figures: &mut Figures, shared: &Shared, sources: &Sources<'_>) {
    let Sources { status, conditions, commands, requests, connections } = sources;
    let protocol = bounds::PROTOCOL_VERSION.to_string();
    figures.info(Metric::Build, &[status.actor.node.as_str(), env!("CARGO_PKG_VERSION"), &protocol]);
    figures.float(Metric::Uptime, &[], shared.clock.time().0 as f64 / 1e6);
    for (condition, holds) in *conditions {
        figures.whole(Metric::Ready, &[condition], u64::from(*holds));
    }
    if let Some(since) = shared.certificates.valid_until().and_then(|until| until.duration_since(UNIX_EPOCH).ok()) {
        figures.time(Metric::CertificateExpiry, &[], since);
    }
    if let Some(converged) = status.convergence.converged {
        figures.time(Metric::Converged, &[], Duration::from_millis(converged.unix_ms.0));
    }
    figures.count(Metric::ConfigurationDifferences, &[], shared.differences().len());
    for (bound, object, reached) in &status.bounds {
        figures.whole(Metric::BoundReached, &[bound.name(), object.as_deref().unwrap_or("")], reached.times);
    }
    for (used, most, of) in [
        (Metric::Keys, Metric::KeysMaximum, shared.budget.keys()),
        (Metric::Content, Metric::ContentMaximum, shared.budget.bytes()),
    ] {
        figures.whole(used, &[], of.used);
        of.max.into_iter().for_each(|max| figures.whole(most, &[], max));
    }
    for (route, code, count) in *requests {
        figures.whole(Metric::HttpRequests, &[route, &code.to_string()], *count);
    }
    figures.count(Metric::HttpConnections, &[], *connections);
    let work = &status.work;
    figures.spread(Metric::DriverStep, &[], work.steps.clone());
    figures.count(Metric::EventsWaiting, &[], work.events_waiting);
    figures.count(Metric::CommandsWaiting, &[], *commands);
}

fn of_cluster(figures: &mut Figures, shared: &Shared, status: &Status) {
    let members = shared.members(status);
    for (state, life) in
        [("alive", Life::Alive), ("suspect", Life::Suspect), ("dead", Life::Dead), ("left", Life::Left)]
    {
        figures.count(Metric::Members, &[state], members.iter().filter(|member| member.life == life).count());
    }
    figures.count(Metric::Links, &[], members.iter().filter(|member| member.linked).count());
    let transport = shared.endpoint.counters();
    for refusal in Refusal::ALL {
        let reason = refusal.as_str().replace(' ', "_");
        figures.whole(Metric::ConnectionsRefused, &[&reason], transport.refused(refusal));
    }
    let TransportCounters { datagrams_out, datagrams_in, datagrams_bad, datagrams_unlinked, .. } = transport;
    both(figures, Metric::Datagrams, &[], (datagrams_out, datagrams_in));
    for (reason, datagrams) in [("bad", datagrams_bad), ("unlinked", datagrams_unlinked)] {
        figures.whole(Metric::DatagramsDropped, &[reason], datagrams);
    }
    both(figures, Metric::Frames, &[], (transport.frames_out, transport.frames_in));
    both(figures, Metric::FramePayload, &[], (transport.bytes_out, transport.bytes_in));
    for (metric, count) in [
        (Metric::LinksOpened, transport.links_up),
        (Metric::LinksClosed, transport.links_down),
        (Metric::Dials, transport.dials),
        (Metric::DialsFailed, transport.dials_failed),
        (Metric::AddressProofs, transport.retries),
    ] {
        figures.whole(metric, &[], count);
    }
}

/// Adds the two directions of a metric, whose other labels come before.
fn both(figures: &mut Figures, metric: Metric, labels: &[&str], (sent, received): (u64, u64)) {
    for (direction, count) in [("out", sent), ("in", received)] {
        figures.whole(metric, &[labels, &[direction]].concat(), count);
    }
}

fn of_replication(figures: &mut Figures, status: &Status) {
    let engine = &status.counters;
    both(figures, Metric::Deltas, &[], (engine.deltas_out, engine.deltas_in));
    both(figures, Metric::DeltaRows, &[], (engine.row_bytes_out, engine.row_bytes_in));
    for (outcome, claims) in
        [("renewed", engine.conflicts), ("delayed", engine.claims_delayed), ("refused", engine.claims_refused)]
    {
        figures.whole(Metric::IdentityConflicts, &[outcome], claims);
    }
    for (metric, count) in [
        (Metric::Flushes, engine.flushes),
        (Metric::DeltasUnasked, engine.unasked),
        (Metric::Gaps, engine.gaps),
        (Metric::RowRequests, engine.wants_out),
        (Metric::Grafts, engine.grafts_out),
        (Metric::DigestsSent, engine.digests_out),
        (Metric::Divergences, engine.divergences),
        (Metric::Snapshots, engine.replaced),
        (Metric::MessagesRefused, engine.refused),
        (Metric::EntriesAhead, engine.ahead),
        (Metric::BelowZero, engine.below_zero),
        (Metric::TotalsFull, engine.totals_full),
        (Metric::KeysRefused, engine.keys_refused),
        (Metric::DeltasRefused, engine.deltas_without_room),
        (Metric::ClockSteps, engine.clock_steps),
        (Metric::ClocksOff, engine.clocks_off),
    ] {
        figures.whole(metric, &[], count);
    }
    let work = &status.work;
    for (name, outcome) in [
        ("converged", Outcome::Converged),
        ("not_converged", Outcome::NotConverged),
        ("not_compared", Outcome::NotCompared),
    ] {
        figures.whole(Metric::Verifications, &[name], work.verified.ended(outcome));
    }
    for (name, fault) in [("lags", Fault::Lags), ("changes", Fault::Changes), ("differs", Fault::Differs)] {
        figures.whole(Metric::Findings, &[name], work.verified.found(fault));
    }
    figures.count(Metric::VerificationsRunning, &[], work.verifying);
}

fn of_peers(figures: &mut Figures, shared: &Shared, status: &Status, behind: &BTreeMap<NodeName, Behind>) {
    for member in shared.endpoint.members().into_iter().filter(|member| member.linked) {
        let of = [member.name.as_str()];
        if let Some(rtt) = member.rtt {
            figures.time(Metric::PeerRoundTrip, &of, rtt);
        }
        if let Some(traffic) = member.traffic {
            both(figures, Metric::PeerDatagrams, &of, (traffic.datagrams_out, traffic.datagrams_in));
            both(figures, Metric::PeerBytes, &of, (traffic.bytes_out, traffic.bytes_in));
        }
        if let Some(frames) = member.frames {
            both(figures, Metric::PeerFrames, &of, (frames.frames_out, frames.frames_in));
            both(figures, Metric::PeerFramePayload, &of, (frames.bytes_out, frames.bytes_in));
            figures.whole(Metric::PeerQueue, &of, frames.queued);
        }
    }
    for (peer, behind) in behind {
        let of = [peer.as_str()];
        figures.whole(Metric::PeerLag, &of, behind.versions);
        if let Some(stale) = behind.stale {
            figures.time(Metric::PeerStaleness, &of, stale);
        }
    }
    let ClockStanding { bound, peers, windows_ahead } = &status.clocks;
    if let Some(bound) = bound {
        figures.time(Metric::ClockOffsetBound, &[], *bound);
    }
    figures.time(Metric::WindowsAhead, &[], *windows_ahead);
    for clock in peers {
        figures.float(Metric::PeerClockOffset, &[clock.peer.as_str()], clock.ahead_ms as f64 / 1e3);
    }
}

#[cfg(feature = "state")]
fn of_state(figures: &mut Figures, shared: &Shared) {
    let Some(saving) = &shared.saving else { return };
    let standing = saving.read(shared.clock.time());
    figures.time(Metric::StateSavedAge, &[], standing.age);
    figures.whole(Metric::StateFailing, &[], u64::from(standing.trouble.is_some()));
    figures.whole(Metric::StateCommitsLost, &[], standing.rolled_back.map_or(0, |lost| lost.commits));
}

#[cfg(not(feature = "state"))]
fn of_state(_figures: &mut Figures, _shared: &Shared) {}
