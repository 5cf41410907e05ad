//! The certificate of a running node: its files are watched, and the node warns before it expires.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tallymesh_schemas::config::Tls;
use tallymesh_transport::{Endpoint, Identity, IdentityError, UseIdentityError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate that is valid for less than this causes a warning each day.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The contents of the three files.
struct Material {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What was found at one look: an identity can be made of it, or not.
struct Found {
    material: Result<Material, IdentityError>,
    /// Equal for equal contents, and for equal errors.
    fingerprint: u64,
}

impl Found {
    fn read(files: &Tls) -> Self {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| IdentityError::File { path: path.to_owned(), source });
        let all = || -> Result<_, IdentityError> {
            Ok(Material { ca: read(&files.ca)?, cert: read(&files.cert)?, key: read(&files.key)? })
        };
        let (material, mut hasher) = (all(), DefaultHasher::new());
        match &material {
            Ok(Material { ca, cert, key }) => (ca, cert, key).hash(&mut hasher),
            Err(error) => error.to_string().hash(&mut hasher),
        }
        Self { material, fingerprint: hasher.finish() }
    }

    fn identity(self) -> Result<Identity, IdentityError> {
        let Material { ca, cert, key } = self.material?;
        Identity::from_pem(&ca, &cert, &key)
    }
}

/// Files of an identity, and what they held when the node used them.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    paths: Tls,
    used: u64,
}

impl Files {
    /// Reads an identity.
    pub(crate) fn load(paths: &Tls) -> Result<(Identity, Self), IdentityError> {
        let found = Found::read(paths);
        let files = Self { paths: paths.clone(), used: found.fingerprint };
        Ok((found.identity()?, files))
    }
}

/// An identity that was read, and its files if they are to be watched.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) identity: Identity,
    pub(crate) files: Option<Files>,
}

/// Why files of an identity are not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotUse {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Transport(#[from] UseIdentityError),
}

/// The certificate of a running node.
#[derive(Debug)]
pub(crate) struct Certificates {
    endpoint: Endpoint,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    files: Option<Files>,
    /// What the last look found. Files that are being written differ at the next look.
    seen: Option<u64>,
    /// What was found last and cannot be used.
    refused: Option<u64>,
    /// Until when peers accept the certificate in use.
    valid_until: Option<SystemTime>,
    /// Why the certificate that is in the files now is not used.
    trouble: Option<String>,
    warned: Option<Instant>,
}

/// What a look at the files asks for.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Use,
}

impl State {
    /// Decides what to do with what the files hold. Contents count only when two looks in a row have found them.
    fn seen(&mut self, fingerprint: u64) -> Next {
        let before = self.seen.replace(fingerprint);
        if self.files.as_ref().is_some_and(|files| files.used == fingerprint) {
            (self.trouble, self.refused) = (None, None);
            return Next::Nothing;
        }
        let is_new = self.refused != Some(fingerprint);
        if is_new && before == Some(fingerprint) { Next::Use } else { Next::Nothing }
    }

    /// How long the certificate is still valid, if that is to be said now: soon, and not said within the last day.
    fn warning(&mut self, now: SystemTime, at: Instant) -> Option<Duration> {
        let left = self.valid_until.and_then(|until| until.duration_since(now).ok()).unwrap_or_default();
        if left >= EXPIRES_SOON {
            self.warned = None;
            return None;
        }
        let is_due = self.warned.is_none_or(|warned| at.duration_since(warned) >= DAY);
        is_due.then(|| {
            self.warned = Some(at);
            left
        })
    }
}

impl Certificates {
    /// The certificate that an endpoint begins with, and the files that it was read from.
    pub(crate) fn new(endpoint: Endpoint, valid_until: Option<SystemTime>, files: Option<Files>) -> Self {
        let (seen, refused, trouble, warned) = (None, None, None, None);
        Self { endpoint, state: Mutex::new(State { files, seen, refused, valid_until, trouble, warned }) }
    }

    /// Until when peers accept the certificate; `None` when they do not accept it.
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) fn valid_until(&self) -> Option<SystemTime> {
        self.state.lock().valid_until
    }

    /// Why the certificate that is in the files now is not used.
    #[cfg(feature = "admin")]
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state.lock().trouble.clone()
    }

    /// Watches the files as long as the task runs.
    pub(crate) fn watch(self: std::sync::Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.warn();
                tokio::time::sleep(LOOK).await;
                self.look().await;
            }
        })
    }

    fn warn(&self) {
        let Some(left) = self.state.lock().warning(SystemTime::now(), Instant::now()) else { return };
        let node = self.endpoint.name();
        if left.is_zero() {
            tracing::error!(%node, "peers refuse the certificate of this node: it has expired, or a clock is wrong");
        } else {
            let days = left.as_secs() / DAY.as_secs();
            tracing::warn!(%node, days, "the certificate of this node expires soon: `tally init --renew` makes another one");
        }
    }

    async fn look(&self) {
        let Some(Files { paths, .. }) = self.state.lock().files.clone() else { return };
        let reading = paths.clone();
        // The files may be on a disk that hangs.
        let Ok(found) = tokio::task::spawn_blocking(move || Found::read(&reading)).await else { return };
        let fingerprint = found.fingerprint;
        if self.state.lock().seen(fingerprint) == Next::Nothing {
            return;
        }
        if let Err(error) = self.use_found(paths, found).await {
            let node = self.endpoint.name();
            tracing::warn!(%node, %error, "the certificate in the files is not used: this node keeps the one that it has");
            let mut state = self.state.lock();
            (state.refused, state.trouble) = (Some(fingerprint), Some(error.to_string()));
        }
    }

    async fn use_found(&self, paths: Tls, found: Found) -> Result<(), CannotUse> {
        let files = Some(Files { paths, used: found.fingerprint });
        self.use_loaded(Loaded { identity: found.identity()?, files }).await?;
        tracing::info!(node = %self.endpoint.name(), "this node uses the certificate that is in its files now");
        Ok(())
    }

    /// Whether an identity comes from other files, or from other contents, than the one in use.
    pub(crate) fn differs(&self, loaded: &Loaded) -> bool {
        match (&self.state.lock().files, &loaded.files) {
            (Some(known), Some(files)) => known.paths != files.paths || known.used != files.used,
            _ => true,
        }
    }

    /// Uses an identity from now on, and watches its files.
    pub(crate) async fn use_loaded(&self, Loaded { identity, files }: Loaded) -> Result<(), CannotUse> {
        let valid_until = identity.valid_until();
        self.endpoint.use_identity(identity).await?;
        let seen = files.as_ref().map(|files| files.used);
        *self.state.lock() = State { files, seen, refused: None, valid_until, trouble: None, warned: None };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(valid_until: Option<SystemTime>) -> State {
        let paths = Tls { ca: "ca".into(), cert: "cert".into(), key: "key".into() };
        let files = Some(Files { paths, used: 1 });
        State { files, seen: None, refused: None, valid_until, trouble: None, warned: None }
    }

    #[test]
    fn contents_count_when_they_have_settled_and_are_tried_once() {
        let mut state = state(None);
        let mut see =
            |fingerprints: &[u64]| fingerprints.iter().map(|n| state.seen(*n) == Next::Use).collect::<Vec<_>>();
        // The certificate was replaced before its key.
        assert_eq!(see(&[1, 2, 3, 3]), [false, false, false, true]);
        state.refused = Some(3);
        state.trouble = Some("the key does not fit".to_owned());
        assert_eq!([state.seen(3), state.seen(3)], [Next::Nothing, Next::Nothing]);
        assert_eq!(state.seen(1), Next::Nothing);
        assert_eq!((state.trouble, state.refused), (None, None), "the files are those in use again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_expires_soon_causes_a_warning_each_day() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let mut late = state(Some(now + 31 * DAY));
        let at = Instant::now();
        assert_eq!(late.warning(now, at), None);
        assert_eq!(late.warning(now + 2 * DAY, at), Some(29 * DAY));
        assert_eq!(late.warning(now + 2 * DAY, at + DAY / 2), None);
        assert_eq!(late.warning(now + 3 * DAY, at + DAY), Some(28 * DAY));
        assert_eq!(late.warning(now + 99 * DAY, at + 2 * DAY), Some(Duration::ZERO));
        assert_eq!(state(None).warning(now, at), Some(Duration::ZERO), "peers do not accept it at all");
    }
}
