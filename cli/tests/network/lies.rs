//! Messages that no honest node sends.

use std::net::SocketAddr;

use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Incarnation, Kind, NodeName, StructureId, UnixMs, Version, bounds, key};

use crate::truth::INBOUND;

/// The key of an address that no node counts.
pub(crate) fn address_key(number: u32) -> Vec<u8> {
    let [_, a, b, c] = number.to_be_bytes();
    let (key, len) = key::from_net(std::net::IpAddr::from([198, 18 | a & 1, b, c]).into());
    key[..len].to_vec()
}

/// The rows of a delta: slot, version, and the key; no key for a vacant slot.
pub(crate) fn rows(after: u64, rows: impl IntoIterator<Item = (u32, u64, Option<Vec<u8>>)>) -> Vec<u8> {
    let mut writer = RowWriter::new(Version(after));
    for (slot, version, key) in rows {
        let state = match &key {
            Some(key) => RowState::Live { key: Some(key), added: 1_000_000, removed: 1 },
            None => RowState::Vacant,
        };
        writer.push(WireRow { slot, version: Version(version), state });
    }
    writer.finish()
}

/// A delta that claims to be everything between two versions.
pub(crate) fn delta<'a>(object: &str, actor: &Actor, after: u64, upto: u64, rows: &'a [u8]) -> Message<'a> {
    Message::Delta(Delta {
        structure: StructureId::of(object),
        actor: actor.clone(),
        since: Version(0),
        keys_complete: Version(0),
        after: Version(after),
        upto: Version(upto),
        low_water: Version(0),
        snapshot: false,
        fingerprint: Some(1),
        rows,
    })
}

/// A digest that states applied versions of these actors.
pub(crate) fn digest(object: &str, incarnation: u64, actors: impl IntoIterator<Item = (Actor, u64)>) -> Message<'_> {
    let entries = actors.into_iter().map(|(actor, applied)| DigestEntry {
        actor,
        since: Version(0),
        applied: Version(applied),
        low_water: Version(0),
        fingerprint: 1,
        age_ms: None,
    });
    let part = StructureDigest {
        structure: StructureId::of(object),
        name: object,
        kind: Kind::CidrTree,
        entries: entries.collect(),
    };
    Message::Digest(Digest {
        incarnation: Incarnation(incarnation),
        clock_ms: UnixMs(0),
        answers: 0,
        complete: true,
        structures: vec![part],
        tombstones: Vec::new(),
    })
}

/// A digest that states that all possible runs of these nodes are forgotten.
pub(crate) fn forgotten(incarnation: u64, nodes: impl IntoIterator<Item = NodeName>) -> Message<'static> {
    let Message::Digest(mut digest) = digest(INBOUND, incarnation, []) else { unreachable!("it is one") };
    digest.tombstones = nodes
        .into_iter()
        .map(|node| Tombstone {
            node,
            from: Incarnation(0),
            incarnation: Incarnation(bounds::INCARNATION),
            until_ms: UnixMs(u64::MAX),
        })
        .collect();
    Message::Digest(digest)
}

/// A life of a run in the membership: node, address, run, life, and whether it has left.
pub(crate) type Named = (NodeName, SocketAddr, u64, u32, bool);

/// The state of a member in hearsay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Alive = 0,
    Suspect = 1,
    Down = 2,
}

/// A membership datagram from one node to another with hearsay about other members.
pub(crate) fn gossip(from: &Named, to: &Named, said: &[(Named, u16, State)]) -> Vec<u8> {
    const GOSSIP: u8 = 8;
    let written = |parts: Result<Vec<u8>, postcard::Error>| parts.expect("it can be written");
    let mut data = written(postcard::to_stdvec(&(from, 0u16, to)));
    data.push(GOSSIP);
    data.extend_from_slice(&(said.len() as u16).to_be_bytes());
    for (named, refutation, state) in said {
        data.extend(written(postcard::to_stdvec(&(named, refutation))));
        data.push(*state as u8);
    }
    data
}
