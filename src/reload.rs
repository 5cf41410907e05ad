//! Another configuration for a running node.

#[cfg(feature = "config")]
use std::fs::File;
#[cfg(feature = "config")]
use std::io::Read;
#[cfg(feature = "config")]
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "config")]
use tallymesh_schemas::bounds;
use tallymesh_schemas::config::LogLevel;
#[cfg(feature = "config")]
use tallymesh_schemas::config::{Config, ConfigErrors};
use tallymesh_transport::{IdentityError, UseIdentityError};
use tokio::sync::mpsc;

use crate::builder::{Builder, StartError};
use crate::certificates::{CannotUse, Loaded};
use crate::command::{Command, ask};
use crate::configuration::Declared;
use crate::plan::{ConfigChange, Effect, ReloadMode};
use crate::set_log::SetLog;
use crate::shared::Shared;

/// Why a node keeps the configuration that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A node could not start with the configuration either.
    #[error(transparent)]
    Refused(#[from] StartError),
    /// The configuration file cannot be used.
    #[cfg(feature = "config")]
    #[error(transparent)]
    File(#[from] ReadConfigError),
    /// The configuration is that of another node.
    #[error("the configuration is that of node {other} and not of {name}: a running node keeps its name")]
    OtherNode {
        /// The name of the node.
        name: String,
        /// The name in the configuration.
        other: String,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] UseIdentityError),
    /// The node was not configured from a file.
    #[error("this node was not configured from a file: its program has to reload it")]
    NoFile,
    /// The node has been shut down.
    #[error("the node is shutting down")]
    Gone,
}

impl From<CannotUse> for ReloadError {
    fn from(error: CannotUse) -> Self {
        match error {
            CannotUse::Identity(error) => Self::Refused(error.into()),
            CannotUse::Transport(error) => Self::Identity(error),
        }
    }
}

impl From<IdentityError> for ReloadError {
    fn from(error: IdentityError) -> Self {
        Self::Refused(error.into())
    }
}

/// Why a configuration file cannot be used.
#[cfg(feature = "config")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The file has mistakes.
    #[error(transparent)]
    Mistakes(#[from] ConfigErrors),
}

/// Reads a configuration file. Its relative paths become relative to the folder of the file.
///
/// # Errors
/// [`ReadConfigError`] when the file cannot be read, or has mistakes.
#[cfg(feature = "config")]
pub fn read_config(path: impl AsRef<Path>) -> Result<Config, ReadConfigError> {
    let path = path.as_ref();
    let mut config = Config::parse(&read_text(path)?, &path.display().to_string())?;
    config.resolve_paths(path.parent().unwrap_or(Path::new("")));
    Ok(config)
}

#[cfg(feature = "config")]
fn read_text(path: &Path) -> Result<String, ReadConfigError> {
    let cannot = |why: String| ReadConfigError::Unreadable { path: path.to_owned(), why };
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let mut bytes = Vec::new();
    // With one byte more than allowed, the parser can report that it is too long.
    let read = file.take(bounds::CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
        cannot(format!("line {} is not UTF-8; save the file as UTF-8", line + 1))
    })
}

impl Builder {
    /// Sets the file that [`Node::reload_file`](crate::Node::reload_file) and `tally config reload` read.
    #[cfg(feature = "config")]
    #[must_use]
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.source = Some(path.as_ref().to_owned());
        self
    }

    /// Sets what the program does when a reload changes the level of its log. Without this, such a change needs a restart.
    #[must_use]
    pub fn on_log_level(mut self, set: impl Fn(LogLevel) + Send + Sync + 'static) -> Self {
        self.set_log = Some(SetLog(Arc::new(set)));
        self
    }
}

/// Gives a node the configuration of a builder. The driver makes all changes in one step, or none.
pub(crate) async fn reload(
    shared: &Shared,
    commands: &mpsc::Sender<Command>,
    mut wanted: Builder,
    mode: ReloadMode,
) -> Result<Vec<ConfigChange>, ReloadError> {
    let name = shared.endpoint.name();
    if wanted.name != name.as_str() {
        return Err(ReloadError::OtherNode { name: name.to_string(), other: wanted.name });
    }
    let loaded = match wanted.identity.is_some() {
        true => Some(Loaded { identity: wanted.take_identity()?, files: wanted.files.take() }),
        false => None,
    };
    let declared = Box::new(Declared::of(&wanted));
    let changed = ask(commands, |reply| Command::Reload { wanted: declared, mode, reply }).await;
    let mut changes = changed.ok_or(ReloadError::Gone)??;
    if let Some(loaded) = loaded.filter(|loaded| shared.certificates.differs(loaded)) {
        changes.push(ConfigChange { what: "tls".to_owned(), before: None, after: None, effect: Effect::Now });
        if mode == ReloadMode::Apply {
            shared.certificates.use_loaded(loaded).await?;
        }
    }
    if mode == ReloadMode::Apply {
        for change in &changes {
            tracing::info!(node = %name, "the configuration has changed: {change}");
        }
        tracing::info!(node = %name, changes = changes.len(), "the configuration is reloaded");
    }
    Ok(changes)
}

/// Gives a node the configuration that is in its file now.
#[cfg(feature = "config")]
pub(crate) async fn reload_file(
    shared: &Shared,
    commands: &mpsc::Sender<Command>,
    mode: ReloadMode,
) -> Result<Vec<ConfigChange>, ReloadError> {
    let path = shared.source.clone().ok_or(ReloadError::NoFile)?;
    let reading = tokio::task::spawn_blocking(move || -> Result<Builder, ReloadError> {
        Ok(Builder::from_config(&read_config(path)?)?)
    });
    let wanted = reading.await.map_err(|_| ReloadError::Gone)??;
    reload(shared, commands, wanted, mode).await
}
