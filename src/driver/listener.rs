//! How the driver opens and closes the HTTP listener of a running node.

#[cfg(feature = "http")]
use std::sync::Arc;

use crate::builder::StartError;
use crate::configuration::Declared;
use crate::driver::Driver;
#[cfg(feature = "http")]
use crate::http::Http;

/// The listener of the next configuration; `None` where it is the same.
#[cfg(feature = "http")]
pub(super) type Listening = Option<Option<Http>>;

/// A build without the feature `http` has no listener.
#[cfg(not(feature = "http"))]
pub(super) struct Listening;

#[cfg(feature = "http")]
impl Driver {
    /// Opens the listener of the next configuration, if it is another one.
    pub(super) fn listen_anew(&self, next: &Declared) -> Result<Listening, StartError> {
        if next.http == self.running.http {
            return Ok(None);
        }
        Ok(Some(next.http.as_ref().map(|address| Http::bind(address, self.facts)).transpose()?))
    }

    /// Serves the new listener in place of the old one.
    pub(super) fn serve_anew(&mut self, listening: Listening) {
        let Some(http) = listening else { return };
        *self.shared.http.lock() = http.as_ref().and_then(Http::local_addr);
        let serving = http.map(|http| http.serve(Arc::clone(&self.shared), self.sender.clone()));
        if let Some(before) = std::mem::replace(&mut self.http, serving) {
            tokio::spawn(before.close());
        }
    }
}

#[cfg(not(feature = "http"))]
impl Driver {
    pub(super) fn listen_anew(&self, _: &Declared) -> Result<Listening, StartError> {
        Ok(Listening)
    }

    pub(super) fn serve_anew(&mut self, _: Listening) {}
}
