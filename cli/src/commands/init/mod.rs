//! `tally init`: makes a cluster, or further nodes or new certificates for an existing one.

mod files;
mod issue;
mod layout;
mod renew;

use std::path::Path;

use serde_json::json;
use tallymesh_schemas::config::{NodeConfig, OnFullDisk, SAMPLES, Tls, render_node_file};
use tallymesh_schemas::{Budget, Class};

use crate::args;
use crate::authority::{Authority, Issued};
use crate::commands::init::files::NewFile;
use crate::commands::init::issue::{CA_CERTIFICATE, CA_KEY, cannot_make, issued, names};
use crate::commands::init::layout::{Place, Places};
use crate::commands::init::renew::Which;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// A cluster with an authority of its own.
    NewCluster,
    /// Further nodes for the cluster whose authority is in the folder.
    FurtherNodes,
}

/// Makes the cluster or the nodes: all files, or none.
pub(crate) fn run(args: &args::Init, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("init")?;
    if let Some(named) = &args.renew {
        let which = if args.all { Which::All } else { Which::Named(named) };
        return renew::run(&args.dir, which, &stored(&args.dir)?, format);
    }
    let (task, texts) = match args.add.as_slice() {
        [] => (Task::NewCluster, args.nodes.as_slice()),
        texts => (Task::FurtherNodes, texts),
    };
    let names = names(texts)?;
    let existing = match task {
        Task::NewCluster => Vec::new(),
        Task::FurtherNodes => layout::existing(&args.dir)?,
    };
    let places = Places::new(names, existing, args.base_port, args.host)?;
    let (authority, mut new) = match task {
        Task::NewCluster => fresh()?,
        Task::FurtherNodes => (stored(&args.dir)?, Vec::new()),
    };
    for place in &places.new {
        new.extend(node_files(place, &places, &authority)?);
    }
    files::write_all(&args.dir, &new)?;
    report(&args.dir, &places.new, task, format)
}

/// A new authority and its files.
fn fresh() -> Result<(Authority, Vec<NewFile>), Failure> {
    let authority = Authority::new().map_err(|error| cannot_make("the authority", &error))?;
    let certificate = NewFile::public(CA_CERTIFICATE, authority.certificate.clone());
    let key = NewFile::secret(CA_KEY, authority.key());
    Ok((authority, vec![certificate, key]))
}

/// The authority in a folder.
fn stored(dir: &Path) -> Result<Authority, Failure> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            Failure::Input(format!("cannot read {path}: {error}; this needs the folder where the authority is kept"))
        })
    };
    let (certificate, key) = (read(CA_CERTIFICATE)?, read(CA_KEY)?);
    Authority::from_pem(certificate, &key).map_err(|error| {
        Failure::Input(format!("{} is not the key of an authority: {error}", dir.join(CA_KEY).display()))
    })
}

fn node_files(place: &Place, places: &Places, authority: &Authority) -> Result<[NewFile; 3], Failure> {
    let name = &place.name;
    let Issued { certificate, key } = issued(name, authority)?;
    let [pem, key_file, sock, state] = ["pem", "key", "sock", "state"].map(|suffix| format!("{name}.{suffix}"));
    let tls = Tls { ca: CA_CERTIFICATE.into(), cert: (&pem).into(), key: (&key_file).into() };
    let config = NodeConfig {
        name: name.clone(),
        listen: place.listen,
        advertise: None,
        seeds: places.seeds(name),
        tls,
        admin: Some(sock.into()),
        http: None,
        data_dir: Some(state.into()),
        on_full_disk: OnFullDisk::default(),
        budget: Budget::default(),
        log: None,
    };
    let text = render_node_file(&config, &Class::ALL) + SAMPLES;
    Ok([
        NewFile::public(pem, certificate),
        NewFile::secret(key_file, key),
        NewFile::public(format!("{name}.hcl"), text),
    ])
}

fn report(dir: &Path, places: &[Place], task: Task, format: Format) -> Result<(), Failure> {
    let path = |place: &Place, suffix: &str| dir.join(format!("{}.{suffix}", place.name)).display().to_string();
    let mut out = Out::open();
    if format == Format::Json {
        let nodes: Vec<_> = places
            .iter()
            .map(|place| {
                json!({
                    "node": place.name,
                    "listen": place.listen,
                    "config": path(place, "hcl"),
                    "admin": path(place, "sock"),
                })
            })
            .collect();
        out.json(&json!({ "dir": dir, "nodes": nodes }))?;
        return out.flush();
    }
    let count = if places.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", places.len()) };
    let made = match task {
        Task::NewCluster => format!("Made a cluster of {count} in"),
        Task::FurtherNodes => format!("Made {count} for the cluster in"),
    };
    out.line(format!("{made} {}. Run each in a terminal of its own:\n", dir.display()))?;
    for place in places {
        out.line(format!("  tally node --config {}", path(place, "hcl")))?;
    }
    if let (Some(first), Some(last)) = (places.first(), places.last()) {
        out.line("\nThen count, and ask any of them:\n")?;
        out.line(format!("  tally --at {} add inbound_cidr 192.0.2.7", path(first, "sock")))?;
        out.line(format!("  tally --at {} shared show inbound_cidr", path(last, "sock")))?;
    }
    let key = dir.join(CA_KEY).display().to_string();
    out.line(format!("\nFor further nodes: tally init --dir {} --add NODE", dir.display()))?;
    out.line(format!("Anyone who has {key} can add nodes: do not keep it on machines that run nodes."))?;
    out.flush()
}
