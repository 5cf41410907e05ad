//! What a node was configured with, apart from its identity.

use std::collections::BTreeMap;

#[cfg(feature = "http")]
use tallymesh_schemas::config::HttpAddress;
use tallymesh_schemas::config::{LimitsConfig, LogLevel};
use tallymesh_schemas::{Budget, GaugeCacheSpec, SeriesSpec, StructureSpec};

use crate::builder::Builder;

/// What a node was configured with, as far as a reload compares it.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    /// Structures and caches.
    pub(crate) structures: Vec<StructureSpec>,
    pub(crate) series: Vec<SeriesSpec>,
    pub(crate) gauge_caches: Vec<GaugeCacheSpec>,
    pub(crate) limits: LimitsConfig,
    pub(crate) budget: Budget,
    pub(crate) seeds: Vec<String>,
    pub(crate) log: Option<LogLevel>,
    #[cfg(feature = "http")]
    pub(crate) http: Option<HttpAddress>,
    /// Settings of the node that a running node keeps, by name.
    pub(crate) fixed: BTreeMap<&'static str, String>,
}

impl Declared {
    pub(crate) fn of(builder: &Builder) -> Self {
        let transport = &builder.transport;
        let mut fixed = BTreeMap::new();
        fixed.insert("listen", transport.listen.to_string());
        fixed.extend(transport.advertise.map(|address| ("advertise", address.to_string())));
        #[cfg(feature = "admin")]
        fixed.extend(builder.admin.as_ref().map(|path| ("admin", path.display().to_string())));
        #[cfg(feature = "state")]
        {
            fixed.extend(builder.data_dir.as_ref().map(|path| ("data_dir", path.display().to_string())));
            fixed.insert("on_full_disk", builder.on_full_disk.name().to_owned());
        }
        Self {
            structures: builder.structures.clone(),
            series: builder.series.clone(),
            gauge_caches: builder.gauge_caches.clone(),
            limits: builder.limits.clone(),
            budget: builder.engine.budget,
            seeds: transport.seeds.clone(),
            log: builder.log,
            #[cfg(feature = "http")]
            http: builder.http.clone(),
            fixed,
        }
    }
}
