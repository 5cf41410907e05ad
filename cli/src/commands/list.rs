//! `tally cluster shared list`: the replicated objects.

use serde_json::json;
use tallymesh_schemas::admin::{Answer, Object, Request};

use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Asks a node for its objects, and writes them.
pub(crate) fn run(target: &Target, format: Format) -> Result<(), Failure> {
    let objects = target.connect()?.one(&Request::List, |answer| match answer {
        Answer::Objects(objects) => Some(objects),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Text => {
            out.line(style::strong("Currently managed objects:"))?;
            for object in &objects {
                out.line(line(object))?;
            }
        }
        Format::Json => out.json(&objects.iter().map(as_json).collect::<Vec<_>>())?,
        Format::Csv => {
            out.csv(&["name", "class", "kind", "snapshots", "keys", "bytes"])?;
            for Object { name, class, kind, snapshot, keys, bytes } in &objects {
                let (snapshot, keys, bytes) = (snapshot.to_string(), keys.to_string(), bytes.to_string());
                out.csv(&[name, class, kind.label(), &snapshot, &keys, &bytes])?;
            }
        }
    }
    out.flush()
}

/// A line as on Momentum's console: the name ends in column 30.
fn line(Object { name, kind, snapshot, .. }: &Object) -> String {
    format!("{name:>30} [lazy, {}{}]", kind.label(), if *snapshot { " w/ snapshots" } else { "" })
}

/// An object as JSON shows it.
pub(super) fn as_json(Object { name, class, kind, snapshot, keys, bytes }: &Object) -> serde_json::Value {
    json!({
        "name": name, "class": class, "kind": kind.label(), "snapshots": snapshot, "keys": keys, "bytes": bytes,
    })
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::Class;

    use super::*;

    #[test]
    fn names_end_in_column_30_as_on_the_console() {
        let object = |class: Class, snapshot| Object {
            name: class.name().to_owned(),
            class: class.name().to_owned(),
            kind: class.kind(),
            snapshot,
            keys: 0,
            bytes: 0,
        };
        assert_eq!(
            line(&object(Class::InboundCidr, true)),
            "                  inbound_cidr [lazy, cidrtree w/ snapshots]"
        );
        assert_eq!(
            line(&object(Class::OutboundDomains, true)),
            "              outbound_domains [lazy, gauge table w/ snapshots]"
        );
        assert_eq!(line(&object(Class::OutboundCidr, false)), "                 outbound_cidr [lazy, cidrtree]");
    }
}
