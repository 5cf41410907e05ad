//! Encoding of this node's messages.

use tallymesh_schemas::message::Message;

/// Encodes a message of this node.
pub(crate) fn send(message: &Message<'_>, buf: &mut Vec<u8>) {
    let encoded = message.encode(buf);
    debug_assert!(encoded.is_ok(), "our own messages keep the bounds: {encoded:?}");
}
