//! Writes the configuration file of a node, as `tally init` does.

use std::fmt::Write;
use std::path::Path;

use crate::config::metric::Metric;
use crate::config::model::{NodeConfig, OnFullDisk};
use crate::structure::{Class, StructureSpec};

/// The file of a node that replicates one object of each class and audits all metrics, with a comment at every key. It parses
/// back to the same node and the classes' defaults, if the paths are UTF-8.
pub fn render_node_file(node: &NodeConfig, classes: &[Class]) -> String {
    let mut file = node_block(node);
    let _ = write!(
        file,
        "
# What is replicated; the same on all nodes. Each object may have
#   max_delay = {}     seconds that a change may wait to be sent with others
#   max_pending = {}   changes that may wait
#   on_dead = \"drop 10s\"   or \"hold\": when a dead node's counts stop counting
cluster {{
",
        StructureSpec::MAX_DELAY.as_secs_f64(),
        StructureSpec::MAX_PENDING,
    );
    for class in classes {
        // Writing into a String cannot fail.
        let _ = writeln!(file, "  # {}.\n  Replicate {} {{}}", about(*class), quote(class.name()));
    }
    let metrics = Metric::ALL.map(Metric::name).join(";");
    let _ = write!(
        file,
        "\
  # Events by address, and named series of events, in windows of time.
  Replicate \"metrics\" {{
    parameters = \"{metrics};audit_series\"
  }}
}}

# The windows of the events by address: seconds of a window, and how many are kept. Several are written as a list.
inbound_audit {{
  monitors = \"300,6\"
}}
"
    );
    file
}

/// The head of the file and the `node` block.
fn node_block(node: &NodeConfig) -> String {
    let NodeConfig { name, listen, advertise, seeds, tls, admin, data_dir, on_full_disk, budget, http, log } = node;
    let optional = |key: &str, value: Option<String>, example: &str| match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("# {key} = {example}"),
    };
    let advertise = optional("advertise", advertise.map(|address| quote(&address.to_string())), "\"192.0.2.1:4801\"");
    let admin = optional("admin", admin.as_deref().map(quote_path), &quote(&format!("{name}.sock")));
    let http = optional("http", http.as_ref().map(|address| quote(&address.to_string())), "\"127.0.0.1:9180\"");
    let data_dir = optional("data_dir", data_dir.as_deref().map(quote_path), &quote(&format!("{name}.state")));
    let on_full_disk = match on_full_disk {
        OnFullDisk::Refuse => "",
        OnFullDisk::Serve => "\n  on_full_disk = \"serve\"",
    };
    let log = optional("log", log.map(|level| quote(level.name())), "\"info\"");
    let max_keys = optional("max_keys", budget.keys.map(|keys| keys.to_string()), "10000000");
    let max_bytes = optional("max_bytes", budget.bytes.map(|bytes| bytes.to_string()), "1000000000");
    let listen = quote(&listen.to_string());
    let seeds = seeds.iter().map(|seed| quote(seed)).collect::<Vec<_>>().join(", ");
    let [ca, cert, key] = [&tls.ca, &tls.cert, &tls.key].map(|path| quote_path(path));
    let quoted_name = quote(name.as_str());
    format!(
        "\
# The configuration of {name}, a node of a Tallymesh cluster.
# docs/configuration.md explains every key; `tally config check FILE` finds mistakes.
# Relative paths start at the folder of this file.

node {{
  # The name of this node: the one in its certificate.
  name = {quoted_name}

  # Where it listens, UDP.
  listen = {listen}

  # Where the others reach it, if that is another address (behind NAT, or when it listens on 0.0.0.0).
  {advertise}

  # Nodes to join by, host:port. One that is up is enough; it names the others.
  seeds = [{seeds}]

  # The Unix socket that `tally --at` speaks to.
  {admin}

  # Where the node serves metrics and health by HTTP, without authentication: an address of this machine only, or the path of
  # a Unix socket.
  {http}

  # The folder of the saved state: what the node keeps over a restart.
  {data_dir}{on_full_disk}

  # What the node logs: off, error, warn, info, debug or trace.
  {log}

  # The most keys of all objects together, and the most bytes of keys and values of all caches. Without them there is no bound.
  {max_keys}
  {max_bytes}

  # This node's identity and the certificate authority that it trusts: PEM files. Only the node's own user may read the key:
  # mode 0600.
  tls {{
    ca = {ca}
    cert = {cert}
    key = {key}
  }}
}}
"
    )
}

/// Sample objects to append to a node's file: a series, a cache, a gauge cache and limits. The examples of
/// `tally COMMAND --help` use them. Together with them, the file of a node that replicates [`Class::ALL`] is complete.
pub const SAMPLES: &str = include_str!("samples.hcl");

fn about(class: Class) -> &'static str {
    match class {
        Class::InboundCidr => "Open inbound connections by address",
        Class::OutboundCidr => "Open outbound connections by address",
        Class::OutboundDomains => "Open outbound connections by destination domain",
        Class::OutboundBindingDomains => "Open outbound connections by binding and destination domain",
        Class::AddressEvents => "Events by address",
        Class::NamedEvents => "Events by name",
        Class::SharedNamedThrottles => "Throttles by name",
        Class::OutboundMessages => "Throttles of outbound messages",
        Class::OutboundConnections => "Throttles of outbound connections",
        Class::GaugeCache => "Counters of a gauge cache by name",
        Class::Settings => "Settings of nodes",
        Class::Cache => "Values by key; the last writer wins",
    }
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// Quotes a string for HCL. (The formatter of `hcl-rs` assumes that `$${` is escaped already, and leaves it.)
fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '$' | '%' if characters.peek() == Some(&'{') => quoted.extend([character, character]),
            // Writing into a String cannot fail.
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
