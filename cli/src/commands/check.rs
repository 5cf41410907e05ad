//! `tally config check`: what is wrong with a configuration, and reading one for `tally node`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;
use tallymesh_schemas::config::{CacheConfig, Config, ConfigErrors};
use tallymesh_schemas::{StructureSpec, bounds};

use crate::failure::Failure;
use crate::output::{Format, Out};

/// Checks the file, and says what is in it or what is wrong with it.
pub(crate) fn run(path: &Path, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("config check")?;
    let text = read(path)?;
    let file = path.display().to_string();
    match (Config::parse(&text, &file), format) {
        (Ok(config), Format::Json) => json_good(&config),
        (Ok(config), _) => good(&config, &file),
        (Err(errors), Format::Json) => json_errors(&errors),
        (Err(errors), _) => {
            // The layout of ConfigErrors is the message: file, line, column, what to do.
            Err(wrong(&errors))
        }
    }
}

/// The text of a configuration file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |why: &str| Failure::Input(format!("cannot read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| cannot(&error.to_string()))?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough for the parser to say that it is too long.
    let read = file.take(bounds::CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot(&error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|byte| **byte == b'\n').count();
        cannot(&format!("line {} is not UTF-8; save the file as UTF-8", line + 1))
    })
}

/// Prints what is wrong to stderr, as it is laid out.
pub(super) fn wrong(errors: &ConfigErrors) -> Failure {
    // A stderr that is gone changes nothing about the exit code.
    let _ = writeln!(io::stderr(), "{errors}");
    Failure::Exit(2)
}

/// What `Replicate` stanzas make: structures and caches.
fn objects(config: &Config) -> Vec<StructureSpec> {
    config.structures.iter().cloned().chain(config.caches.iter().map(CacheConfig::structure)).collect()
}

fn good(config: &Config, file: &str) -> Result<(), Failure> {
    let node = match &config.node {
        Some(node) => format!("node {} on {}", node.name, node.listen),
        None => "no node".to_owned(),
    };
    let objects = match objects(config).as_slice() {
        [] => "no objects".to_owned(),
        specs => specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let mut out = Out::open();
    out.line(format!("{file}: good: {node}; {objects}"))?;
    out.flush()
}

fn json_good(config: &Config) -> Result<(), Failure> {
    let objects: Vec<_> = objects(config)
        .iter()
        .map(|spec| json!({ "name": spec.name, "class": spec.class.name(), "kind": spec.class.kind().label() }))
        .collect();
    let node = config.node.as_ref().map(|node| json!({ "name": node.name, "listen": node.listen }));
    let mut out = Out::open();
    out.json(&json!({ "good": true, "node": node, "objects": objects, "errors": [] }))?;
    out.flush()
}

fn json_errors(errors: &ConfigErrors) -> Result<(), Failure> {
    let list: Vec<_> = errors
        .errors()
        .iter()
        .map(|error| {
            json!({
                "file": error.file,
                "line": error.line,
                "column": error.column,
                "message": error.message,
                "help": error.help,
            })
        })
        .collect();
    let mut out = Out::open();
    out.json(&json!({ "good": false, "errors": list, "more": errors.more() }))?;
    out.flush()?;
    Err(Failure::Exit(2))
}
