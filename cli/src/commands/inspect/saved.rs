//! The views of a saved state: the same as of a running node, but for links, limits and logs, which a saved state does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use tallymesh::state::{Archive, PartInfo};
use tallymesh_engine::key_hash;
use tallymesh_schemas::inspect::{
    ActorView, EntryView, KeyView, RESETS, ResetView, RowView, RunState, Standing, Subject, View,
};
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::{Facts, Part, Row, SavedEntry, Shape};
use tallymesh_schemas::{Actor, Class, Version, admin, key};

use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::found::Found;
use crate::failure::Failure;
use crate::output::Format;

/// Shows an object of a saved state, or one key of it.
pub(crate) fn run(archive: &Archive, object: &str, key: Option<&str>, format: Format) -> Result<(), Failure> {
    let header = archive.header().map_err(Failure::state)?;
    let facts = archive.facts().map_err(Failure::state)?;
    let viewer = Actor::new(header.node, facts.incarnation);
    let shape = shape(archive, object)?;
    let known = |actor: &Actor| standing(&viewer, &facts, actor);
    let view = key.map_or(View::Actors, |key| View::Key(key.to_owned()));
    let subject = Subject {
        object: shape.name.clone(),
        class: shape.class.name().to_owned(),
        viewer: viewer.clone(),
        window: None,
        on_dead: None,
        keys: 0,
        fingerprint: None,
        is_cache: shape.class == Class::Cache,
    };
    let mut found = Inspection::new(subject, view);
    match (key, shape.class) {
        (None, _) => {
            found.subject.keys = keys(archive, &shape)?;
            found.actors = actors(archive, &shape, &known)?;
        }
        (Some(text), Class::Cache) => found.entries = vec![entry(archive, &shape, text)?],
        (Some(text), class) => {
            let key = key::parse(class, text).map_err(|error| Failure::Input(error.to_string()))?;
            found.keys = vec![rows(archive, &shape, (text, &key), &known)?];
        }
    }
    Found::of(&found).write(format)
}

fn nothing(shape: &Shape, key: &str) -> Failure {
    Failure::No(format!("the saved state holds nothing of \"{key}\" in \"{}\"", shape.name))
}

/// The object of a name, or of a prefix that only one has.
fn shape(archive: &Archive, name: &str) -> Result<Shape, Failure> {
    let mut shapes = BTreeMap::new();
    for (shape, _) in archive.caches().map_err(Failure::state)? {
        shapes.insert(shape.name.clone(), shape);
    }
    for PartInfo { shape, .. } in archive.parts().map_err(Failure::state)? {
        shapes.insert(shape.name.clone(), shape);
    }
    if let Some(exact) = shapes.get(name).or_else(|| shapes.get(&format!("gauge:{name}"))) {
        return Ok(exact.clone());
    }
    let begin: Vec<_> = shapes.values().filter(|shape| shape.name.starts_with(name)).collect();
    match begin.as_slice() {
        [one] => Ok((*one).clone()),
        _ => {
            let names: Vec<_> = shapes.keys().map(String::as_str).collect();
            Err(Failure::Input(format!("the saved state has no \"{name}\": it has {}", names.join(", "))))
        }
    }
}

/// The state of a run, as far as the saved state says it.
fn standing(viewer: &Actor, facts: &Facts, actor: &Actor) -> Standing {
    let known = facts.nodes.iter().find(|node| node.name == actor.node);
    Standing::of(match known {
        _ if actor == viewer => RunState::Own,
        _ if actor.node == viewer.node => RunState::Ended,
        Some(node) if actor.incarnation < node.incarnation => RunState::Ended,
        Some(node) if node.left => RunState::Left,
        Some(_) => RunState::Saved,
        None => RunState::Unknown,
    })
}

/// Calls `each` with every part of an object.
fn each(archive: &Archive, shape: &Shape, mut each: impl FnMut(&Part)) -> Result<(), Failure> {
    let read = archive.each_part(|part| {
        if part.shape == *shape {
            each(&part);
        }
        Ok(())
    });
    read.map_err(Failure::state)
}

/// The key and the totals of a saved row.
fn read<R>(row: &Row, take: impl FnOnce(&[u8], (u64, u64)) -> R) -> Option<R> {
    let mut reader = RowReader::new(&row.bytes, row.version.previous());
    match reader.next_row().ok()??.state {
        RowState::Live { key: Some(key), added, removed } => Some(take(key, (added, removed))),
        _ => None,
    }
}

/// The number of keys.
fn keys(archive: &Archive, shape: &Shape) -> Result<u64, Failure> {
    let mut hashes = BTreeSet::new();
    if shape.class == Class::Cache {
        let read = archive.each_entry(shape, |entry| {
            entry.read(|wire| hashes.insert(key_hash(wire.key)));
            Ok(())
        });
        read.map_err(Failure::state)?;
    }
    each(archive, shape, |part| {
        for row in &part.rows {
            read(row, |key, _| (!key::is_cleared(key)).then(|| hashes.insert(key_hash(key))));
        }
    })?;
    Ok(hashes.len() as u64)
}

fn actors(archive: &Archive, shape: &Shape, known: &dyn Fn(&Actor) -> Standing) -> Result<Vec<ActorView>, Failure> {
    let mut extents = BTreeMap::new();
    each(archive, shape, |part| {
        extents.insert(part.actor.clone(), part.extent);
    })?;
    let parts = archive.parts().map_err(Failure::state)?;
    let view = |part: PartInfo| {
        let extent = extents.get(&part.actor);
        ActorView {
            counts: true,
            standing: known(&part.actor),
            since: part.since,
            applied: part.applied,
            low_water: extent.map_or(Version::ZERO, |extent| extent.low_water),
            rows: part.rows,
            fingerprint: extent.and_then(|extent| extent.fingerprint),
            head: None,
            heard_ms: None,
            complete: part.complete,
            replacing: false,
            peers: Vec::new(),
            actor: part.actor,
        }
    };
    Ok(parts.into_iter().filter(|part| part.shape == *shape).map(view).collect())
}

/// Every actor's row of a key.
fn rows(
    archive: &Archive,
    shape: &Shape,
    (text, key): (&str, &[u8]),
    known: &dyn Fn(&Actor) -> Standing,
) -> Result<KeyView, Failure> {
    let mut view = KeyView { key: text.to_owned(), raw: key.to_vec(), ..KeyView::default() };
    each(archive, shape, |part| {
        for row in &part.rows {
            read(row, |found, (added, removed)| {
                if found == key {
                    view.rows.push(RowView {
                        actor: part.actor.clone(),
                        added,
                        removed,
                        version: row.version,
                        reset: (0, 0),
                        value: 0,
                        counts: true,
                        standing: known(&part.actor),
                        heard_ms: None,
                        rows: 1,
                    });
                } else if let Ok((of, cleared)) = key::to_cleared(shape.class.kind(), found)
                    && cleared == key
                {
                    view.resets.push(ResetView { of, by: part.actor.clone(), added, removed, version: row.version });
                }
            });
        }
    })?;
    if view.rows.is_empty() {
        return Err(nothing(shape, text));
    }
    for row in &mut view.rows {
        let resets = view.resets.iter().filter(|reset| reset.of == row.actor);
        row.reset = resets.fold((0, 0), |high, reset| (high.0.max(reset.added), high.1.max(reset.removed)));
        row.value = RowView::value_of((row.added, row.removed), row.reset);
    }
    view.more_resets = view.resets.len() > RESETS;
    view.resets.truncate(RESETS);
    Ok(view.summed())
}

/// The entry of a key of a cache.
fn entry(archive: &Archive, shape: &Shape, text: &str) -> Result<EntryView, Failure> {
    let caches = archive.caches().map_err(Failure::state)?;
    let seen =
        caches.into_iter().find(|(cache, _)| cache == shape).map(|(_, contexts)| contexts.seen).unwrap_or_default();
    let taken_in = |saved: &SavedEntry, number: u64| {
        let run = saved.run();
        seen.runs.iter().any(|(named, upto)| named == run && number <= *upto)
            || seen.ended.iter().any(|(node, first)| *node == run.node && run.incarnation < *first)
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut found = None;
    let read = archive.each_entry(shape, |saved| {
        saved.read(|wire| {
            if wire.key == text.as_bytes() {
                let value = wire.value.unwrap_or_default();
                found = Some(EntryView {
                    key: text.to_owned(),
                    raw: wire.key.to_vec(),
                    actor: saved.run().clone(),
                    number: wire.number,
                    stamp: wire.stamp,
                    expires_ms: wire.expires_ms,
                    removed: wire.value.is_none(),
                    readable: wire.value.is_some() && (wire.expires_ms == 0 || wire.expires_ms > now_ms),
                    value: value.get(..admin::SHOWN_BYTES).unwrap_or(value).to_vec(),
                    bytes: value.len() as u64,
                    hash: None,
                    position: 0,
                    taken_in: taken_in(&saved, wire.number),
                });
            }
        });
        Ok(())
    });
    read.map_err(Failure::state)?;
    found.ok_or_else(|| nothing(shape, text))
}
