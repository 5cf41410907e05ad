//! Serves the requests of Maelstrom's clients, on one structure of the engine.
//!
//! A counter is one key. In a set, the JSON text of each element is a key: an element is in the set if its count is above zero.
//! Elements are never removed.

use std::sync::Arc;

use clap::ValueEnum;
use serde_json::Value;
use tallymesh_engine::{Now, Structure};
use tallymesh_schemas::bounds;
use tallymesh_schemas::key::KeyError;

use crate::maelstrom::protocol::{Body, Refusal, body};

/// The key of a counter.
const COUNTER: &[u8] = b"counter";

/// Entries of a set that are read at a time.
const PAGE: usize = 1024;

/// Which of Maelstrom's workloads a node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// A counter that goes up and down.
    PnCounter,
    /// A counter that only goes up.
    GCounter,
    /// A set that only grows.
    GSet,
    /// Messages that are to reach every node.
    Broadcast,
}

impl Workload {
    /// Its name in Maelstrom.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PnCounter => "pn-counter",
            Self::GCounter => "g-counter",
            Self::GSet => "g-set",
            Self::Broadcast => "broadcast",
        }
    }

    /// Serves a request of a client.
    pub(super) fn serve(
        self,
        structure: &Arc<Structure>,
        now: Now,
        request: &str,
        args: &Body,
    ) -> Result<Body, Refusal> {
        match (self, request) {
            (Self::PnCounter | Self::GCounter, "add") => {
                structure.add(COUNTER, self.delta(args)?).map_err(|error| refused("delta", &error))?;
                Ok(body("add_ok", []))
            }
            (Self::PnCounter | Self::GCounter, "read") => {
                Ok(body("read_ok", [("value", Value::from(structure.count(COUNTER, now.mono).total))]))
            }
            (Self::GSet, "add") => {
                insert(structure, now, "element", args)?;
                Ok(body("add_ok", []))
            }
            (Self::GSet, "read") => Ok(body("read_ok", [("value", elements(structure))])),
            (Self::Broadcast, "broadcast") => {
                insert(structure, now, "message", args)?;
                Ok(body("broadcast_ok", []))
            }
            (Self::Broadcast, "read") => Ok(body("read_ok", [("messages", elements(structure))])),
            // The neighbours that Maelstrom proposes. Here every node has a link to every other node.
            (Self::Broadcast, "topology") => Ok(body("topology_ok", [])),
            _ => Err(Refusal::NotSupported { request: request.to_owned(), workload: self.name() }),
        }
    }

    fn delta(self, args: &Body) -> Result<i64, Refusal> {
        let lowest = if self == Self::GCounter { 0 } else { -bounds::STEP };
        let within = |n: &i64| (lowest..=bounds::STEP).contains(n);
        args.get("delta")
            .and_then(Value::as_i64)
            .filter(within)
            .ok_or_else(|| Refusal::field("delta", format!("has to be an integer from {lowest} to {}", bounds::STEP)))
    }
}

fn insert(structure: &Structure, now: Now, field: &'static str, args: &Body) -> Result<(), Refusal> {
    let element = args.get(field).ok_or_else(|| Refusal::field(field, "is missing"))?;
    let key = key_of(element);
    // An element counts as stored only if this node counted it itself: the counts of another node may be lost.
    if structure.count(key.as_bytes(), now.mono).local == 0 {
        structure.add(key.as_bytes(), 1).map_err(|error| refused(field, &error))?;
    }
    Ok(())
}

fn refused(field: &'static str, error: &KeyError) -> Refusal {
    Refusal::field(field, format!("cannot be kept: {error}; at most {} bytes of JSON are", bounds::KEY_BYTES))
}

/// An element as a key: its JSON text, with escapes for the control characters that JSON allows and keys do not. Objects
/// are written with their fields in order, so equal elements have equal keys.
fn key_of(element: &Value) -> String {
    let mut key = String::new();
    for c in element.to_string().chars() {
        if c.is_control() {
            key.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            key.push(c);
        }
    }
    key
}

fn elements(structure: &Arc<Structure>) -> Value {
    let mut elements = Vec::new();
    if let Some(mut listing) = structure.list(None) {
        loop {
            let page = listing.entries(PAGE);
            if page.is_empty() {
                break;
            }
            let present = page.iter().filter(|entry| entry.count > 0);
            // A key that is no JSON cannot come from a node of this workload: it is no element.
            elements.extend(present.filter_map(|entry| serde_json::from_slice::<Value>(&entry.key).ok()));
        }
    }
    Value::Array(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_a_key_that_reads_back_as_it() {
        for element in [r#"1"#, r#"-1.5"#, r#""a\u0000b\u007f\u0085é""#, r#"{"b":[null,true],"a":1}"#] {
            let element: Value = serde_json::from_str(element).unwrap();
            let key = key_of(&element);
            assert!(key.chars().all(|c| !c.is_control()));
            assert_eq!(serde_json::from_str::<Value>(&key).unwrap(), element);
        }
    }
}
