//! Versions: the order of the changes of one actor's rows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in the history of one actor's rows in one structure. Versions count from 1 without holes; 0 is before the first
/// change.
///
/// A version is not a quantity: it cannot be added to a total or to another version. On the wire and on disk it is its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// Behind all changes.
    pub const MAX: Self = Self(u64::MAX);

    /// The version after this one.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The version before this one; [`Version::ZERO`] has none and stays.
    #[inline]
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many changes follow `earlier`, up to this version; 0 when `earlier` is not earlier.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The version `changes` later, `None` when there is no such number.
    #[inline]
    #[must_use]
    pub fn after(self, changes: u64) -> Option<Self> {
        self.0.checked_add(changes).map(Self)
    }

    /// The version `changes` earlier, but not before [`Version::ZERO`].
    #[inline]
    #[must_use]
    pub const fn before(self, changes: u64) -> Self {
        Self(self.0.saturating_sub(changes))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number alone, so that a structure with versions reads as before.
impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_moves_by_changes_and_stays_in_its_range() {
        assert_eq!(Version::ZERO.next(), Version(1));
        assert_eq!((Version(1).previous(), Version::ZERO.previous()), (Version::ZERO, Version::ZERO));
        assert_eq!((Version(7).since(Version(3)), Version(3).since(Version(7))), (4, 0));
        assert_eq!((Version(3).after(4), Version::MAX.after(1)), (Some(Version(7)), None));
        assert_eq!((Version(7).before(4), Version(3).before(4)), (Version(3), Version::ZERO));
    }

    #[test]
    fn a_version_is_written_as_its_number() {
        let bytes = postcard::to_stdvec(&Version(300)).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&300_u64).unwrap());
        assert_eq!(postcard::from_bytes::<Version>(&bytes), Ok(Version(300)));
        assert_eq!(format!("{0} {0:?}", Version(300)), "300 300");
    }
}
