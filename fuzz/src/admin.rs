//! The admin protocol: requests and answers come back when they are encoded, and are no larger than what came.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tallymesh_schemas::admin::{self, Answer, Request};
use tallymesh_schemas::{Class, key};

/// Decodes a request and an answer.
pub fn run(bytes: &[u8]) {
    if let Some(request) = decoded::<Request>(bytes) {
        read_keys(&request);
    }
    decoded::<Answer>(bytes);
}

fn decoded<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let message: T = admin::decode(bytes).ok()?;
    let again = admin::encode(&message).expect("what was decoded can be encoded");
    // A duration may come with more than a second of nanoseconds, and go with one more byte of seconds.
    assert!(again.len() <= bytes.len() + 1, "the encoding is the shortest form");
    assert_eq!(admin::decode::<T>(&again).as_ref(), Ok(&message));
    assert!(format!("{message:?}").len() < 1024 + 256 * bytes.len(), "what is decoded is no larger than what came");
    Some(message)
}

/// A node reads the keys of a request as those of the object's class, whichever that is.
fn read_keys(request: &Request) {
    let keys: Vec<&str> = match request {
        Request::Add { key, .. } | Request::Count { key, .. } | Request::Hold { key, .. } => vec![key],
        Request::Load { lines, .. } => lines.iter().map(|(key, _)| key.as_str()).collect(),
        _ => Vec::new(),
    };
    for text in keys {
        for class in Class::ALL {
            if let Err(error) = key::parse(class, text) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}
