//! The file that `tally init` writes reads back as what it was written from.

use std::num::NonZeroU64;
use std::path::PathBuf;

use proptest::prelude::*;
use tallymesh_schemas::config::{
    Config, HttpAddress, LogLevel, Metric, NodeConfig, OnFullDisk, SAMPLES, Tls, render_node_file,
};
use tallymesh_schemas::{Budget, Class, NodeName, StructureName, StructureSpec};

fn node() -> NodeConfig {
    let tls = Tls { ca: "ca.pem".into(), cert: "relay-0-1.pem".into(), key: "relay-0-1.key".into() };
    NodeConfig {
        name: NodeName::new("relay-0-1").unwrap(),
        listen: "127.0.0.1:4801".parse().unwrap(),
        advertise: None,
        seeds: vec!["127.0.0.1:4802".to_owned(), "mx.example.net:4803".to_owned()],
        tls,
        admin: Some("relay-0-1.sock".into()),
        http: None,
        data_dir: None,
        on_full_disk: OnFullDisk::default(),
        budget: Budget::default(),
        log: None,
    }
}

fn read_back(node: &NodeConfig, classes: &[Class]) {
    let text = render_node_file(node, classes);
    let config = Config::parse(&text, "init.hcl").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(config.node.as_ref(), Some(node));
    let specs: Vec<_> =
        classes.iter().map(|class| StructureSpec::new(StructureName::new(class.name()).unwrap(), *class)).collect();
    assert_eq!(config.structures, specs);
    assert_eq!(config.series.len(), Metric::ALL.len());
    assert!(config.series.iter().all(|spec| spec.replicate && (spec.interval, spec.windows) == (300, 6)));
}

#[test]
fn a_node_with_all_classes_reads_back() {
    read_back(&node(), &Class::ALL);
    read_back(&node(), &[]);
    let everything = NodeConfig {
        listen: "[::]:4801".parse().unwrap(),
        advertise: Some("[2001:db8::1]:4801".parse().unwrap()),
        admin: None,
        http: Some(HttpAddress::Tcp("[::1]:9180".parse().unwrap())),
        data_dir: Some("state".into()),
        on_full_disk: OnFullDisk::Serve,
        budget: Budget { keys: NonZeroU64::new(7), bytes: NonZeroU64::new(8) },
        log: Some(LogLevel::Debug),
        ..node()
    };
    read_back(&everything, &Class::ALL);
}

#[test]
fn keys_without_a_value_are_comments() {
    let text = render_node_file(&NodeConfig { admin: None, ..node() }, &Class::ALL);
    for line in [
        "  # advertise = \"192.0.2.1:4801\"",
        "  # admin = \"relay-0-1.sock\"",
        "  # data_dir = \"relay-0-1.state\"",
        "  # http = \"127.0.0.1:9180\"",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
    }
}

/// The objects that the help's examples name are there, and each class is.
#[test]
fn the_samples_complete_a_nodes_file() {
    let text = render_node_file(&node(), &Class::ALL) + SAMPLES;
    let config = Config::parse(&text, "init.hcl").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let structures: Vec<_> = config.structures.iter().map(|spec| spec.class).collect();
    assert_eq!(structures, [&Class::ALL[..], &Class::THROTTLES[..]].concat());
    assert!(config.series.iter().any(|spec| spec.name.as_str() == "logins" && !spec.name.is_metric()));
    assert_eq!(config.caches.iter().map(|cache| cache.name.as_str()).collect::<Vec<_>>(), ["sessions"]);
    assert!(config.gauge_caches.iter().any(|spec| spec.name.as_str() == "retries" && spec.replicate));
    let limits = config.limits.unwrap();
    assert_eq!(limits.throttles.iter().map(|throttle| throttle.name.as_str()).collect::<Vec<_>>(), ["campaign"]);
    assert_eq!(limits.inbound.len(), 3);
}

proptest! {
    #[test]
    fn any_path_reads_back(paths in proptest::array::uniform5("[^\u{0}]{1,12}")) {
        let [ca, cert, key, admin, data_dir] = paths.map(PathBuf::from);
        let tls = Tls { ca, cert, key };
        let http = Some(HttpAddress::Unix(PathBuf::from("run").join(&admin)));
        let node = NodeConfig { tls, admin: Some(admin), data_dir: Some(data_dir), http, ..node() };
        read_back(&node, &[Class::InboundCidr]);
    }

    #[test]
    fn paths_with_characters_that_hcl_escapes_read_back(path in "[$%{}\"\\\\~\n\t#/*<a]{1,12}") {
        read_back(&NodeConfig { data_dir: Some(path.into()), ..node() }, &[]);
    }
}
