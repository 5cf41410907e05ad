//! The packages that are published: `cargo package` makes each of them, with its licences and a page for readers.

use std::path::Path;
use std::process::Command;

/// The published packages, in the order of their dependencies.
const PACKAGES: [&str; 6] =
    ["tallymesh-schemas", "tallymesh-engine", "tallymesh-transport", "tallymesh", "tallymesh-cli", "tallymesh-harness"];

/// Makes all packages without building them: `just packages` also builds each from what is in it.
#[test]
fn cargo_makes_every_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = std::env::temp_dir().join(format!("tallymesh-packages-{}", std::process::id()));
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        // The registry was read when this test was built.
        command.current_dir(root).arg("package").args(["--offline", "--allow-dirty", "--no-verify"]);
        command.args(PACKAGES.iter().flat_map(|name| ["--package", name]));
        let output = command.arg("--target-dir").arg(&target).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    cargo(&[]);
    let listed = cargo(&["--list"]);
    for needed in ["LICENSE-MIT", "LICENSE-APACHE", "README.md", "Cargo.toml", "src/lib.rs"] {
        let packages = listed.lines().filter(|line| *line == needed).count();
        let least = PACKAGES.len() - usize::from(needed == "src/lib.rs");
        assert_eq!(packages, least, "{needed}\n{listed}");
    }
    for name in PACKAGES {
        let made = target.join("package").join(format!("{name}-{}.crate", env!("CARGO_PKG_VERSION")));
        assert!(made.metadata().unwrap().len() < 10 << 20, "{} is small enough for a registry", made.display());
    }
    std::fs::remove_dir_all(target).unwrap();
}
