//! Dependencies point one way, between crates and between files, and the engine does no I/O.

mod graph;
#[path = "../source/mod.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::graph::{circles, graph};
use crate::source::{root, sources};

/// What each package of the workspace depends on; development dependencies apart.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let shipped = all.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        (text(&package["name"]), shipped.map(|dependency| text(&dependency["name"])).collect())
    });
    packages.collect()
}

#[test]
fn dependencies_point_one_way() {
    // schemas ← engine ← tallymesh → transport → schemas; cli, tests and benches sit on top.
    let allowed = [
        ("tallymesh-schemas", &[][..]),
        ("tallymesh-engine", &["tallymesh-schemas"]),
        ("tallymesh-transport", &["tallymesh-schemas"]),
        ("tallymesh", &["tallymesh-schemas", "tallymesh-engine", "tallymesh-transport"]),
        ("tallymesh-harness", &["tallymesh-schemas", "tallymesh-engine"]),
    ];
    let found = dependencies();
    for (package, may) in allowed {
        let ours = found[package].iter().filter(|name| name.starts_with("tallymesh"));
        let wrong: Vec<_> = ours.filter(|name| !may.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{package} may not depend on {wrong:?}");
    }
    let lower: BTreeSet<_> = allowed.iter().map(|(package, _)| *package).collect();
    let top: Vec<_> = found.keys().filter(|package| !lower.contains(package.as_str())).collect();
    for package in &top {
        let above: Vec<_> =
            found.iter().filter(|(_, uses)| uses.contains(package.as_str())).map(|(name, _)| name).collect();
        assert!(above.is_empty(), "{above:?} may not depend on {package}, which sits on top");
    }
}

#[test]
fn what_is_sans_io_has_no_runtime_and_no_network() {
    let found = dependencies();
    for package in ["tallymesh-schemas", "tallymesh-engine", "tallymesh-harness"] {
        for io in ["tokio", "quinn", "quinn-proto", "rustls", "socket2", "mio", "rand", "getrandom", "foca", "hyper"] {
            assert!(!found[package].contains(io), "{package} depends on {io}");
        }
    }
    for folder in ["engine/src", "schemas/src"] {
        for source in sources(&[folder]) {
            for word in
                ["std::fs", "std::thread", "TcpStream", "TcpListener", "UdpSocket", "Instant::now", "SystemTime"]
            {
                assert!(!source.text.contains(word), "{}: {word}", source.path);
            }
        }
    }
}

/// Only the node serves HTTP and has metrics.
#[test]
fn the_engine_and_the_transport_know_nothing_of_http() {
    let found = dependencies();
    for package in ["tallymesh-schemas", "tallymesh-engine", "tallymesh-transport", "tallymesh-harness"] {
        for name in ["hyper", "hyper-util", "http", "http-body-util", "prometheus-client"] {
            assert!(!found[package].contains(name), "{package} depends on {name}");
        }
    }
}

/// A program that only counts builds no database, no parser, no admin socket and no HTTP.
#[test]
fn a_program_that_only_counts_builds_no_other_parts() {
    let with = |features: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "-e", "normal", "--prefix", "none", "--format", "{lib}", "-p", "tallymesh", "--offline"])
            .args(features)
            .current_dir(root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (all, least) = (with(&[]), with(&["--no-default-features"]));
    for package in ["redb", "hcl", "rustix"] {
        assert!(all.contains(package), "{package} is built by default: {all:?}");
        assert!(!least.contains(package), "{package} is built for a program that only counts");
    }
    let http = with(&["--features", "http"]);
    for package in ["hyper", "prometheus_client"] {
        assert!(http.contains(package) && !all.contains(package), "{package} is built with the feature http only");
    }
    assert!(least.contains("tallymesh_engine") && least.is_subset(&all), "{least:?}");
}

/// The feature that breaks rules is nobody's default and only the harness hands it on.
#[test]
fn canaries_are_never_shipped() {
    for manifest in ["Cargo.toml", "cli/Cargo.toml", "transport/Cargo.toml", "schemas/Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(manifest)).unwrap();
        assert!(!text.contains("canaries"), "{manifest}");
    }
    for manifest in ["engine/Cargo.toml", "tests/Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(manifest)).unwrap();
        let is_default = text.lines().any(|line| line.starts_with("default =") && line != "default = [\"swarm\"]");
        assert!(text.contains("canaries = [") && !is_default, "{manifest}");
    }
}

#[test]
fn no_file_uses_a_file_that_uses_it() {
    let mut found = Vec::new();
    for folder in
        ["schemas/src", "engine/src", "transport/src", "src", "cli/src", "tests/src", "fuzz/src", "benches/src"]
    {
        let names = |circle: BTreeSet<Vec<String>>| circle.iter().map(|module| module.join("::")).collect::<Vec<_>>();
        found.extend(circles(&graph(folder)).into_iter().map(|circle| format!("{folder}: {:?}", names(circle))));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The layers of the engine: a module uses only modules of its own layer and of earlier ones.
const LAYERS: &[&[&str]] = &[
    &["time", "random", "hlc", "primitive", "canary", "wake", "difference", "shape", "budget", "pause", "spare"],
    &["keyspace"],
    &["rows"],
    &["index"],
    &["counter"],
    &["cache"],
    &["limiter"],
    &["replica"],
    &["settings", "display", "models"],
];

#[test]
fn modules_of_the_engine_use_only_lower_ones() {
    let layer = |module: &[String]| {
        let name = module.first().map(String::as_str);
        name.and_then(|name| LAYERS.iter().position(|layer| layer.contains(&name)))
    };
    let mut wrong = Vec::new();
    for (module, used) in graph("engine/src").iter().filter(|(module, _)| !module.is_empty()) {
        let ours = layer(module).unwrap_or_else(|| panic!("{module:?} has no layer"));
        let higher = used.iter().filter(|used| layer(used).is_none_or(|theirs| theirs > ours));
        wrong.extend(higher.map(|used| format!("{} uses {}", module.join("::"), used.join("::"))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
