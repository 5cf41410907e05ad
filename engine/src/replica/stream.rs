//! The names of what a replica keeps for each structure and actor.

use tallymesh_schemas::{Actor, StructureId};

/// A structure and an actor in it.
pub(crate) type StreamId = (StructureId, Actor);
