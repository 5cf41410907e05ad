//! Views of rows for people: which actors there are, what each has counted for a key, and what changed in which order.
//!
//! A call reads one page: a bounded number of rows under the ledger lock. It formats nothing there but keys.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::collections::BTreeMap;
use std::ops::Bound;

use ipnet::IpNet;
use tallymesh_schemas::inspect::{
    ACTORS_PAGE, ActorView, KeyView, LOG_PAGE, LogView, RESETS, ROWS_PAGE, ResetView, RowView, Standing,
};
use tallymesh_schemas::{Actor, Kind, Version, key};

use crate::counter::actors::Copies;
use crate::counter::ledger::Ledger;
use crate::counter::listing::beyond;
use crate::counter::structure::Structure;
use crate::counter::sums::within;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::ActorRows;
use crate::rows::slots::Slot;
use crate::shape::Role;
use crate::time::{Time, millis};

/// Rows that one page looks for under the lock. Each key may have a row of each actor.
const LOOKUPS: usize = 1 << 15;

/// What is known of a run.
pub(crate) type Known<'a> = &'a dyn Fn(&Actor) -> Standing;

/// A page of keys in order, each with its rows.
#[derive(Debug, Default)]
pub struct KeysPage {
    /// The keys.
    pub keys: Vec<KeyView>,
    /// The last key that was read: the next page begins behind it. `None` at the end.
    pub last: Option<Vec<u8>>,
}

/// A reader of rows under the ledger lock.
struct Reader<'a> {
    structure: &'a Structure,
    ledger: &'a Ledger,
    now: Time,
    known: Known<'a>,
    /// Rows that it may still look for.
    left: usize,
}

impl Structure {
    /// The actors behind `after`, in order, at most a page. Their peers' positions are not filled in.
    pub(crate) fn actor_views(&self, after: Option<&Actor>, now: Time, known: Known<'_>) -> Vec<ActorView> {
        self.commit();
        let ledger = self.ledger.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let copies = ledger.actors().copies_in((from, Bound::Unbounded)).take(ACTORS_PAGE);
        let view = |(actor, Copies { rows, staging, .. }): (&Actor, &Copies)| ActorView {
            actor: actor.clone(),
            counts: rows.counts || actor == ledger.actor(),
            standing: known(actor),
            since: rows.since,
            applied: rows.applied,
            low_water: rows.low_water,
            rows: rows.len() as u64,
            fingerprint: Some(rows.fingerprint()),
            head: rows.stated.as_ref().map(|stated| stated.head),
            heard_ms: heard_ms(&ledger, actor, rows, now),
            complete: actor == ledger.actor() || rows.is_complete(),
            replacing: staging.is_some(),
            peers: Vec::new(),
        };
        copies.map(view).collect()
    }

    /// Every actor's row of a key, whether it counts or not, and what the rows add up to. O(actors).
    pub fn key_view(&self, key: &[u8], now: Time, known: &dyn Fn(&Actor) -> Standing) -> KeyView {
        self.commit();
        let ledger = self.ledger.read();
        Reader { structure: self, ledger: &ledger, now, known, left: LOOKUPS }.key(key)
    }

    /// The keys behind `after`, in order, about a page of rows at most. Keys of rows in which nodes share limits are left out,
    /// as in listings.
    pub fn key_views(&self, after: Option<&[u8]>, now: Time, known: &dyn Fn(&Actor) -> Standing) -> KeysPage {
        self.commit();
        let ledger = self.ledger.read();
        let mut reader = Reader { structure: self, ledger: &ledger, now, known, left: LOOKUPS };
        let (mut page, mut rows) = (KeysPage { keys: Vec::new(), last: after.map(<[u8]>::to_vec) }, 0);
        while rows < ROWS_PAGE && reader.left > 0 {
            let from = page.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let Some(id) = ledger.index().seek(from, ledger.cells()) else {
                page.last = None;
                return page;
            };
            let key = ledger.cells().key_of(id);
            reader.left = reader.left.saturating_sub(1);
            if !key::is_sharing(self.kind(), &key) {
                let view = reader.key(&key);
                rows += view.rows.len();
                page.keys.extend(Some(view).filter(|view| !view.rows.is_empty() || view.pending != 0));
            }
            page.last = Some(key.to_vec());
        }
        page
    }

    /// The sum of every actor's rows under an address block, read in slices; for a single address as [`Structure::key_view`].
    pub fn net_view(&self, net: IpNet, now: Time, known: &dyn Fn(&Actor) -> Standing) -> KeyView {
        let net = key::canonical(net);
        let (first, n) = key::from_net(net);
        if net.prefix_len() == net.max_prefix_len() {
            return self.key_view(&first[..n], now, known);
        }
        self.commit();
        let last = beyond(net);
        // The first key under the block, or a larger block that begins at the same address.
        let mut at = Some(first[..n - 1].to_vec());
        let (mut sums, mut pending) = (BTreeMap::new(), 0_i128);
        while at.as_deref().is_some_and(|at| at <= &last[..n]) {
            let ledger = self.ledger.read();
            let mut reader = Reader { structure: self, ledger: &ledger, now, known, left: LOOKUPS };
            while let Some(behind) = at.take_if(|at| reader.left > 0 && at.as_slice() <= &last[..n]) {
                let Some(id) = ledger.index().seek(Bound::Excluded(&behind), ledger.cells()) else { break };
                let key = ledger.cells().key_of(id);
                reader.left = reader.left.saturating_sub(1);
                if key::to_net(&key).is_ok_and(|key| net.contains(&key)) {
                    pending += i128::from(reader.pending(id, &key));
                    reader.rows(id, |row| add(&mut sums, row));
                }
                at = Some(key.to_vec());
            }
        }
        let rows = sums.into_values().map(|(row, value)| RowView { value: within(value), ..row }).collect();
        KeyView { key: net.to_string(), rows, pending: within(pending), ..KeyView::default() }.summed()
    }

    /// The sum under an address block for a limit: a node's row below zero counts as zero.
    pub fn taken_net(&self, net: IpNet) -> i64 {
        self.commit();
        let ledger = self.ledger.read();
        ledger.views().sum_net(net).all.saturating_add(ledger.views().owed_in(net))
    }

    /// The changes of an actor's rows above a version, in order, at most a page; `None` when this replica keeps no log of them.
    /// It always has a log of its own rows.
    pub fn log_view(&self, actor: &Actor, after: Version) -> Option<Vec<LogView>> {
        self.commit();
        let ledger = self.ledger.read();
        let rows = ledger.actors().get(actor).filter(|rows| rows.has_log())?;
        let changes = rows.changed(after).take(LOG_PAGE);
        Some(changes.map(|(slot, state)| change(&ledger, self.kind(), actor, (slot, &state))).collect())
    }

    /// This node's run, as the rows name it.
    pub fn viewer(&self) -> Actor {
        self.ledger.read().actor().clone()
    }
}

/// Adds a row of an actor to the sum of its rows.
fn add(sums: &mut BTreeMap<Actor, (RowView, i128)>, row: RowView) {
    let value = i128::from(row.value);
    match sums.get_mut(&row.actor) {
        None => drop(sums.insert(row.actor.clone(), (row, value))),
        Some((sum, counted)) => {
            sum.added = sum.added.saturating_add(row.added);
            sum.removed = sum.removed.saturating_add(row.removed);
            sum.reset = (sum.reset.0.saturating_add(row.reset.0), sum.reset.1.saturating_add(row.reset.1));
            (sum.version, sum.rows) = (sum.version.max(row.version), sum.rows + 1);
            *counted += value;
        }
    }
}

fn heard_ms(ledger: &Ledger, actor: &Actor, rows: &ActorRows, now: Time) -> Option<u64> {
    let heard = rows.confirmed();
    if actor == ledger.actor() { Some(0) } else { (heard > Time(0)).then(|| millis(now.since(heard))) }
}

fn text(kind: Kind, key: &[u8]) -> String {
    key::display(kind, key).unwrap_or_else(|_| key::display_bytes(key))
}

fn change(ledger: &Ledger, kind: Kind, actor: &Actor, (slot, state): (u32, &Slot)) -> LogView {
    let live = state.is_live().then(|| ledger.cells().key_of(state.cell));
    let (resets, key) = match live.as_deref() {
        Some(key) if ledger.cells().get(state.cell).role() == Role::Clears => {
            key::to_cleared(kind, key).map_or_else(|_| (None, text(kind, key)), |(of, key)| (Some(of), text(kind, key)))
        }
        Some(key) => (None, text(kind, key)),
        None => (None, String::new()),
    };
    LogView {
        version: state.row.version,
        slot: u64::from(slot),
        actor: actor.clone(),
        key,
        resets,
        added: state.row.added,
        removed: state.row.removed,
        gone: live.is_none(),
        is_write: false,
    }
}

impl Reader<'_> {
    fn key(&mut self, key: &[u8]) -> KeyView {
        let (text, raw) = (text(self.structure.kind(), key), key.to_vec());
        let mut view = KeyView { key: text, raw, ..KeyView::default() };
        let Some(id) = self.structure.keys.find(key) else { return view };
        view.pending = self.pending(id, key);
        self.rows(id, |row| view.rows.push(row));
        if self.ledger.has_resets() {
            let actors: Vec<_> = view.rows.iter().map(|row| row.actor.clone()).collect();
            actors.into_iter().for_each(|of| self.resets(of, key, &mut view));
        }
        view.summed()
    }

    /// What this node has counted for a key and not written into its row.
    fn pending(&self, id: CellId, key: &[u8]) -> i64 {
        let (ledger, views) = (self.ledger, self.ledger.views());
        let counted = views.own_value(key, ledger.cells().get(id).totals());
        let own = ledger.actors().get(ledger.actor()).and_then(|rows| rows.find(id, ledger.cells()));
        counted.saturating_sub(own.map_or(0, |(_, state)| views.value(ledger.actor(), id, &state.row)))
    }

    /// Passes the rows of a key to `each`, in order of actor.
    fn rows(&mut self, id: CellId, mut each: impl FnMut(RowView)) {
        let (ledger, cells) = (self.ledger, self.ledger.cells());
        // The cell knows how many rows there are, so the search ends with the last of them.
        let mut rows = cells.get(id).rows();
        for (actor, actor_rows) in ledger.actors().iter() {
            if rows == 0 {
                break;
            }
            self.left = self.left.saturating_sub(1);
            let Some((_, state)) = actor_rows.find(id, cells) else { continue };
            rows -= 1;
            let Totals { added, removed } = ledger.views().reset_of(id, actor);
            each(RowView {
                actor: actor.clone(),
                added: state.row.added,
                removed: state.row.removed,
                version: state.row.version,
                reset: (added, removed),
                value: ledger.views().value(actor, id, &state.row),
                counts: actor_rows.counts || actor == ledger.actor(),
                standing: (self.known)(actor),
                heard_ms: heard_ms(ledger, actor, actor_rows, self.now),
                rows: 1,
            });
        }
    }

    /// Adds the rows that reset an actor's row of a key.
    fn resets(&mut self, of: Actor, key: &[u8], view: &mut KeyView) {
        let (ledger, cells) = (self.ledger, self.ledger.cells());
        let Some(id) = self.structure.keys.find(&key::cleared(&of, key)) else { return };
        for (by, actor_rows) in ledger.actors().iter() {
            if self.left == 0 || view.resets.len() >= RESETS {
                view.more_resets = true;
                return;
            }
            self.left -= 1;
            if let Some((_, Slot { row, .. })) = actor_rows.find(id, cells) {
                let (by, of) = (by.clone(), of.clone());
                view.resets.push(ResetView { of, by, added: row.added, removed: row.removed, version: row.version });
            }
        }
    }
}
