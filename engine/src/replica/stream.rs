//! The names of what a replica keeps for each structure and actor.

use std::collections::BTreeMap;

use tallymesh_schemas::message::SeenEntry;
use tallymesh_schemas::{Actor, StructureId};

/// A structure and an actor in it.
pub(crate) type StreamId = (StructureId, Actor);

/// A node's progress for each actor in a cache, all of it at one moment.
pub(crate) type Vector = BTreeMap<Actor, SeenEntry>;
