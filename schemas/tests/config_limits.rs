//! The `limits` block.

use std::time::Duration;

use tallymesh_schemas::config::{Config, InboundMaximum, OutboundScope};
use tallymesh_schemas::{Class, OnPartition, Strength};

const CLUSTER: &str = r#"
cluster {
  Replicate "inbound_cidr" {}
  Replicate "shared_named_throttles" {}
  Replicate "OBTM" {}
  Replicate "OBTC" {}
}
"#;

fn read(limits: &str) -> Result<Config, String> {
    Config::parse(&format!("{CLUSTER}{limits}"), "mesh.hcl").map_err(|errors| errors.to_string())
}

#[test]
fn everything_is_read() {
    let config = read(
        r#"
limits {
  founders = ["b", "a"]
  reclaim_after = "2m"
  stand_in = false
  throttle "campaign" {
    rate = "300/5m"
    burst = 30
    strength = "hard"
    on_partition = "fail_closed"
  }
  throttle "plain" { rate = "10" }
  throttle "eager" {
    rate = "1/1h"
    epsilon = 0.05
  }
  permits "sessions" { maximum = 20 }
  global {
    cluster_outbound_throttle_messages = "1000/1s"
    cluster_server_max_outbound_connections = 5000
  }
  domain "*" { cluster_max_outbound_connections = 20 }
  domain "AOL.com" {
    cluster_outbound_throttle_connections = "5/1s"
    cluster_max_outbound_connections = -1
  }
  binding_group "bulk" { cluster_scope_max_outbound_connections = 100 }
  binding "b1/aol.com" { cluster_scope_max_outbound_connections = 3 }
  inbound "/32" { max_connections = 10 }
  inbound "/64" { max_connections = 30 }
  inbound "/24" {
    max_connections = 50
    ip_version = 4
  }
}
"#,
    )
    .unwrap();
    let limits = config.limits.unwrap();
    assert_eq!(limits.founders.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!((limits.reclaim_after, limits.stand_in), (Duration::from_secs(120), false));
    let [campaign, plain, eager] = &limits.throttles[..] else { panic!("{:?}", limits.throttles) };
    assert_eq!((campaign.spec.rate.to_string(), campaign.spec.rate.burst()), ("300/5m".to_owned(), 30));
    assert_eq!((campaign.spec.strength, campaign.spec.on_partition), (Strength::Hard, OnPartition::FailClosed));
    assert_eq!(
        (plain.spec.strength, plain.spec.on_partition, plain.spec.epsilon),
        (Strength::Soft, OnPartition::FailOpen, 950)
    );
    assert_eq!((eager.spec.rate.period(), eager.spec.epsilon), (Duration::from_secs(3600), 50));
    let permits: Vec<_> = limits.permits.iter().map(|permits| (permits.name.as_str(), permits.maximum)).collect();
    assert_eq!(permits, [("sessions", 20)]);
    let maxima: Vec<_> = limits.outbound.iter().map(|limits| (limits.scope.to_string(), limits.maximum)).collect();
    let expected = [
        ("global", Some(5000)),
        ("domain *", Some(20)),
        ("domain aol.com", None),
        ("binding_group bulk", Some(100)),
        ("binding b1/aol.com", Some(3)),
    ];
    assert_eq!(maxima, expected.map(|(scope, maximum)| (scope.to_owned(), maximum)));
    assert_eq!(limits.outbound[4].scope, OutboundScope::BindingDomain("b1".to_owned(), "aol.com".to_owned()));
    assert_eq!(limits.outbound[0].messages.unwrap().rate.tokens(), 1000);
    let inbound = |prefix_len, v6, maximum| InboundMaximum { prefix_len, v6, maximum };
    assert_eq!(limits.inbound, [inbound(32, false, 10), inbound(64, true, 30), inbound(24, false, 50)]);
    assert!(config.structures.iter().any(|spec| spec.class == Class::OutboundMessages));
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    for (limits, message, help) in [
        ("throttle \"t\" { strength = \"hard\" }", "throttle \"t\" has no \"rate\"", "rate = \"300/5m\""),
        ("throttle \"t\" { rate = \"fast\" }", "bad rate \"fast\"", "write how many in how long"),
        ("throttle \"!t\" { rate = \"1\" }", "this cannot be the name of a throttle", "no \"!\" at the beginning"),
        ("throttle \"t\" {\n rate = \"1\"\n strength = \"hard\"\n}", "a hard limit without founders", "founders = ["),
        ("throttle \"t\" {\n rate = \"1\"\n strength = \"firm\"\n}", "unknown strength \"firm\"", "soft and hard"),
        ("throttle \"t\" {\n rate = \"1\"\n epsilon = 2\n}", "\"epsilon\" is out of range: 2", "from 0.001 to 1"),
        ("throttle \"t\" { rate = \"1\" }\nthrottle \"t\" { rate = \"1\" }", "throttle \"t\" stands twice", "keep one"),
        ("permits \"p\" { maximum = 0 }", "\"maximum\" is out of range: 0", "from 1 to"),
        ("permits \"p\" { maximum = 1 }", "permits without founders", "founders = ["),
        ("permits \"!\" { maximum = 1 }", "this cannot be the name of permits", "no \"!\""),
        (
            "founders = [\"a\"]\nthrottle \"t\" { rate = \"1\" }\npermits \"t\" { maximum = 1 }",
            "the name \"t\" of permits stands twice",
            "rename one",
        ),
        ("founders = [\"A\"]", "bad node name \"A\"", "lower-case"),
        ("reclaim_after = \"30\"", "bad reclaim_after \"30\"", "s, m or h"),
        (
            "host \"h.example\" { cluster_outbound_throttle_messages = \"1\" }",
            "does not apply to host",
            "global, domain",
        ),
        ("domain \"d\" { cluster_server_max_outbound_connections = 1 }", "does not apply to domain", "is of global"),
        ("inbound \"/33\" {\n max_connections = 1\n ip_version = 4\n}", "32 bits, not 33", "ip_version = 6"),
        ("inbound \"24\" { max_connections = 1 }", "\"24\" is not a prefix length", "inbound \"/24\""),
        ("domain \"a b\" { cluster_max_outbound_connections = 1 }", "bad name of domain \"a b\"", "not a domain"),
    ] {
        let error = read(&format!("limits {{\n{limits}\n}}\n")).unwrap_err();
        assert!(error.contains(message) && error.contains(help), "{limits}: {error}");
    }
    let error = Config::parse("limits {\n throttle \"t\" { rate = \"1\" }\n}\n", "mesh.hcl").unwrap_err().to_string();
    assert!(error.contains("Replicate \"shared_named_throttles\" {}"), "{error}");
}
