//! Receiving a cache's entries from a peer.
//!
//! Entries are joined as they arrive. The context advances only at a mark, and only if every message of the session up to the
//! mark has arrived. Otherwise the receiver begins another session, in which the sender starts from what the receiver has.

use std::time::Duration;

use tallymesh_schemas::entries::EntryReader;
use tallymesh_schemas::message::{CacheEntries, CacheMark, CacheReport};
use tallymesh_schemas::rows::RowsError;
use tallymesh_schemas::{Actor, StructureId, UnixMs};

use crate::cache::context::{Context, PLACES};
use crate::cache::map::{CacheMap, Joined, Write};
use crate::canary::{self, Canary};
use crate::hlc::Stamp;

/// The state of receiving one cache from one peer.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// The session; 0 before the first one.
    session: u64,
    /// The position of the next message.
    next: u64,
    /// A message of the session is missing, or an entry was refused.
    is_broken: bool,
    /// An entry of the session found no room.
    is_crowded: bool,
    /// The peer sends the entries of all writers.
    relays: bool,
    /// A mark of the session was applied.
    is_marked: bool,
    /// The peer's session and number of its last report.
    report: (u64, u64),
    /// What the peer has, as it has reported.
    said: Context,
    /// The peer has only what was written since it joined.
    pub(crate) is_partial: bool,
    /// The fingerprint that the peer has reported, and the time after which its entries expire.
    pub(crate) fingerprint: (u64, UnixMs),
    /// The peer has stated more in a mark since its last report. Its fingerprint is not that of what it has said.
    pub(crate) is_outdated: bool,
    /// What this replica has reported in the session.
    reported: Context,
    /// Reports to this peer so far.
    reports: u64,
    /// A run of the peer, and a write of it that the peer says it never made. The next report names it, so that the peer learns
    /// that its run was used by another process.
    disputed: Option<(Actor, u64)>,
}

/// What a message of entries brought.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The first entry that was refused was this far ahead of the clock, and who wrote it.
    pub(crate) ahead: Option<(Duration, Actor)>,
    /// An entry of a new key found no room.
    pub(crate) no_room: bool,
    /// The mark, if it may be applied.
    pub(crate) mark: Option<CacheMark>,
}

/// How a replica reads the entries of a message.
pub(crate) struct Reading<'a> {
    /// What the wall clock shows.
    pub(crate) unix_ms: UnixMs,
    /// Contexts of peers whose keys this replica is comparing with its own: they cover writes as well.
    pub(crate) compared: &'a [&'a Context],
}

impl Receiver {
    /// Begins a session.
    pub(crate) fn begin(&mut self, session: u64) {
        self.session = session;
        self.next = 0;
        self.is_broken = false;
        self.is_crowded = false;
        self.is_marked = false;
        self.reported = Context::default();
    }

    /// The session; 0 before the first one.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Whether another session has to begin.
    pub(crate) fn is_broken(&self) -> bool {
        self.session == 0 || self.is_broken
    }

    /// Whether an entry of the session found no room.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Notes that the peer does not send everything that this replica lacks.
    pub(crate) fn break_off(&mut self) {
        self.is_broken = true;
    }

    /// A mark of the session was applied.
    pub(crate) fn note_mark(&mut self) {
        self.is_marked = true;
    }

    /// Whether a mark of the session was applied.
    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// The messages of the session that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.next
    }

    /// The peer states its head in a mark.
    pub(crate) fn note_head(&mut self, run: &Actor, head: u64) {
        self.is_outdated |= !self.said.covers(run, head);
        self.said.admit(run, head, PLACES);
    }

    /// The peer states less of its own run than this replica counts as taken in.
    pub(crate) fn dispute(&mut self, run: Actor, number: u64) {
        self.disputed = Some((run, number));
    }

    /// From the next session on, the peer sends the entries of all writers.
    pub(crate) fn ask_for_all(&mut self) {
        self.relays = true;
    }

    /// What the peer has, as it has reported; `None` before its first report.
    pub(crate) fn said(&self) -> Option<&Context> {
        (self.report.0 != 0).then_some(&self.said)
    }

    /// The peer's session and number of its last report.
    pub(crate) fn last_report(&self) -> (u64, u64) {
        self.report
    }

    /// The next report names everything, and not only what has changed: an earlier one may be lost.
    pub(crate) fn repeat(&mut self) {
        self.reported = Context::default();
    }

    /// The number of runs and nodes about which it keeps something.
    pub(crate) fn len(&self) -> usize {
        self.said.len() + self.reported.len()
    }

    /// The peer reports what it has.
    pub(crate) fn handle_report(&mut self, report: &CacheReport) {
        let number = (report.session, report.number);
        if number <= self.report {
            return;
        }
        self.report = number;
        self.said.join_stated(&report.seen);
        self.is_partial = report.partial;
        self.fingerprint = (report.fingerprint, report.after_ms);
        self.is_outdated = false;
    }

    /// The next report to the peer; `None` if nothing has changed since the last one and `always` is not set.
    pub(crate) fn report(
        &mut self,
        map: &CacheMap,
        structure: StructureId,
        always: Always,
        after_ms: UnixMs,
    ) -> Option<CacheReport> {
        let mut seen = map.seen().beyond(&self.reported);
        let nothing = seen.runs.is_empty() && seen.ended.is_empty() && self.reports > 0;
        if self.session == 0 || (nothing && always == Always::No) {
            return None;
        }
        self.reported = map.seen().clone();
        self.reports += 1;
        // The head of this run is in every report, so that a peer need not rely on an earlier one.
        let head = map.head();
        if head > 0 && !seen.runs.iter().any(|(run, _)| run == map.me()) {
            seen.runs.push((map.me().clone(), head));
        }
        seen.runs.extend(self.disputed.take());
        Some(CacheReport {
            structure,
            incarnation: map.me().incarnation,
            session: self.session,
            number: self.reports,
            seen,
            endings: map.endings(),
            relay: self.relays,
            partial: !map.is_whole(),
            fingerprint: map.derived().fingerprint.after(after_ms),
            after_ms,
        })
    }

    /// Joins the entries of a message. Passes each key that changes to `changed`.
    ///
    /// # Errors
    /// The entries cannot be decoded. The entries before the fault are joined.
    pub(crate) fn handle_entries(
        &mut self,
        map: &mut CacheMap,
        message: &CacheEntries<'_>,
        reading: &Reading<'_>,
        changed: impl FnMut(&[u8]),
    ) -> Result<Received, RowsError> {
        let mut received = Received::default();
        if message.session == CacheEntries::REPAIR {
            join(map, message, (reading, &Context::default()), &mut received, changed)?;
            return Ok(received);
        }
        if message.session != self.session {
            return Ok(received);
        }
        if message.position > self.next && !canary::broken(Canary::GapApplied) {
            self.is_broken = true;
        }
        let is_late = message.position < self.next;
        self.next = self.next.max(message.position.saturating_add(1));
        // What the peer has reported may be later than what a late message states.
        let nothing = Context::default();
        let reported = if is_late { &nothing } else { &self.said };
        let joined = join(map, message, (reading, reported), &mut received, changed);
        joined.inspect_err(|_| self.is_broken = true)?;
        self.is_crowded |= received.no_room;
        if received.ahead.is_some() || received.no_room {
            self.is_broken = true;
        }
        if !self.is_broken && !is_late {
            received.mark = message.mark.clone();
        }
        Ok(received)
    }
}

/// Whether to report although nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Always {
    Yes,
    No,
}

fn join(
    map: &mut CacheMap,
    message: &CacheEntries<'_>,
    (reading, reported): (&Reading<'_>, &Context),
    received: &mut Received,
    mut changed: impl FnMut(&[u8]),
) -> Result<(), RowsError> {
    let reached = |run: &Actor| {
        let compared = reading.compared.iter().map(|context| context.reached(run)).max();
        map.seen().reached(run).max(compared.unwrap_or(0))
    };
    let reached: Vec<_> = message.runs.iter().map(reached).collect();
    let mut reader = EntryReader::new(message.entries, message.runs.len());
    while let Some(entry) = reader.next_entry()? {
        let at = entry.run as usize;
        let (Some(run), Some(reached)) = (message.runs.get(at), reached.get(at)) else { continue };
        let stamp = Stamp(entry.stamp);
        if let Some(by) = stamp.beyond(reading.unix_ms).filter(|_| !canary::broken(Canary::FutureTaken)) {
            received.ahead.get_or_insert_with(|| (by, run.clone()));
            continue;
        }
        let (number, expires_ms) = (entry.number, UnixMs(entry.expires_ms));
        let write = Write { key: entry.key, stamp, run, number, expires_ms, value: entry.value };
        map.note_received(stamp);
        match map.join(&write, *reached) {
            Joined::Wins => changed(entry.key),
            Joined::Loses => map.insist(&write, reported, reading.unix_ms),
            Joined::NoRoom => received.no_room = true,
        }
    }
    Ok(())
}
