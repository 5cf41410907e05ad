//! Configuration files: read into a configuration that keeps every bound, or refused with errors that can be shown.

use std::path::Path;

use tallymesh_schemas::config::{Config, render_node_file};
use tallymesh_schemas::{Class, bounds};

/// Longer texts are slow to parse and show nothing that shorter ones do not.
const LONGEST: usize = 8 << 10;

/// Reads a text.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() > LONGEST {
        return;
    }
    let mut config = match Config::parse(text, "fuzz.hcl") {
        Ok(config) => config,
        Err(errors) => return assert!(!errors.to_string().is_empty(), "a refusal says why"),
    };
    assert!(config.structures.len() <= bounds::STRUCTURES);
    for spec in &config.structures {
        assert!(bounds::MAX_PENDING.contains(&(spec.max_pending as u64)), "{spec:?}");
        assert!(bounds::MAX_DELAY_SECONDS.contains(&spec.max_delay.as_secs_f64()), "{spec:?}");
    }
    assert_eq!(config.require_node().is_ok(), config.node.is_some());
    if let Some(node) = &config.node {
        assert!(node.seeds.len() <= bounds::SEEDS);
        let rendered = render_node_file(node, &Class::ALL);
        let again = Config::parse(&rendered, "rendered.hcl").unwrap_or_else(|errors| panic!("{errors}\n{rendered}"));
        assert_eq!(again.node.as_ref(), Some(node), "a node's file reads back as the node");
    }
    config.resolve_paths(Path::new("/etc/tallymesh"));
}
