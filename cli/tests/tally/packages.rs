//! What the packages contain: manual pages, and the unit of a node.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::tally;

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    tally(&["man", pages.to_str().unwrap()]).ok();
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("tally.1").contains("tally\\-add(1)"));
    assert!(page("tally-cluster-shared-show.1").contains("inbound_cidr"));
    assert!(page("tally-hold.1").contains("SIGTERM"));
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = tally(&["man", file.to_str().unwrap()]).fails(2);
    assert!(refused.contains("cannot write into"), "{refused}");
}

/// The unit keeps the node away from what it does not need.
#[test]
fn the_unit_is_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/tallymesh.service");
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&unit)
        .output();
    match rated {
        Err(error) => println!("skipped: systemd-analyze cannot be started: {error}"),
        Ok(rated) if String::from_utf8_lossy(&rated.stderr).contains("unrecognized option") => {
            println!("skipped: this systemd-analyze rates no files");
        }
        Ok(rated) => assert!(
            rated.status.success(),
            "{}{}",
            String::from_utf8_lossy(&rated.stdout),
            String::from_utf8_lossy(&rated.stderr)
        ),
    }
}
