//! Dependencies point one way, and the engine does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

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
        for io in ["tokio", "quinn", "quinn-proto", "rustls", "socket2", "mio", "rand", "getrandom", "foca"] {
            assert!(!found[package].contains(io), "{package} depends on {io}");
        }
    }
    for folder in ["engine/src", "schemas/src"] {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(files.len() > 5, "{folder} was looked at");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in
                ["std::fs", "std::thread", "TcpStream", "TcpListener", "UdpSocket", "Instant::now", "SystemTime"]
            {
                assert!(!text.contains(word), "{}: {word}", file.display());
            }
        }
    }
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
        assert!(text.contains("canaries = [") && !text.contains("default = ["), "{manifest}");
    }
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
