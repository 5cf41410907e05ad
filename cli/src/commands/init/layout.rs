//! The addresses and the seeds of the nodes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tallymesh_schemas::NodeName;
use tallymesh_schemas::config::{Config, dials};

use crate::commands::check;
use crate::failure::Failure;

/// The port of the first node of a cluster.
const BASE_PORT: u16 = 4801;

/// A node and the address at which other nodes reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: NodeName,
    pub(super) listen: SocketAddr,
}

/// The nodes of a cluster.
#[derive(Debug)]
pub(super) struct Places {
    /// Those that exist already.
    existing: Vec<Place>,
    /// Those that this call makes.
    pub(super) new: Vec<Place>,
}

impl Places {
    /// Gives each name the next port.
    pub(super) fn new(
        names: Vec<NodeName>,
        existing: Vec<Place>,
        base_port: Option<u16>,
        host: IpAddr,
    ) -> Result<Self, Failure> {
        if host.is_unspecified() {
            let why = "other nodes cannot reach a node by it; give an address of this machine";
            return Err(Failure::Input(format!("--host {host}: {why}, or edit listen and advertise in the files")));
        }
        let highest = existing.iter().filter(|place| place.listen.ip() == host).map(|place| place.listen.port()).max();
        let base = base_port.map_or(highest.map_or(u32::from(BASE_PORT), |port| u32::from(port) + 1), u32::from);
        let mut new: Vec<Place> = Vec::new();
        for (port, name) in (base..).zip(names) {
            let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or_else(|| {
                Failure::Input(format!("{name} would listen on port {port}: choose a --base-port between 1 and 65535"))
            })?;
            new.push(Place { name, listen: SocketAddr::new(host, port) });
        }
        if let (Some(ours), Some(theirs)) = (
            new.first(),
            existing.iter().find(|place| {
                new.first().is_some_and(|ours| !dials(ours.listen, place.listen) || !dials(place.listen, ours.listen))
            }),
        ) {
            let (host, name, listen) = (ours.listen.ip(), &theirs.name, theirs.listen);
            return Err(Failure::Input(format!(
                "a node on {host} and {name} on {listen} cannot reach each other: give a --host of the same version of IP"
            )));
        }
        let taken = new.iter().find_map(|place| existing.iter().find(|other| other.listen == place.listen));
        match taken {
            Some(Place { name, listen }) => {
                Err(Failure::Input(format!("{listen} is where {name} listens: choose another --base-port")))
            }
            None => Ok(Self { existing, new }),
        }
    }

    /// The addresses of the other nodes.
    pub(super) fn seeds(&self, name: &NodeName) -> Vec<String> {
        let others = self.existing.iter().chain(&self.new).filter(|place| place.name != *name);
        others.take(tallymesh_schemas::bounds::SEEDS).map(|place| place.listen.to_string()).collect()
    }
}

/// The nodes whose configurations are in a folder, in order of name.
pub(super) fn existing(dir: &Path) -> Result<Vec<Place>, Failure> {
    let cannot = |error: io::Error| Failure::Input(format!("cannot read {}: {error}", dir.display()));
    let mut places = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_none_or(|extension| extension != "hcl") {
            continue;
        }
        let config = Config::parse(&check::read(&path)?, &path.display().to_string());
        let config = config.map_err(|errors| check::wrong(&errors))?;
        if let Some(node) = config.node {
            places.push(Place { name: node.name, listen: node.advertise.unwrap_or(node.listen) });
        }
    }
    places.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn host() -> IpAddr {
        "127.0.0.1".parse().unwrap()
    }

    #[test]
    fn ports_are_consecutive_and_every_node_has_all_others_as_seeds() {
        let places = Places::new(vec![name("a"), name("b"), name("c")], Vec::new(), None, host()).unwrap();
        assert_eq!(places.seeds(&name("b")), ["127.0.0.1:4801", "127.0.0.1:4803"]);
    }

    #[test]
    fn further_nodes_get_the_ports_after_the_highest() {
        let existing = vec![Place { name: name("a"), listen: "127.0.0.1:6001".parse().unwrap() }];
        let places = Places::new(vec![name("b")], existing.clone(), None, host()).unwrap();
        assert_eq!(places.new[0].listen.port(), 6002);
        assert_eq!(places.seeds(&name("b")), ["127.0.0.1:6001"]);
        assert!(Places::new(vec![name("b")], existing, Some(6001), host()).is_err());
    }

    #[test]
    fn nodes_that_cannot_dial_each_other_are_refused() {
        let existing = vec![Place { name: name("a"), listen: "127.0.0.1:6001".parse().unwrap() }];
        let refused = Places::new(vec![name("b")], existing, None, "::1".parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("a node on ::1 and a on 127.0.0.1:6001"), "{refused}");
    }

    #[test]
    fn addresses_that_other_nodes_cannot_reach_are_refused() {
        assert!(Places::new(vec![name("a")], Vec::new(), Some(0), host()).is_err());
        assert!(Places::new(vec![name("a"), name("b")], Vec::new(), Some(65535), host()).is_err());
        assert!(Places::new(vec![name("a")], Vec::new(), None, "0.0.0.0".parse().unwrap()).is_err());
    }
}
