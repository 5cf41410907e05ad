//! Views as text and as CSV: actors, entries of caches, and links.

use tallymesh_schemas::inspect::{
    ActorView, CacheLinkView, EntryView, LinkView, PeerPosition, StreamView, Subject, View,
};
use tallymesh_schemas::{NodeName, Version, key};

use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::key_text;
use crate::commands::inspect::table::Table;
use crate::commands::inspect::words::{self, counts, heading, heard, hex};
use crate::commands::series::moment;

/// The most peers that have a column of their own.
const COLUMNS: usize = 8;

/// A view as text.
pub(super) fn of(found: &Inspection) -> String {
    match &found.view {
        View::Links => links(found),
        View::Key(_) => {
            let entries = found.entries.iter().map(|entry| entry_text(&found.subject, entry));
            let keys = found.keys.iter().map(|view| key_text::of(&found.subject, view, &found.limits));
            entries.chain(keys).collect()
        }
        _ => actors(found),
    }
}

/// A view as CSV; `None` where it is no table.
pub(super) fn as_csv(found: &Inspection) -> Option<Table> {
    match &found.view {
        View::Actors => Some(actors_csv(&found.actors)),
        View::Key(_) if found.subject.is_cache => {
            let mut table = Table::new(&key_text::ENTRY_COLUMNS);
            found.entries.iter().for_each(|entry| table.row(key_text::entry_cells(entry)));
            Some(table)
        }
        View::Key(_) => {
            let mut table = Table::new(&key_text::ROW_COLUMNS);
            found.keys.iter().flat_map(key_text::row_cells).for_each(|cells| table.row(cells));
            Some(table)
        }
        _ => None,
    }
}

fn actors(found: &Inspection) -> String {
    let Inspection { subject, actors, .. } = found;
    let counting = actors.iter().filter(|view| view.counts).count();
    let cache = subject.fingerprint.map(|all| format!(", fingerprint {}", hex(all))).unwrap_or_default();
    let summary = match subject.is_cache {
        true => format!("keys {}, runs {}{cache}", subject.keys, actors.len()),
        false => format!("keys {}, actors {}, of these {counting} count", subject.keys, actors.len()),
    };
    let peers = peers(actors);
    let mut table = match subject.is_cache {
        true => Table::new(&["node", "run", "state", "skipped", "taken in", "collected", "entries", "last heard"]),
        false => {
            Table::new(&["node", "run", "counts", "since", "applied", "low-water", "rows", "fingerprint", "last heard"])
        }
    };
    peers.iter().take(COLUMNS).for_each(|peer| table.column(format!("at {peer}")));
    for view in actors {
        table.row(actor_cells(subject, view, &peers));
    }
    let mut text = format!("{}\n{summary}\n\n{}", heading(subject, None), table.text());
    if peers.len() > COLUMNS {
        text += &format!("{} more peers: --output json shows all\n", peers.len() - COLUMNS);
    }
    text
}

/// The peers that have reported a position.
fn peers(actors: &[ActorView]) -> Vec<&NodeName> {
    let mut peers: Vec<_> = actors.iter().flat_map(|view| view.peers.iter().map(|at| &at.peer)).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

fn actor_cells(subject: &Subject, view: &ActorView, peers: &[&NodeName]) -> Vec<String> {
    let state = match (subject.is_cache, words::state(&view.standing)) {
        (true, state) if state.is_empty() => view.standing.state.name().to_owned(),
        (true, state) => state,
        (false, _) => counts(view, subject),
    };
    let applied = match (view.replacing, view.complete, view.head.filter(|head| *head > view.applied)) {
        (true, ..) => format!("{} (snapshot)", view.applied),
        (_, _, Some(head)) => format!("{} of {head}", view.applied),
        (_, false, None) => format!("{} (pieces)", view.applied),
        _ => view.applied.to_string(),
    };
    let mut cells = vec![
        view.actor.node.to_string(),
        view.actor.incarnation.to_string(),
        state,
        view.since.to_string(),
        applied,
        view.low_water.to_string(),
        view.rows.to_string(),
    ];
    cells.extend(view.fingerprint.map(hex));
    cells.push(heard(view.heard_ms));
    let position = |peer: &&NodeName| match view.peers.iter().find(|at| at.peer == **peer) {
        Some(at) => position(view, at),
        None => "-".to_owned(),
    };
    cells.extend(peers.iter().take(COLUMNS).map(position));
    cells
}

/// How a peer's copy compares with this node's.
pub(super) fn position(view: &ActorView, at: &PeerPosition) -> String {
    let differs = at.fingerprint.zip(view.fingerprint).is_some_and(|(theirs, ours)| theirs != ours);
    match at.applied.cmp(&view.applied) {
        std::cmp::Ordering::Equal if differs && view.since == at.since => format!("{} differs", at.applied),
        std::cmp::Ordering::Equal => at.applied.to_string(),
        std::cmp::Ordering::Less => format!("{} ({} behind)", at.applied, view.applied.since(at.applied)),
        std::cmp::Ordering::Greater => format!("{} ({} ahead)", at.applied, at.applied.since(view.applied)),
    }
}

fn actors_csv(actors: &[ActorView]) -> Table {
    let mut table = Table::new(&[
        "node",
        "incarnation",
        "counts",
        "state",
        "since",
        "applied",
        "low_water",
        "rows",
        "fingerprint",
        "heard_ms",
    ]);
    for view in actors {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        table.row(vec![
            view.actor.node.to_string(),
            view.actor.incarnation.to_string(),
            view.counts.to_string(),
            view.standing.state.name().to_owned(),
            view.since.to_string(),
            view.applied.to_string(),
            view.low_water.to_string(),
            view.rows.to_string(),
            view.fingerprint.map(hex).unwrap_or_default(),
            number(view.heard_ms),
        ]);
    }
    table
}

/// The winner of a key of a cache.
pub(super) fn entry_text(subject: &Subject, entry: &EntryView) -> String {
    let shown = key::display_bytes(&entry.value);
    let cut = if (entry.value.len() as u64) < entry.bytes { "…" } else { "" };
    let content = match entry.removed {
        true => "removed".to_owned(),
        false => format!("\"{shown}{cut}\", {} bytes", entry.bytes),
    };
    let read = match (entry.readable, entry.removed) {
        (true, _) => "finds it",
        (false, true) => "finds nothing: it was removed",
        (false, false) => "finds nothing: it has expired",
    };
    let expires = match entry.expires_ms {
        0 => "never".to_owned(),
        ms => moment(ms / 1000),
    };
    let taken_in = if entry.taken_in { "yes" } else { "not yet: a mark of its run is still to come" };
    let position = if entry.position == 0 { "-".to_owned() } else { entry.position.to_string() };
    let lines = [
        ("winner", format!("write {} of {}", entry.number, entry.actor)),
        ("stamp", stamp(entry.stamp)),
        ("content", content),
        ("expires", expires),
        ("a read", read.to_owned()),
        ("taken in", taken_in.to_owned()),
        ("position", position),
        ("hash", entry.hash.map_or("-".to_owned(), hex)),
    ];
    let lines = lines.into_iter().map(|(label, value)| format!("{label:<10}{value}\n"));
    format!("{}\n\n{}", heading(subject, Some(&entry.key)), lines.collect::<String>())
}

/// A stamp: its time, and its counter within the millisecond.
pub(super) fn stamp(stamp: u64) -> String {
    let ms = stamp >> 16;
    let moment = moment(ms / 1000);
    format!("{}.{:03}Z, number {} of that millisecond", moment.trim_end_matches('Z'), ms % 1000, stamp & 0xffff)
}

fn links(found: &Inspection) -> String {
    let mut text = format!("{}\n", heading(&found.subject, None));
    if found.links.is_empty() {
        text += "no link to another node\n";
    }
    for link in &found.links {
        text += "\n";
        text += &link_text(link);
    }
    text
}

fn link_text(link: &LinkView) -> String {
    let LinkView { peer, wants, queued, .. } = link;
    let run = link.incarnation.map(|run| format!(", run {run}")).unwrap_or_default();
    let exchanged = if link.exchanged { "" } else { "; not exchanged: its kind or build differs" };
    let mut text = format!(
        "link to {peer}{run}: last heard {}; {queued} streams may have rows to send, {wants} questions are open{exchanged}\n",
        heard(link.heard_ms)
    );
    if let Some(cache) = &link.cache {
        text += &cache_link(cache);
    }
    if link.streams.is_empty() {
        return text;
    }
    let mut table = match link.cache {
        Some(_) => Table::new(&["node", "run", "has taken in"]),
        None => Table::new(&["node", "run", "sent", "peer has", "peer's low-water", "peer's fingerprint", "state"]),
    };
    for stream in &link.streams {
        let (node, run) = (stream.actor.node.to_string(), stream.actor.incarnation.to_string());
        let number = |version: Option<Version>| version.map_or("-".to_owned(), |version| version.to_string());
        let said = stream.reported.as_ref();
        let mut cells = vec![node, run];
        if link.cache.is_none() {
            cells.push(number(stream.cursor));
        }
        cells.push(number(said.map(|said| said.applied)));
        if link.cache.is_none() {
            cells.push(number(said.map(|said| said.low_water)));
            cells.push(said.and_then(|said| said.fingerprint).map_or("-".to_owned(), hex));
            cells.push(stream_state(stream));
        }
        table.row(cells);
    }
    text + &table.text()
}

fn cache_link(cache: &CacheLinkView) -> String {
    let said = |what: bool, yes: &str, no: &str| if what { yes.to_owned() } else { no.to_owned() };
    format!(
        "sends in session {}, up to position {} of {}, {}; receives in session {}, {} messages, {}{}{}\n",
        cache.sends_session,
        cache.cursor,
        cache.log_end,
        said(cache.caught_up, "first walk over", "first walk under way"),
        cache.receives_session,
        cache.arrived,
        said(cache.awaited, "not all has arrived", "all has arrived"),
        said(cache.broken, ", begins again", ""),
        said(cache.comparing, ", compares keys", ""),
    )
}

fn stream_state(stream: &StreamView) -> String {
    let mut words = Vec::new();
    if stream.snapshot {
        words.push("snapshot".to_owned());
    }
    if stream.due {
        words.push("to send".to_owned());
    }
    words.extend(stream.want.map(|after| format!("asks for rows above {after}")));
    if stream.relayed {
        words.push("relayed by the peer".to_owned());
    }
    if stream.pruned {
        words.push("pruned".to_owned());
    }
    let behind = stream.behind.map(|behind| {
        format!(
            "this node lacks rows up to {} for {}, asked {} times",
            behind.target,
            words::time(behind.for_ms),
            behind.tries
        )
    });
    words.extend(behind);
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
