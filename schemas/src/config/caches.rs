//! `Datasource "NAME" {}`: declares a cache. Momentum's settings in it are accepted and not used.

use hcl::edit::structure::Block;

use crate::config::report::Report;
use crate::config::scope::{Scope, label};
use crate::structure::StructureName;

/// A declared cache.
pub(super) struct Datasource {
    pub(super) name: StructureName,
    pub(super) at: usize,
}

pub(super) fn read(block: &Block, report: &mut Report<'_>) -> Option<Datasource> {
    let name = label(block, report, "mycache");
    let mut scope =
        Scope::block(name.map_or("Datasource".to_owned(), |(name, _)| format!("Datasource {name:?}")), block);
    if let Some(uri) = scope.take("uri") {
        uri.text(report, "uri = \"odbc:DSN=sqlserver\"");
    }
    if let Some(serialized) = scope.take("serialized") {
        serialized.truth(report);
    }
    scope.finish(report, "a Datasource only declares the cache here, take it out; it may have");
    let (name, at) = name?;
    match StructureName::new(name) {
        Ok(name) => Some(Datasource { name, at }),
        Err(error) => {
            report.add(at, "this cannot be the name of a cache", error.to_string());
            None
        }
    }
}
