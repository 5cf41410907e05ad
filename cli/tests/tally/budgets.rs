//! A node with a budget: what its commands say when there is no room.

use crate::support::{Mesh, SOON, eventually};

const SMALL: &str = "relay-0-1";
const OTHER: &str = "relay-0-2";

#[test]
fn a_full_object_refuses_further_keys_and_says_so() {
    let mut mesh = Mesh::new(&[SMALL, OTHER]);
    let bounded = "Replicate \"inbound_cidr\" { max_keys = 2 }";
    mesh.edit(SMALL, |text| text.replacen("Replicate \"inbound_cidr\" {}", bounded, 1));
    mesh.start(SMALL, &[]);
    mesh.start(OTHER, &[]);
    mesh.wait_for_links();
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.2"] {
        mesh.ask(SMALL, &["add", "inbound_cidr", address]).ok();
    }
    let refused = mesh.ask(SMALL, &["add", "inbound_cidr", "192.0.2.3"]).fails(1);
    assert!(refused.contains("\"inbound_cidr\" has 2 keys and may have 2: raise max_keys"), "{refused}");
    assert_eq!(mesh.counter(SMALL, "keys_refused"), 1);
    let info = mesh.ask(SMALL, &["cluster", "info"]).ok();
    assert!(info.contains("inbound_cidr: 2 of 2 keys") && info.contains("this node: "), "{info}");
    let info = mesh.ask(SMALL, &["--output", "json", "cluster", "info"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let budgets = info["budgets"].as_array().unwrap();
    let inbound = budgets.iter().find(|budget| budget["object"] == "inbound_cidr").unwrap();
    assert_eq!((&inbound["keys"], &inbound["max_keys"]), (&2.into(), &2.into()));
    assert!(budgets[0]["object"].is_null() && budgets[0]["keys"].as_u64() > Some(2), "{}", budgets[0]);
    // A key of the other node does not fit either.
    mesh.ask(OTHER, &["add", "inbound_cidr", "192.0.2.9"]).ok();
    eventually("the other node's row is refused", SOON, || match mesh.counter(SMALL, "deltas_without_room") {
        0 => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    for (node, part) in [(SMALL, "inbound_cidr: this node's budget has no room for all keys"), (OTHER, "lags")] {
        let verified = mesh.ask(node, &["verify", "--patience", "1"]);
        assert_eq!(verified.code, Some(1), "{}", verified.stdout);
        let said = verified.stdout;
        assert!(said.starts_with("not converged") && said.contains(part), "{node}: {said}");
    }
    eventually("the bound is reported", SOON, || {
        let info = mesh.ask(SMALL, &["cluster", "info"]).ok();
        if info.contains("budget of inbound_cidr, 2: ") { Ok(()) } else { Err(info) }
    });
}

/// A throttle of a scope is made when its name is first used. The error says that there is no room, and not that the name is
/// unknown.
#[test]
fn a_throttle_for_which_there_is_no_room_says_so() {
    let mut mesh = Mesh::new(&[SMALL]);
    let limits = r#"
cluster {
  Replicate "OBTM" { max_keys = 1 }
}
limits {
  domain "*" {
    cluster_outbound_throttle_messages = "100/1h"
  }
}
"#;
    mesh.edit(SMALL, |text| text + limits);
    mesh.start(SMALL, &[]);
    assert_eq!(mesh.ask(SMALL, &["throttle", "take", "domain a.example"]).ok(), "admitted\n");
    let refused = mesh.ask(SMALL, &["throttle", "take", "domain b.example"]).fails(1);
    assert!(refused.contains("has 1 keys and may have 1: raise max_keys"), "{refused}");
    let unknown = mesh.ask(SMALL, &["throttle", "take", "other"]).fails(2);
    assert!(unknown.contains("no throttle \"other\""), "{unknown}");
}
