//! Maelstrom's messages: envelopes with a body of a type, replies, and errors by code.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A body of a message: a JSON object.
pub(super) type Body = Map<String, Value>;

/// A message, which is one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) src: String,
    pub(super) dest: String,
    pub(super) body: Body,
}

/// Why a request was refused. A refused request had no effect: all codes are definite ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The workload has no such request.
    #[error("\"{request}\" is not a request of the workload {workload}")]
    NotSupported {
        /// The request.
        request: String,
        /// The workload of this node.
        workload: &'static str,
    },
    /// Nothing can be done before the node knows its name.
    #[error("this node has no name yet: send init first")]
    Unnamed,
    /// A field is missing or not what it should be.
    #[error("\"{field}\" {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: String,
    },
}

impl Refusal {
    pub(super) fn field(field: &'static str, expected: impl Into<String>) -> Self {
        Self::Field { field, expected: expected.into() }
    }

    /// Maelstrom's number for it.
    fn code(&self) -> u32 {
        match self {
            Self::NotSupported { .. } => 10,
            Self::Unnamed => 11,
            Self::Field { .. } => 12,
        }
    }
}

/// Reads a line.
///
/// # Errors
/// What is wrong with a line that is no message. It has no sender and number, so it cannot be answered.
pub(super) fn read(line: &[u8]) -> Result<Envelope, String> {
    serde_json::from_slice(line).map_err(|error| format!("not a message: {error}"))
}

/// The type of a body.
pub(super) fn kind(body: &Body) -> Result<&str, Refusal> {
    body.get("type").and_then(Value::as_str).ok_or_else(|| Refusal::field("type", "has to be a string"))
}

/// Appends the line of a message to `out`.
pub(super) fn write(message: &Envelope, out: &mut Vec<u8>) {
    // Strings, numbers and objects with string keys, into memory: there is nothing that could fail.
    let written = serde_json::to_writer(&mut *out, message);
    debug_assert!(written.is_ok(), "a message can always be written: {written:?}");
    out.push(b'\n');
}

/// The reply to a request; `None` when it did not ask for one.
pub(super) fn reply(request: &Envelope, answer: Result<Body, Refusal>) -> Option<Envelope> {
    let msg_id = request.body.get("msg_id")?.clone();
    let mut body = answer.unwrap_or_else(|refusal| {
        body("error", [("code", Value::from(refusal.code())), ("text", Value::from(refusal.to_string()))])
    });
    body.insert("in_reply_to".to_owned(), msg_id);
    Some(Envelope { src: request.dest.clone(), dest: request.src.clone(), body })
}

/// A body of a type with fields.
pub(super) fn body<const N: usize>(kind: &str, fields: [(&str, Value); N]) -> Body {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    std::iter::once(("type".to_owned(), Value::from(kind))).chain(fields).collect()
}
