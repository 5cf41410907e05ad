//! `tally config check`: reports the mistakes of a configuration. Also reads one for `tally node`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::json;
use tallymesh_schemas::config::{CacheConfig, Config, ConfigErrors};
use tallymesh_schemas::{StructureSpec, bounds};

use crate::commands::certificates::{self, Checked};
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Checks the file, and reports its contents or its mistakes.
pub(crate) fn run(path: &Path, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("config check")?;
    let text = read(path)?;
    let file = path.display().to_string();
    match (Config::parse(&text, &file), format) {
        (Ok(mut config), format) => {
            config.resolve_paths(path.parent().unwrap_or(Path::new("")));
            let certificate = config.node.as_ref().map(certificates::check).unwrap_or_default();
            match format {
                Format::Json => json_good(&config, &certificate)?,
                _ => good(&config, &file, &certificate)?,
            }
            if certificate.faults.is_empty() { Ok(()) } else { Err(Failure::Exit(2)) }
        }
        (Err(errors), Format::Json) => json_errors(&errors),
        (Err(errors), _) => {
            // ConfigErrors formats the message: file, line, column, what to do.
            Err(wrong(&errors))
        }
    }
}

/// The text of a configuration file.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let cannot = |why: &str| Failure::Input(format!("cannot read {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| cannot(&error.to_string()))?;
    let mut bytes = Vec::new();
    // With one byte more than allowed, the parser can report that it is too long.
    let read = file.take(bounds::CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot(&error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|byte| **byte == b'\n').count();
        cannot(&format!("line {} is not UTF-8; save the file as UTF-8", line + 1))
    })
}

/// Prints the mistakes to stderr.
pub(super) fn wrong(errors: &ConfigErrors) -> Failure {
    // The exit code stays the same if stderr is closed.
    let _ = writeln!(io::stderr(), "{errors}");
    Failure::Exit(2)
}

/// The objects of the `Replicate` stanzas: structures and caches.
fn objects(config: &Config) -> Vec<StructureSpec> {
    config.structures.iter().cloned().chain(config.caches.iter().map(CacheConfig::structure)).collect()
}

fn good(config: &Config, file: &str, certificate: &Checked) -> Result<(), Failure> {
    let node = match &config.node {
        Some(node) => format!("node {} on {}", node.name, node.listen),
        None => "no node".to_owned(),
    };
    let objects = match objects(config).as_slice() {
        [] => "no objects".to_owned(),
        specs => specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    certificate.warnings.iter().for_each(|warning| style::complain("warning", warning));
    certificate.faults.iter().for_each(|fault| style::complain("error", fault));
    if !certificate.faults.is_empty() {
        return Ok(());
    }
    let mut out = Out::open();
    out.line(format!("{file}: good: {node}; {objects}"))?;
    out.flush()
}

fn json_good(config: &Config, certificate: &Checked) -> Result<(), Failure> {
    let objects: Vec<_> = objects(config)
        .iter()
        .map(|spec| json!({ "name": spec.name, "class": spec.class.name(), "kind": spec.class.kind().label() }))
        .collect();
    let node = config.node.as_ref().map(|node| json!({ "name": node.name, "listen": node.listen }));
    let mut out = Out::open();
    let errors: Vec<_> = certificate.faults.iter().map(|fault| json!({ "message": fault })).collect();
    out.json(&json!({
        "good": errors.is_empty(),
        "node": node,
        "objects": objects,
        "certificate_days": certificate.days,
        "warnings": certificate.warnings,
        "errors": errors,
    }))?;
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
