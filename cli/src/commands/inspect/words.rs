//! States, times and fingerprints in words.

use std::time::Duration;

use tallymesh_schemas::inspect::{ActorView, RowView, RunState, Standing, Subject};
use tallymesh_schemas::{Actor, OnDead};

use crate::commands::info::duration;

/// How long ago, or for how long.
pub(super) fn time(ms: u64) -> String {
    if ms < 60_000 { format!("{:.1} s", ms as f64 / 1000.0) } else { duration(ms / 1000) }
}

/// When a copy was last confirmed as current.
pub(super) fn heard(ms: Option<u64>) -> String {
    match ms {
        Some(0) => "now".to_owned(),
        Some(ms) => format!("{} ago", time(ms)),
        None => "never".to_owned(),
    }
}

/// A fingerprint, or a hash.
pub(super) fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Whether the rows of a run count, and what is known of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counting<'a> {
    counts: bool,
    standing: &'a Standing,
}

impl<'a> From<&'a ActorView> for Counting<'a> {
    fn from(view: &'a ActorView) -> Self {
        Self { counts: view.counts, standing: &view.standing }
    }
}

impl<'a> From<&'a RowView> for Counting<'a> {
    fn from(row: &'a RowView) -> Self {
        Self { counts: row.counts, standing: &row.standing }
    }
}

/// Whether rows count, and why.
pub(super) fn counts<'a>(of: impl Into<Counting<'a>>, subject: &Subject) -> String {
    let of = of.into();
    let why = why(of, subject);
    match (of.counts, why.is_empty()) {
        (true, true) => "yes".to_owned(),
        (true, false) => format!("yes: {why}"),
        (false, _) => format!("no: {why}"),
    }
}

/// Why rows count, or do not; empty where the node simply lives.
pub(super) fn why<'a>(of: impl Into<Counting<'a>>, subject: &Subject) -> String {
    let Counting { counts, standing } = of.into();
    let state = state(standing);
    let rule = match (counts, standing.state, subject.on_dead) {
        (false, RunState::Alive | RunState::Saved, _) => return "not yet applied".to_owned(),
        (true, RunState::Dead | RunState::Left | RunState::Ended | RunState::Unknown, None) => {
            if subject.is_cache { ", entries stay" } else { ", events stay" }.to_owned()
        }
        (true, RunState::Dead, Some(OnDead::Hold)) => ", on_dead = hold".to_owned(),
        (true, RunState::Dead, Some(OnDead::Drop(after))) => format!(", counts until {}", time(millis(after))),
        _ => String::new(),
    };
    state + &rule
}

/// The state of a run; empty where its node simply lives.
pub(super) fn state(standing: &Standing) -> String {
    let lasts = standing.for_ms.map(time);
    let of = |state: &str, how: &str| lasts.as_ref().map_or(state.to_owned(), |time| format!("{state} {how} {time}"));
    match standing.state {
        RunState::Own => "this node".to_owned(),
        RunState::Alive | RunState::Saved => String::new(),
        RunState::Suspect => of("suspect", "for"),
        RunState::Dead => of("dead", "for"),
        RunState::Left => of("left", "since"),
        RunState::Ended => "ended run".to_owned(),
        RunState::Unknown => "unknown node".to_owned(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The name of an actor: its node, with the run where the node has several.
pub(super) fn name<'a>(actor: &Actor, mut all: impl Iterator<Item = &'a Actor>) -> String {
    let is_alone = !all.any(|other| other.node == actor.node && other != actor);
    if is_alone { actor.node.to_string() } else { actor.to_string() }
}

/// The heading of a view.
pub(super) fn heading(subject: &Subject, key: Option<&str>) -> String {
    let window = subject.window.map(|(age, number)| format!(", window {age} (number {number})")).unwrap_or_default();
    let key = key.map(|key| format!(" {key}")).unwrap_or_default();
    let Subject { object, class, viewer, .. } = subject;
    let class = if class == object { String::new() } else { format!(" ({class})") };
    format!("{object}{class}{key}{window}, as {viewer} holds it")
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Incarnation, NodeName};

    use super::*;

    fn subject(on_dead: Option<OnDead>) -> Subject {
        Subject {
            object: "inbound_cidr".to_owned(),
            class: "inbound_cidr".to_owned(),
            viewer: Actor::new(NodeName::new("relay-0-1").unwrap(), Incarnation(7)),
            window: None,
            on_dead,
            keys: 0,
            fingerprint: None,
            is_cache: false,
        }
    }

    #[test]
    fn the_reason_is_named() {
        let dead = Standing { state: RunState::Dead, for_ms: Some(3_000) };
        let drop = subject(Some(OnDead::Drop(Duration::from_secs(10))));
        let yes = |standing| Counting { counts: true, standing };
        assert_eq!(counts(yes(&dead), &drop), "yes: dead for 3.0 s, counts until 10.0 s");
        assert_eq!(counts(Counting { counts: false, standing: &dead }, &drop), "no: dead for 3.0 s");
        assert_eq!(counts(yes(&dead), &subject(Some(OnDead::Hold))), "yes: dead for 3.0 s, on_dead = hold");
        let [ended, alive] = [RunState::Ended, RunState::Alive].map(Standing::of);
        assert_eq!(counts(yes(&ended), &subject(None)), "yes: ended run, events stay");
        assert_eq!(counts(yes(&alive), &drop), "yes");
        assert_eq!(time(90_000), "1 min 30 s");
    }
}
