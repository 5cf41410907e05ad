//! Views as JSON. docs/inspect.md lists the fields; a test compares them.

use serde_json::{Map, Value, json};
use tallymesh_schemas::inspect::{
    ActorView, CacheLinkView, EntryView, KeyView, LimitView, LinkView, LogView, PeerPosition, ResetView, RowView,
    ShareView, StreamView, Subject, View,
};
use tallymesh_schemas::{Actor, NodeName, OnDead, key as keys};

use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::words::hex;

/// A view.
pub(super) fn of(found: &Inspection) -> Value {
    let mut all = subject(&found.subject);
    match &found.view {
        View::Links => add(&mut all, "links", found.links.iter().map(link).collect()),
        View::Key(_) => {
            match found.subject.is_cache {
                true => add(&mut all, "entries", found.entries.iter().map(entry).collect()),
                false => add(&mut all, "keys", found.keys.iter().map(key).collect()),
            }
            add(&mut all, "limits", found.limits.iter().map(limit).collect());
        }
        _ => add(&mut all, "actors", found.actors.iter().map(actor_view).collect()),
    }
    Value::Object(all)
}

fn add(to: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    to.insert(name.to_owned(), Value::Array(list));
}

/// What is inspected.
pub(super) fn subject(subject: &Subject) -> Map<String, Value> {
    let on_dead = subject.on_dead.map(|rule| match rule {
        OnDead::Hold => "hold".to_owned(),
        OnDead::Drop(after) => format!("drop {}ms", after.as_millis()),
    });
    let mut all = Map::new();
    for (name, value) in [
        ("object", json!(subject.object)),
        ("class", json!(subject.class)),
        ("viewer", actor(&subject.viewer)),
        ("window", subject.window.map_or(Value::Null, |(age, number)| json!({ "age": age, "number": number }))),
        ("on_dead", json!(on_dead)),
        ("total_keys", json!(subject.keys)),
        ("fingerprint", json!(subject.fingerprint.map(hex))),
    ] {
        all.insert(name.to_owned(), value);
    }
    all
}

fn actor(Actor { node, incarnation }: &Actor) -> Value {
    json!({ "node": node, "incarnation": incarnation })
}

fn actor_view(view: &ActorView) -> Value {
    json!({
        "actor": actor(&view.actor),
        "counts": view.counts,
        "state": view.standing.state.name(),
        "for_ms": view.standing.for_ms,
        "since": view.since,
        "version": view.applied,
        "low_water": view.low_water,
        "rows": view.rows,
        "fingerprint": view.fingerprint.map(hex),
        "head": view.head,
        "heard_ms": view.heard_ms,
        "complete": view.complete,
        "replacing": view.replacing,
        "peers": view.peers.iter().map(position).collect::<Vec<_>>(),
    })
}

fn position(at: &PeerPosition) -> Value {
    json!({
        "peer": at.peer,
        "since": at.since,
        "version": at.applied,
        "low_water": at.low_water,
        "fingerprint": at.fingerprint.map(hex),
    })
}

/// A key with its rows.
pub(super) fn key(view: &KeyView) -> Value {
    json!({
        "key": view.key,
        "rows": view.rows.iter().map(row).collect::<Vec<_>>(),
        "resets": view.resets.iter().map(reset).collect::<Vec<_>>(),
        "more_resets": view.more_resets,
        "pending": view.pending,
        "total": view.total,
        "expired": view.expired,
    })
}

fn row(row: &RowView) -> Value {
    json!({
        "actor": actor(&row.actor),
        "added": row.added,
        "removed": row.removed,
        "version": row.version,
        "reset_added": row.reset.0,
        "reset_removed": row.reset.1,
        "value": row.value,
        "counts": row.counts,
        "state": row.standing.state.name(),
        "for_ms": row.standing.for_ms,
        "heard_ms": row.heard_ms,
        "rows": row.rows,
    })
}

fn reset(reset: &ResetView) -> Value {
    json!({
        "of": actor(&reset.of),
        "actor": actor(&reset.by),
        "added": reset.added,
        "removed": reset.removed,
        "version": reset.version,
    })
}

/// An entry of a cache.
pub(super) fn entry(entry: &EntryView) -> Value {
    json!({
        "key": entry.key,
        "actor": actor(&entry.actor),
        "number": entry.number,
        "stamp": entry.stamp,
        "written_ms": entry.stamp >> 16,
        "expires_ms": entry.expires_ms,
        "gone": entry.removed,
        "readable": entry.readable,
        "content": keys::display_bytes(&entry.value),
        "bytes": entry.bytes,
        "hash": entry.hash.map(hex),
        "position": entry.position,
        "taken_in": entry.taken_in,
    })
}

/// A change in a log.
pub(super) fn change(change: &LogView) -> Value {
    json!({
        "version": change.version,
        "number": change.slot,
        "actor": actor(&change.actor),
        "key": change.key,
        "of": change.resets.as_ref().map(actor),
        "added": change.added,
        "removed": change.removed,
        "gone": change.gone,
    })
}

fn link(link: &LinkView) -> Value {
    json!({
        "peer": link.peer,
        "incarnation": link.incarnation,
        "heard_ms": link.heard_ms,
        "exchanged": link.exchanged,
        "wants": link.wants,
        "queued": link.queued,
        "cache": link.cache.as_ref().map(cache_link),
        "streams": link.streams.iter().map(stream).collect::<Vec<_>>(),
    })
}

fn cache_link(cache: &CacheLinkView) -> Value {
    json!({
        "sends_session": cache.sends_session,
        "cursor": cache.cursor,
        "log_end": cache.log_end,
        "caught_up": cache.caught_up,
        "receives_session": cache.receives_session,
        "arrived": cache.arrived,
        "broken": cache.broken,
        "awaited": cache.awaited,
        "comparing": cache.comparing,
    })
}

fn stream(stream: &StreamView) -> Value {
    json!({
        "actor": actor(&stream.actor),
        "reported": stream.reported.as_ref().map(position),
        "cursor": stream.cursor,
        "snapshot": stream.snapshot,
        "due": stream.due,
        "want": stream.want,
        "relayed": stream.relayed,
        "pruned": stream.pruned,
        "behind": stream.behind.map(|behind| json!({
            "version": behind.target,
            "for_ms": behind.for_ms,
            "tries": behind.tries,
        })),
    })
}

fn limit(limit: &LimitView) -> Value {
    json!({
        "name": limit.name,
        "limit": limit.limit,
        "admits": limit.admits,
        "why": limit.why,
        "share": limit.share.as_ref().map(share),
    })
}

fn share(share: &ShareView) -> Value {
    let parts = |parts: &[(NodeName, u64)]| {
        parts.iter().map(|(node, units)| json!({ "node": node, "units": units })).collect::<Vec<_>>()
    };
    let holds = share.holds.iter().map(|(node, left)| json!({ "node": node, "left_ms": left }));
    json!({
        "is_rate": share.is_rate,
        "whole": share.whole,
        "units": share.units,
        "demand": share.demand,
        "in_use": share.in_use,
        "holds": holds.collect::<Vec<_>>(),
        "lent": parts(&share.lent),
        "borrowed": parts(&share.borrowed),
        "founders": share.founders,
        "missing": share.missing,
        "reclaim_after_ms": share.reclaim_after_ms,
    })
}

/// The same without what changes while time passes.
pub(super) fn without_ages(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept =
                fields.iter().filter(|(name, _)| !matches!(name.as_str(), "heard_ms" | "for_ms" | "left_ms" | "why"));
            Value::Object(kept.map(|(name, value)| (name.clone(), without_ages(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_ages).collect()),
        other => other.clone(),
    }
}
