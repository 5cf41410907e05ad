//! The request to read the configuration file again.

#[cfg(feature = "config")]
use tallymesh_schemas::admin::{self, Answer};

use crate::admin::session::{Refused, Served, Session};
#[cfg(feature = "config")]
use crate::admin::wire;
use crate::admin::wire::To;
use crate::plan::ReloadMode;
#[cfg(feature = "config")]
use crate::plan::{ConfigChange, Effect};
#[cfg(feature = "config")]
use crate::reload::{self, ReloadError};

impl Session {
    #[cfg(feature = "config")]
    pub(super) async fn reload(&self, mode: ReloadMode, to: &mut To) -> Served {
        let commands = match self.commands() {
            Ok(commands) => commands,
            Err(refused) => return Ok(Err(refused)),
        };
        match reload::reload_file(self.shared(), &commands, mode).await {
            Ok(changes) => wire::write_pages(to, changes.into_iter().map(change), Answer::Changes).await.map(Ok),
            Err(error @ (ReloadError::NoFile | ReloadError::Gone)) => Ok(Err(Refused::failed(error.to_string()))),
            Err(error) => Ok(Err(Refused::bad(error))),
        }
    }

    #[cfg(not(feature = "config"))]
    pub(super) async fn reload(&self, _mode: ReloadMode, _to: &mut To) -> Served {
        Ok(Err(Refused::failed("this build of the node reads no configuration files".to_owned())))
    }
}

#[cfg(feature = "config")]
fn change(ConfigChange { what, before, after, effect }: ConfigChange) -> admin::ConfigChange {
    admin::ConfigChange { what, before, after, needs_restart: effect == Effect::Restart }
}
