//! Momentum's stanzas as they stand on the owner's page, in their line breaks, and one file with every block and key.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tallymesh_schemas::config::{
    CacheConfig, Config, HttpAddress, Metric, MetricsConfig, Monitor, NodeConfig, OnFullDisk, Pace, ThrottleClass,
    ThrottleConfig, Tls,
};
use tallymesh_schemas::{Bounds, Budget, Class, Kind, NodeName, OnDead, StructureName, StructureSpec};

/// A stanza group of the page.
fn page(name: &str) -> Config {
    let text = include_str!("config/momentum.txt");
    let found = text.split("=== ").find_map(|case| case.strip_prefix(name)?.strip_prefix('\n'));
    Config::parse(found.unwrap_or_else(|| panic!("no case {name}")), "page.hcl").unwrap_or_else(|e| panic!("{e}"))
}

fn name(text: &str) -> StructureName {
    StructureName::new(text).unwrap()
}

fn metrics(config: &Config) -> MetricsConfig {
    config.metrics.clone().unwrap()
}

#[test]
fn connections_and_throttles_are_built() {
    let config = page("connections and throttles");
    let classes = Class::ALL.into_iter().chain([Class::SharedNamedThrottles]);
    let specs: Vec<_> = classes.map(|class| StructureSpec::new(name(class.name()), class)).collect();
    assert_eq!(config.structures, specs);
    assert!(config.structures.iter().all(|spec| spec.snapshot));
    assert_eq!(config.node, None);
}

#[test]
fn metrics_and_monitors() {
    let config = page("inbound audit");
    let pace = Pace::default();
    let wanted = vec![Metric::Connect, Metric::Reception, Metric::Rejection];
    assert_eq!(metrics(&config), MetricsConfig { metrics: wanted, audit_series: false, gauge_cache: false, pace });
    assert_eq!(config.monitors, [Monitor { interval: 300, windows: 6 }]);
    let names: Vec<_> = config.series.iter().map(|spec| (spec.name.as_str(), spec.interval, spec.windows)).collect();
    assert_eq!(names, [("connect", 300, 6), ("reception", 300, 6), ("rejection", 300, 6)]);
    assert!(config.series.iter().all(|spec| spec.replicate && spec.kind == Kind::CidrTree && spec.name.is_metric()));

    let series = metrics(&page("audit series"));
    assert_eq!(series, MetricsConfig { metrics: vec![], audit_series: true, gauge_cache: false, pace });
    let gauges = metrics(&page("gauge cache"));
    assert_eq!(gauges, MetricsConfig { metrics: vec![], audit_series: false, gauge_cache: true, pace });
}

fn parsed(text: &str) -> Config {
    Config::parse(text, "mesh.hcl").unwrap_or_else(|errors| panic!("{errors}"))
}

/// The audit of a node alone, what the cluster shares of it, and named series.
#[test]
fn series_are_shared_as_the_metrics_say() {
    let shares = |config: &Config| {
        let all = config.series.iter().map(|spec| (spec.name.to_string(), spec.interval, spec.replicate));
        all.collect::<Vec<_>>()
    };
    let wanted = |list: &[(&str, u32, bool)]| {
        list.iter().map(|(name, interval, shared)| ((*name).to_owned(), *interval, *shared)).collect::<Vec<_>>()
    };
    let alone = parsed("inbound_audit {\n  monitors = \"60,5\"\n}\n");
    assert_eq!(shares(&alone), wanted(&[("connect", 60, false), ("reception", 60, false), ("rejection", 60, false)]));
    let metrics =
        |words: &str| format!("cluster {{\n  Replicate \"metrics\" {{\n    parameters = \"{words}\"\n  }}\n}}\n");
    let some = parsed(&metrics("delivery;connect"));
    let expected =
        [("connect", 300, true), ("reception", 300, false), ("rejection", 300, false), ("delivery", 300, true)];
    assert_eq!(shares(&some), wanted(&expected));

    let logins = "audit_series \"logins\" {\n  type = \"string\"\n  interval = 30\n  windows = 10\n}\n";
    let spammers = "audit_series \"spammers\" {\n  type = \"cidr\"\n  interval = 5\n  windows = 2\n  replicate = \"none\"\n  persist = true\n}\n";
    let named = parsed(&(metrics("audit_series") + logins + spammers));
    assert_eq!(shares(&named), wanted(&[("logins", 30, true), ("spammers", 5, false)]));
    assert_eq!([named.series[0].kind, named.series[1].kind], [Kind::GaugeTable, Kind::CidrTree]);
    assert_eq!([named.series[0].persist, named.series[1].persist], [false, true]);
    assert_eq!(shares(&parsed(logins)), wanted(&[("logins", 30, false)]), "alone unless it is switched on");
}

#[test]
fn caches_with_and_without_snapshot() {
    for (case, snapshot) in [("cache", false), ("cache with snapshot", true)] {
        let config = page(case);
        let wanted = CacheConfig { name: name("mycache"), snapshot, bounds: Bounds::default(), pace: Pace::default() };
        assert_eq!(config.caches, [wanted]);
    }
}

#[test]
fn throttles() {
    let classes = |case| page(case).throttles.iter().map(|throttle| throttle.class).collect::<Vec<_>>();
    assert_eq!(classes("named throttles"), [ThrottleClass::SharedNamed]);
    assert_eq!(classes("outbound throttles"), [ThrottleClass::OutboundMessages, ThrottleClass::OutboundConnections]);
}

fn whole() -> Config {
    Config::parse(include_str!("config/whole.hcl"), "whole.hcl").unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_key_of_the_node() {
    let tls = Tls { ca: "ca.pem".into(), cert: "pki/relay-0-1.pem".into(), key: "/etc/tallymesh/relay-0-1.key".into() };
    let seeds = ["relay-0-2.example.net:4802", "192.0.2.3:4803", "[2001:db8::4]:4804"];
    let wanted = NodeConfig {
        name: NodeName::new("relay-0-1").unwrap(),
        listen: "[::]:4801".parse().unwrap(),
        advertise: Some("192.0.2.1:4801".parse().unwrap()),
        seeds: seeds.map(str::to_owned).to_vec(),
        tls,
        admin: Some("relay-0-1.sock".into()),
        http: Some(HttpAddress::Tcp("127.0.0.1:9180".parse().unwrap())),
        data_dir: Some("/var/lib/tallymesh".into()),
        on_full_disk: OnFullDisk::default(),
        budget: Budget { keys: NonZeroU64::new(5_000_000), bytes: NonZeroU64::new(1_000_000_000) },
        log: None,
    };
    assert_eq!(whole().require_node(), Ok(&wanted));
}

#[test]
fn every_key_of_the_stanzas() {
    let config = whole();
    let spec = |text: &str, class, millis, max_pending, on_dead| {
        StructureSpec::new(name(text), class)
            .with_pace(Duration::from_millis(millis), max_pending)
            .with_on_dead(on_dead)
    };
    let keys = |most| NonZeroU64::new(most).unwrap();
    let dropped = |millis| OnDead::Drop(Duration::from_millis(millis));
    assert_eq!(
        config.structures,
        [
            spec("inbound_cidr", Class::InboundCidr, 250, 100, dropped(1500)).with_max_keys(keys(100_000)),
            spec("outbound_cidr", Class::OutboundCidr, 1000, 4096, dropped(10_000)),
            spec("bounces", Class::OutboundDomains, 10, 4096, OnDead::Hold),
            spec("shared_named_throttles", Class::SharedNamedThrottles, 2000, 4096, OnDead::Hold),
            spec("OBTM", Class::OutboundMessages, 10, 7, OnDead::Hold).with_max_keys(keys(50)),
            spec("OBTC", Class::OutboundConnections, 10, 4096, OnDead::Hold),
        ]
    );
    let pace = Pace::default();
    assert_eq!(
        config.throttles,
        [
            ThrottleConfig {
                class: ThrottleClass::SharedNamed,
                pace: Pace { max_delay: Duration::from_secs(2), ..pace },
                max_keys: None
            },
            ThrottleConfig {
                class: ThrottleClass::OutboundMessages,
                pace: Pace { max_pending: 7, ..pace },
                max_keys: NonZeroU64::new(50)
            },
            ThrottleConfig { class: ThrottleClass::OutboundConnections, pace, max_keys: None },
        ]
    );
    assert_eq!(
        metrics(&config),
        MetricsConfig { metrics: Metric::ALL.to_vec(), audit_series: true, gauge_cache: true, pace }
    );
    assert_eq!(
        config.caches,
        [
            CacheConfig {
                name: name("mycache"),
                snapshot: true,
                bounds: Bounds { elements: NonZeroU64::new(1000), bytes: None },
                pace
            },
            CacheConfig { name: name("endless"), snapshot: false, bounds: Bounds::default(), pace },
        ]
    );
    assert_eq!(config.monitors, [Monitor { interval: 300, windows: 6 }, Monitor { interval: 3600, windows: 24 }]);
    assert_eq!(config.series.len(), 6 * 2 + 1);
    let most: Vec<_> = config.series.iter().map(|spec| spec.max_keys.map(NonZeroU64::get)).collect();
    assert_eq!((most[0], most[11], most[12]), (Some(2000), Some(2000), Some(3000)));
    let gauges = &config.gauge_caches[0];
    assert_eq!((gauges.max_elements, gauges.max_keys), (NonZeroU64::new(10), NonZeroU64::new(4000)));
    assert_eq!(gauges.structure().max_keys, NonZeroU64::new(4000));
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let mut config = whole();
    config.resolve_paths(Path::new("/etc/mesh"));
    let node = config.node.unwrap();
    let paths = [Some(node.tls.ca), Some(node.tls.cert), Some(node.tls.key), node.admin, node.data_dir];
    let wanted = [
        "/etc/mesh/ca.pem",
        "/etc/mesh/pki/relay-0-1.pem",
        "/etc/tallymesh/relay-0-1.key",
        "/etc/mesh/relay-0-1.sock",
        "/var/lib/tallymesh",
    ];
    assert_eq!(paths, wanted.map(|path| Some(PathBuf::from(path))));
}

#[test]
fn line_ends_and_byte_order_marks_of_other_editors_are_taken() {
    let text = include_str!("config/whole.hcl");
    let other = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(Config::parse(&other, "whole.hcl").unwrap(), whole());
}
