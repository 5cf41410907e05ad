//! Stands in for the HTTP listener in a build without the feature `http`. No node has one, so these types have no values.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::command::Command;
use crate::shared::Shared;

/// A bound listener that is not served yet.
#[derive(Debug)]
pub(crate) struct Http(Infallible);

/// A listener that is being served.
#[derive(Debug)]
pub(crate) struct Serving(Infallible);

impl Http {
    pub(crate) fn serve(self, _shared: Arc<Shared>, _commands: mpsc::WeakSender<Command>) -> Serving {
        Serving(self.0)
    }
}

impl Serving {
    pub(crate) async fn close(self) {
        match self.0 {}
    }
}
