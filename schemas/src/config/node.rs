//! The `node` block: name, addresses, identity, and the paths of the node's files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hcl::edit::structure::Block;

use crate::actor::NodeName;
use crate::bounds;
use crate::budget::Budget;
use crate::config::http::HttpAddress;
use crate::config::limits::word;
use crate::config::model::{LogLevel, NodeConfig, OnFullDisk, Tls};
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, no_label};
use crate::config::value::{Setting, Text};

pub(super) fn read(block: &Block, report: &mut Report<'_>) -> Option<NodeConfig> {
    no_label(block, report);
    let mut scope = Scope::block("node".to_owned(), block);
    let name = scope.require("name", report, "\"relay-0-1\"");
    let listen = scope.require("listen", report, "\"127.0.0.1:4801\"");
    let advertise = scope.take("advertise");
    let seeds = scope.take("seeds");
    let admin = scope.take("admin");
    let http = scope.take("http");
    let log = scope.take("log");
    let data_dir = scope.take("data_dir");
    let on_full_disk = scope.take("on_full_disk");
    let [max_keys, max_bytes] = ["max_keys", "max_bytes"].map(|key| scope.take(key));
    let tls = scope.take_block("tls", report, "a node has one identity: keep one");
    if tls.is_none() {
        scope.missing_block(report, "tls", "add one: tls { … } with ca, cert and key; `tally init` makes the files");
    }
    scope.finish(report, "the keys and blocks of node are");

    let name = name.and_then(|setting| node_name(setting, report));
    let listen = listen.and_then(|setting| address(setting, report).map(|address| (setting, address)));
    let advertise =
        advertise.and_then(|setting| reachable(setting, address(setting, report)?, Role::Advertised, report));
    if advertise.is_none()
        && let Some((setting, address)) = listen
    {
        reachable(setting, address, Role::Listening, report);
    }
    let listens = listen.map(|(_, address)| address);
    let seeds = seeds.map_or(Vec::new(), |setting| seed_list(setting, listens, report));
    let admin = admin.and_then(|setting| socket(setting, report));
    let http = http.and_then(|setting| http_address(setting, report));
    let data_dir = data_dir.and_then(|setting| path(setting, report));
    let on_full_disk = on_full_disk
        .and_then(|setting| word(setting, &[OnFullDisk::Refuse, OnFullDisk::Serve], OnFullDisk::name, report));
    let on_full_disk = on_full_disk.unwrap_or_default();
    let log = log.and_then(|setting| word(setting, &LogLevel::ALL, LogLevel::name, report));
    let budget = Budget {
        keys: max_keys.and_then(|setting| setting.bound(report, &bounds::MAX_KEYS)),
        bytes: max_bytes.and_then(|setting| setting.bound(report, &bounds::CACHE_BYTES)),
    };
    let tls = tls.and_then(|block| tls_files(block, report));
    let (name, listen, tls) = (name?, listen?.1, tls?);
    Some(NodeConfig { name, listen, advertise, seeds, tls, admin, data_dir, on_full_disk, budget, http, log })
}

fn tls_files(block: &Block, report: &mut Report<'_>) -> Option<Tls> {
    no_label(block, report);
    let mut scope = Scope::block("tls".to_owned(), block);
    let ca = scope.require("ca", report, "\"ca.pem\"");
    let cert = scope.require("cert", report, "\"relay-0-1.pem\"");
    let key = scope.require("key", report, "\"relay-0-1.key\"");
    scope.finish(report, "the keys of tls are");
    let [ca, cert, key] = [ca, cert, key].map(|setting| setting.and_then(|setting| path(setting, report)));
    Some(Tls { ca: ca?, cert: cert?, key: key? })
}

fn node_name(setting: Setting<'_>, report: &mut Report<'_>) -> Option<NodeName> {
    let text = setting.text(report, "name = \"relay-0-1\"")?;
    NodeName::new(text.text)
        .map_err(|error| report.add(setting.at(), format!("bad node name {}", quoted(text.text)), error.to_string()))
        .ok()
}

fn path(setting: Setting<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let text = setting.text(report, &format!("{} = \"path\"", setting.key))?;
    if text.text.is_empty() || text.text.contains('\0') {
        let message = format!("\"{}\" is not a path: {}", setting.key, quoted(text.text));
        report.add(setting.at(), message, "write a path; a relative one starts at this file's folder");
        return None;
    }
    Some(PathBuf::from(text.text))
}

/// The path of a Unix socket.
fn socket(setting: Setting<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    let named = path(setting, report)?;
    fits_a_socket(setting, &named, report).then_some(named)
}

/// Where to serve HTTP.
fn http_address(setting: Setting<'_>, report: &mut Report<'_>) -> Option<HttpAddress> {
    let text = setting.text(report, "http = \"127.0.0.1:9180\"")?.text;
    match text.parse() {
        Ok(HttpAddress::Unix(path)) => fits_a_socket(setting, &path, report).then_some(HttpAddress::Unix(path)),
        Ok(address) => Some(address),
        Err(error) => {
            let message = format!("\"http\" is not an address or a path: {}", quoted(text));
            report.add(setting.at(), message, error.to_string());
            None
        }
    }
}

/// Whether the path, which is relative to this file's folder, is as short as the system asks of a Unix socket.
fn fits_a_socket(setting: Setting<'_>, named: &Path, report: &mut Report<'_>) -> bool {
    let resolved = report.folder().join(named);
    let bytes = resolved.as_os_str().len();
    if bytes > bounds::SOCKET_PATH_BYTES {
        let message = format!("the path of the socket has {bytes} bytes: {}", quoted(&resolved.to_string_lossy()));
        report.add(setting.at(), message, format!("the system takes {} at most", bounds::SOCKET_PATH_BYTES));
    }
    bytes <= bounds::SOCKET_PATH_BYTES
}

fn address(setting: Setting<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let text = setting.text(report, &format!("{} = \"127.0.0.1:4801\"", setting.key))?.text;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = match text.parse::<IpAddr>() {
        Ok(ip) => format!("add the port: \"{}\"", SocketAddr::new(ip, 4801)),
        Err(_) => "write an IP address and a port, as in \"127.0.0.1:4801\" or \"[::1]:4801\"; \
                   only seeds may be host names"
            .to_owned(),
    };
    report.add(setting.at(), format!("\"{}\" is not an address: {}", setting.key, quoted(text)), help);
    None
}

/// Which setting names the address at which other nodes reach the node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `listen`. The system may choose the port.
    Listening,
    /// `advertise`.
    Advertised,
}

/// The address, if other nodes can reach the node at it.
fn reachable(setting: Setting<'_>, address: SocketAddr, role: Role, report: &mut Report<'_>) -> Option<SocketAddr> {
    let help = match role {
        Role::Listening => "add the address that they reach it by: advertise = \"192.0.2.1:4801\"",
        Role::Advertised => "write the address and port that the others reach this node by",
    };
    if address.ip().is_unspecified() {
        report.add(setting.at(), format!("other nodes cannot reach a node by {}", address.ip()), help);
        return None;
    }
    if address.port() == 0 && role == Role::Advertised {
        report.add(setting.at(), "other nodes cannot reach a node by port 0", help);
        return None;
    }
    Some(address)
}

fn seed_list(setting: Setting<'_>, listens: Option<SocketAddr>, report: &mut Report<'_>) -> Vec<String> {
    let texts = setting.texts(report, "seeds = [\"127.0.0.1:4802\"]");
    if texts.len() > bounds::SEEDS {
        let message = format!("{} seeds, there may be {}", texts.len(), bounds::SEEDS);
        report.add(setting.at(), message, "a few are enough: they name the others");
        return Vec::new();
    }
    texts.into_iter().filter_map(|text| seed(text, listens, report)).collect()
}

fn seed(Text { text, at }: Text<'_>, listens: Option<SocketAddr>, report: &mut Report<'_>) -> Option<String> {
    if let (Some(listens), Ok(seed)) = (listens, text.parse::<SocketAddr>())
        && !dials(listens, seed)
    {
        let message = format!("a node that listens on {listens} cannot dial the seed {}", quoted(text));
        let help = "write addresses of the same version, or listen = \"[::]:4801\" for both, with advertise";
        report.add(at - 1, message, help);
        return None;
    }
    let help = match text.rsplit_once(':') {
        Some((host, port)) if !port.parse::<u16>().is_ok_and(|port| port != 0) && is_host(host) => {
            "the port is a number from 1 to 65535"
        }
        Some((host, _)) if is_host(host) => return Some(text.to_owned()),
        _ if text.parse::<Ipv6Addr>().is_ok() => "write an IPv6 address in brackets and add the port: \"[::1]:4801\"",
        _ if is_host(text) => "add the port, as in \"mx.example.net:4801\"",
        _ => "write a host name or an address, a colon and a port: \"mx.example.net:4801\", \"[::1]:4801\"",
    };
    report.add(at - 1, format!("bad seed {}", quoted(text)), help);
    None
}

/// Whether a socket that listens on one address can send to the other: both are IPv4, both are IPv6, or the socket listens on
/// `[::]`, which serves both families.
pub fn dials(listens: SocketAddr, to: SocketAddr) -> bool {
    let [from, to] = [listens, to].map(|address| address.ip().to_canonical());
    from.is_ipv4() == to.is_ipv4() || from == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Whether the text is a host name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    const NAME_BYTES: usize = 253;
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= NAME_BYTES
        && text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}
