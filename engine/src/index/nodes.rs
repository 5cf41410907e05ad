//! The inner nodes of the radix tree: sorted arrays in four sizes, with one arena per size.
//!
//! The aggregate of an edge is a type parameter. A tree that only orders has an empty aggregate, which takes no memory.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "positions in a node are found in the node itself, and a node has at most 256 children"
)]

use crate::keyspace::id::CellId;
use crate::spare::Vacant;

const LEAF: u32 = 1 << 31;

/// An edge: to a leaf or to an inner node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ref(u32);

impl Ref {
    pub(super) fn leaf(id: CellId) -> Self {
        debug_assert!(id < LEAF, "cell numbers stay below 2^31");
        Self(id | LEAF)
    }

    pub(super) fn inner(node: NodeId) -> Self {
        Self(node.0)
    }

    pub(super) fn leaf_id(self) -> Option<CellId> {
        (self.0 & LEAF != 0).then_some(self.0 & !LEAF)
    }

    pub(super) fn node(self) -> Option<NodeId> {
        (self.0 & LEAF == 0).then_some(NodeId(self.0))
    }
}

/// The number of a node: its size in the lowest two bits, its position in that size's arena above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct NodeId(u32);

impl NodeId {
    fn new(size: usize, place: u32) -> Self {
        Self(place << 2 | size as u32)
    }

    fn size(self) -> usize {
        (self.0 & 3) as usize
    }

    fn place(self) -> usize {
        (self.0 >> 2) as usize
    }
}

/// An edge with its aggregate, side by side, because a reader of one mostly needs the other.
#[derive(Clone, Copy, Debug, Default)]
struct Edge<S> {
    to: Ref,
    sum: S,
}

#[derive(Debug)]
struct Node<S, const N: usize> {
    depth: u16,
    len: u16,
    bytes: [u8; N],
    edges: [Edge<S>; N],
}

/// The aggregate of an edge.
pub(crate) trait Aggregate: Copy + Default + PartialEq + std::fmt::Debug {
    fn plus(self, other: Self) -> Self;
}

/// No aggregate.
impl Aggregate for () {
    fn plus(self, (): Self) {}
}

/// Counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sum {
    /// The count of all actors that count.
    pub(crate) all: i64,
    /// This node's own part of it.
    pub(crate) own: i64,
}

impl Aggregate for Sum {
    fn plus(self, other: Self) -> Self {
        Self { all: self.all.wrapping_add(other.all), own: self.own.wrapping_add(other.own) }
    }
}

impl Sum {
    pub(crate) fn minus(self, other: Self) -> Self {
        Self { all: self.all.wrapping_sub(other.all), own: self.own.wrapping_sub(other.own) }
    }
}

#[derive(Debug)]
struct Arena<S, const N: usize> {
    /// One without children is vacant.
    nodes: Vec<Node<S, N>>,
    vacant: Vacant,
}

impl<S, const N: usize> Default for Arena<S, N> {
    fn default() -> Self {
        Self { nodes: Vec::new(), vacant: Vacant::default() }
    }
}

impl<S: Aggregate, const N: usize> Arena<S, N> {
    fn make(&mut self, depth: u16) -> u32 {
        let node = Node { depth, len: 0, bytes: [0; N], edges: [Edge::default(); N] };
        let nodes = &self.nodes;
        match self.vacant.take(|place| nodes.get(place as usize).is_some_and(|node| node.len == 0)) {
            Some(place) => {
                self.nodes[place as usize] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    fn free(&mut self, place: u32) {
        self.nodes[place as usize].len = 0;
        self.vacant.give(place, &mut self.nodes, |node| node.len == 0);
    }

    fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<S, N>>() + self.vacant.bytes()
    }
}

struct View<'a, S> {
    bytes: &'a [u8],
    edges: &'a [Edge<S>],
}

struct ViewMut<'a, S> {
    len: &'a mut u16,
    bytes: &'a mut [u8],
    edges: &'a mut [Edge<S>],
}

/// All inner nodes of a tree.
#[derive(Debug, Default)]
pub(super) struct Nodes<S> {
    tiny: Arena<S, 4>,
    small: Arena<S, 16>,
    large: Arena<S, 64>,
    full: Arena<S, 256>,
}

const CAPACITY: [usize; 4] = [4, 16, 64, 256];

/// Runs `$body` with `$node` bound to the node, whatever its size.
macro_rules! sized {
    ($self:expr, $id:expr, $access:ident, |$node:ident| $body:expr) => {{
        let place = $id.place();
        match $id.size() {
            0 => {
                let $node = $access!($self.tiny.nodes[place]);
                $body
            }
            1 => {
                let $node = $access!($self.small.nodes[place]);
                $body
            }
            2 => {
                let $node = $access!($self.large.nodes[place]);
                $body
            }
            _ => {
                let $node = $access!($self.full.nodes[place]);
                $body
            }
        }
    }};
}

macro_rules! shared {
    ($e:expr) => {
        &$e
    };
}

macro_rules! unique {
    ($e:expr) => {
        &mut $e
    };
}

impl<S: Aggregate> Nodes<S> {
    fn view(&self, id: NodeId) -> View<'_, S> {
        sized!(self, id, shared, |node| {
            let len = node.len as usize;
            View { bytes: &node.bytes[..len], edges: &node.edges[..len] }
        })
    }

    fn view_mut(&mut self, id: NodeId) -> ViewMut<'_, S> {
        sized!(self, id, unique, |node| ViewMut { len: &mut node.len, bytes: &mut node.bytes, edges: &mut node.edges })
    }

    /// The position of the byte on which the node branches.
    pub(super) fn depth(&self, id: NodeId) -> usize {
        sized!(self, id, shared, |node| node.depth as usize)
    }

    /// The number of children before `byte`.
    pub(super) fn rank(&self, id: NodeId, byte: u8) -> usize {
        self.view(id).bytes.partition_point(|other| *other < byte)
    }

    /// The child for `byte`.
    pub(super) fn find(&self, id: NodeId, byte: u8) -> Option<usize> {
        let bytes = self.view(id).bytes;
        // In a full node every byte is at its own index.
        if bytes.len() == 256 {
            return Some(usize::from(byte));
        }
        bytes.binary_search(&byte).ok()
    }

    pub(super) fn child(&self, id: NodeId, child: usize) -> Ref {
        self.view(id).edges[child].to
    }

    pub(super) fn get_child(&self, id: NodeId, child: usize) -> Option<Ref> {
        self.view(id).edges.get(child).map(|edge| edge.to)
    }

    pub(super) fn set_child(&mut self, id: NodeId, child: usize, edge: Ref) {
        self.view_mut(id).edges[child].to = edge;
    }

    pub(super) fn sum(&self, id: NodeId, child: usize) -> S {
        self.view(id).edges[child].sum
    }

    /// The sum of the children from `low` to `high`, both included.
    pub(super) fn sum_between(&self, id: NodeId, low: u8, high: u8) -> S {
        let view = self.view(id);
        let from = view.bytes.partition_point(|byte| *byte < low);
        let to = view.bytes.partition_point(|byte| *byte <= high);
        view.edges[from..to].iter().fold(S::default(), |sum, edge| sum.plus(edge.sum))
    }

    pub(super) fn add(&mut self, id: NodeId, child: usize, n: S) {
        let edge = &mut self.view_mut(id).edges[child];
        edge.sum = edge.sum.plus(n);
    }

    fn make(&mut self, size: usize, depth: u16) -> NodeId {
        let place = match size {
            0 => self.tiny.make(depth),
            1 => self.small.make(depth),
            2 => self.large.make(depth),
            _ => self.full.make(depth),
        };
        NodeId::new(size, place)
    }

    fn free(&mut self, id: NodeId) {
        let place = id.place() as u32;
        match id.size() {
            0 => self.tiny.free(place),
            1 => self.small.free(place),
            2 => self.large.free(place),
            _ => self.full.free(place),
        }
    }

    /// A new node over two edges.
    pub(super) fn branch(&mut self, depth: usize, a: (u8, Ref, S), b: (u8, Ref, S)) -> NodeId {
        let id = self.make(0, depth as u16);
        let id = self.insert(id, a.0, a.1, a.2);
        self.insert(id, b.0, b.1, b.2)
    }

    /// Adds a child. Returns the node, which may have moved into a larger one.
    pub(super) fn insert(&mut self, id: NodeId, byte: u8, edge: Ref, sum: S) -> NodeId {
        let len = self.view(id).bytes.len();
        let id = if len == CAPACITY[id.size()] { self.resize(id, id.size() + 1) } else { id };
        let node = self.view_mut(id);
        let at = node.bytes[..len].partition_point(|other| *other < byte);
        node.bytes.copy_within(at..len, at + 1);
        node.edges.copy_within(at..len, at + 1);
        (node.bytes[at], node.edges[at]) = (byte, Edge { to: edge, sum });
        *node.len += 1;
        id
    }

    /// Removes a child. Returns what replaces the node: itself, a smaller node, or its only remaining child.
    pub(super) fn remove(&mut self, id: NodeId, child: usize) -> Ref {
        let node = self.view_mut(id);
        let len = *node.len as usize;
        node.bytes.copy_within(child + 1..len, child);
        node.edges.copy_within(child + 1..len, child);
        *node.len -= 1;
        let len = len - 1;
        if len == 1 {
            let edge = node.edges[0].to;
            self.free(id);
            return edge;
        }
        match id.size().checked_sub(1) {
            // Keeps some spare room, so that a child that is added and removed repeatedly does not move the node each time.
            Some(smaller) if len <= CAPACITY[smaller] * 3 / 4 => Ref::inner(self.resize(id, smaller)),
            _ => Ref::inner(id),
        }
    }

    fn resize(&mut self, id: NodeId, size: usize) -> NodeId {
        let depth = self.depth(id) as u16;
        let new = self.make(size, depth);
        let view = self.view(id);
        let len = view.bytes.len();
        let (mut bytes, mut edges) = ([0; 256], [Edge::default(); 256]);
        bytes[..len].copy_from_slice(view.bytes);
        edges[..len].copy_from_slice(view.edges);
        let node = self.view_mut(new);
        node.bytes[..len].copy_from_slice(&bytes[..len]);
        node.edges[..len].copy_from_slice(&edges[..len]);
        *node.len = len as u16;
        self.free(id);
        new
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.tiny.bytes() + self.small.bytes() + self.large.bytes() + self.full.bytes()
    }
}
