//! Certificates: new ones for running nodes, another authority, and what `config check` says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::load_clients::Clients;
use crate::support::{Mesh, SOON, eventually, mode, tally};

const NODES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];

/// Waits until each node has used new certificates so often.
#[track_caller]
fn all_have_used(mesh: &Mesh, times: usize) {
    for name in NODES {
        eventually(&format!("{name} uses the files for the {times}th time"), SOON, || {
            let log = mesh.log(name);
            let used = log.matches("uses the certificate that is in its files now").count();
            if used == times { Ok(()) } else { Err(log) }
        });
    }
}

/// First all nodes get new certificates, and then the whole cluster gets another authority. Clients count all the time: none is
/// refused, and no count is lost.
#[test]
fn certificates_and_the_authority_are_replaced_under_load() {
    let mesh = Mesh::running(&NODES);
    let load = Clients::start(&NODES.map(|name| mesh.file(name, "sock")));
    let (dir, other) = (mesh.path("mesh"), mesh.path("other"));
    let renew = ["init", "--dir", dir.to_str().unwrap(), "--renew", "--all"];
    tally(&renew).ok();
    all_have_used(&mesh, 1);

    tally(&["init", "--dir", other.to_str().unwrap(), "--nodes", "relay-0-9"]).ok();
    let ca = |dir: &Path| fs::read_to_string(dir.join("ca.pem")).unwrap();
    let new = ca(&other);
    fs::write(dir.join("ca.pem"), ca(&dir) + &new).unwrap();
    all_have_used(&mesh, 2);
    fs::copy(other.join("ca.key"), dir.join("ca.key")).unwrap();
    tally(&renew).ok();
    all_have_used(&mesh, 3);
    assert!(
        !NODES.iter().any(|name| mesh.log(name).contains("the authorities have changed")),
        "{}",
        mesh.log("relay-0-1")
    );
    fs::write(dir.join("ca.pem"), new).unwrap();
    all_have_used(&mesh, 4);
    mesh.wait_for_links();

    let counted = load.end();
    assert!(counted > 0);
    for name in NODES {
        mesh.counts(name, "inbound_cidr", "192.0.2.7", counted, SOON);
    }
    let info = mesh.ask("relay-0-1", &["--output", "json", "cluster", "info"]).ok();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!((&info["certificate"]["days"], &info["certificate"]["trouble"]), (&729.into(), &().into()));
}

/// An orchestrator replaces the folder behind a symbolic link: the node uses the new certificate. When the files do not fit together,
/// the node reports that and keeps its certificate.
#[test]
fn a_folder_behind_a_link_is_replaced_and_files_that_do_not_fit_change_nothing() {
    let mut mesh = Mesh::new(&["relay-0-1"]);
    let (mesh_dir, first, second) = (mesh.path("mesh"), mesh.path("first"), mesh.path("second"));
    let (next, current) = (mesh.path("next"), mesh.path("current"));
    let link = |to: &Path| {
        std::os::unix::fs::symlink(to, &next).unwrap();
        fs::rename(&next, &current).unwrap();
    };
    for dir in [&first, &second] {
        fs::create_dir(dir).unwrap();
        tally(&["init", "--dir", mesh_dir.to_str().unwrap(), "--renew", "relay-0-1"]).ok();
        for file in ["ca.pem", "relay-0-1.pem", "relay-0-1.key"] {
            fs::copy(mesh_dir.join(file), dir.join(file)).unwrap();
        }
    }
    link(&first);
    mesh.edit("relay-0-1", |text| {
        let in_link =
            |text: String, file: &str| text.replace(&format!("\"{file}\""), &format!("\"../current/{file}\""));
        ["ca.pem", "relay-0-1.pem", "relay-0-1.key"].into_iter().fold(text, in_link)
    });
    mesh.start("relay-0-1", &[]);
    link(&second);
    mesh.logs("relay-0-1", "uses the certificate that is in its files now");
    fs::copy(first.join("relay-0-1.key"), second.join("relay-0-1.key")).unwrap();
    mesh.logs("relay-0-1", "the certificate in the files is not used");
    let info = mesh.ask("relay-0-1", &["cluster", "info"]).ok();
    assert!(info.contains("the one in its files is not used: the key does not fit"), "{info}");
    link(&first);
    eventually("the trouble is over", SOON, || {
        let info = mesh.ask("relay-0-1", &["cluster", "info"]).ok();
        if info.contains("is not used") { Err(info) } else { Ok(()) }
    });
}

#[test]
fn init_renews_certificates_and_keeps_the_configuration() {
    let mesh = Mesh::new(&["relay-0-1", "relay-0-2"]);
    let dir = mesh.path("mesh");
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let files =
        ["relay-0-1.pem", "relay-0-1.key", "relay-0-2.pem", "relay-0-2.key", "relay-0-1.hcl", "ca.pem", "ca.key"];
    let before = files.map(read);
    let renew = |arguments: &[&str]| tally(&[&["init", "--dir", dir.to_str().unwrap(), "--renew"], arguments].concat());
    let said = renew(&["relay-0-1"]).ok();
    assert!(said.contains("of 1 node in") && said.contains("  relay-0-1.pem relay-0-1.key\n"), "{said}");
    let changed = |before: &[String]| files.iter().zip(before).filter(|(file, was)| read(file) != **was).count();
    assert_eq!(changed(&before), 2);
    assert_eq!(mode(&dir.join("relay-0-1.key")), 0o600);
    tally(&["config", "check", mesh.file("relay-0-1", "hcl").to_str().unwrap()]).ok();
    let before = files.map(read);
    renew(&["--all"]).ok();
    assert_eq!(changed(&before), 4);
    for (arguments, why) in [(["relay-0-9"].as_slice(), "--add relay-0-9"), (&[], "--all"), (&["ca"], "named ca")] {
        let refused = renew(arguments).fails(2);
        assert!(refused.contains(why), "{refused}");
    }
}

/// A certificate that expires then, with its authority and key, in the files of a node.
fn expiring(mesh: &Mesh, name: &str, not_after: SystemTime) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = not_after.into();
    fs::write(mesh.path("mesh").join("ca.pem"), ca.pem()).unwrap();
    fs::write(mesh.file(name, "pem"), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
    fs::write(mesh.file(name, "key"), key.serialize_pem()).unwrap();
}

#[test]
fn config_check_reports_certificates_that_expire_and_keys_that_others_can_use() {
    let mut mesh = Mesh::new(&["relay-0-1"]);
    let (file, day) = (mesh.file("relay-0-1", "hcl"), Duration::from_secs(86_400));
    let check = || tally(&["config", "check", file.to_str().unwrap()]);
    assert_eq!(check().stderr, "");
    expiring(&mesh, "relay-0-1", SystemTime::now() + 10 * day + day / 2);
    fs::set_permissions(mesh.file("relay-0-1", "key"), fs::Permissions::from_mode(0o640)).unwrap();
    let checked = check();
    assert!(checked.stderr.contains("warning: the certificate of relay-0-1 expires in 10 days"), "{checked:?}");
    assert!(checked.stderr.contains("relay-0-1.key, whose mode is 640: chmod 600"), "{checked:?}");
    checked.ok();
    mesh.start("relay-0-1", &[]);
    mesh.logs("relay-0-1", "the certificate of this node expires soon");
    mesh.kill("relay-0-1");

    expiring(&mesh, "relay-0-1", SystemTime::now() - day);
    let expired = check().fails(2);
    assert!(expired.contains("error: the certificate of relay-0-1 cannot be used") && expired.contains("expired"));
    let json = tally(&["--output", "json", "config", "check", file.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["good"], json["errors"].as_array().unwrap().len()), (&false.into(), 1));
    fs::remove_file(mesh.file("relay-0-1", "pem")).unwrap();
    let elsewhere = check();
    assert!(elsewhere.stderr.contains("does not exist here"), "{elsewhere:?}");
    elsewhere.ok();
}
