//! A builder from a configuration file.

use tallymesh_schemas::config::{CacheConfig, Config};

use crate::builder::{Builder, StartError};

/// Refuses a setting of a feature that this build does not have.
#[cfg(not(all(feature = "admin", feature = "http", feature = "state")))]
fn without<T>(value: &Option<T>, setting: &'static str, feature: &'static str) -> Result<(), StartError> {
    if value.is_none() { Ok(()) } else { Err(StartError::NotBuilt { setting, feature }) }
}

impl Builder {
    /// Creates a builder from a configuration, and reads the certificate files that it names.
    ///
    /// # Errors
    /// [`StartError`] when the configuration has no node block, or when the certificate is invalid or for another node.
    pub fn from_config(config: &Config) -> Result<Self, StartError> {
        let node = config.require_node()?;
        let mut builder = Self::new(node.name.as_str()).identity_files(&node.tls)?.listen(node.listen);
        builder.transport.advertise = node.advertise;
        builder.transport.seeds.clone_from(&node.seeds);
        builder.structures.clone_from(&config.structures);
        builder.structures.extend(config.caches.iter().map(CacheConfig::structure));
        builder.series.clone_from(&config.series);
        builder.gauge_caches.clone_from(&config.gauge_caches);
        builder.limits = config.limits.clone().unwrap_or_default();
        builder.engine.budget = node.budget;
        builder.log = node.log;
        #[cfg(feature = "admin")]
        builder.admin.clone_from(&node.admin);
        #[cfg(not(feature = "admin"))]
        without(&node.admin, "admin", "admin")?;
        #[cfg(feature = "state")]
        {
            builder.data_dir.clone_from(&node.data_dir);
            builder.on_full_disk = node.on_full_disk;
        }
        #[cfg(not(feature = "state"))]
        without(&node.data_dir, "data_dir", "state")?;
        #[cfg(feature = "http")]
        builder.http.clone_from(&node.http);
        #[cfg(not(feature = "http"))]
        without(&node.http, "http", "http")?;
        Ok(builder)
    }
}
