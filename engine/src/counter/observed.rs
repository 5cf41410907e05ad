//! What a gauge cache has observed of its structure, and how far its walks through all entries are.

use crate::counter::ages::{Ages, Moment};

/// What is known of the entries, and the walks that are under way. Each walk goes on in bounded steps.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) ages: Ages,
    /// The last changed key that was taken: the next step begins behind it.
    pub(super) taken: Option<Vec<u8>>,
    /// The comparison of all entries with their rows, after changed keys were lost.
    pub(super) comparison: Option<Comparison>,
    /// The walk that tries to determine unknown ages.
    pub(super) settling: Walk<Vec<u8>>,
    /// The walk that clears expired entries.
    pub(super) clearing: Walk<(Moment, Vec<u8>)>,
}

/// A comparison of all entries with their rows.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The keys up to this one are compared.
    pub(super) upto: Option<Vec<u8>>,
    /// Further changed keys were lost, so that all keys have to be compared once more.
    pub(super) again: bool,
}

/// A walk through entries in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Walk<K> {
    /// None is under way.
    #[default]
    Over,
    /// It goes on behind this place.
    Behind(Option<K>),
}

impl<K> Walk<K> {
    /// Begins a walk unless one is under way.
    pub(super) fn begin(&mut self) {
        if matches!(self, Self::Over) {
            *self = Self::Behind(None);
        }
    }
}

impl Observed {
    /// Handles that changed keys were lost.
    pub(super) fn note_lost(&mut self) {
        match &mut self.comparison {
            Some(comparison) => comparison.again = true,
            None => self.comparison = Some(Comparison::default()),
        }
    }

    /// The keys up to this one are compared; `None` for all keys.
    pub(super) fn note_compared(&mut self, upto: Option<Vec<u8>>) {
        let Some(comparison) = &mut self.comparison else { return };
        if upto.is_some() {
            comparison.upto = upto;
        } else {
            self.comparison = comparison.again.then(Comparison::default);
        }
    }

    /// Whether a change of a key may have been lost.
    pub(super) fn is_unsure_of(&self, key: &[u8]) -> bool {
        let unsure =
            |comparison: &Comparison| comparison.again || comparison.upto.as_deref().is_none_or(|upto| key > upto);
        self.comparison.as_ref().is_some_and(unsure)
    }

    /// Whether a walk is under way.
    pub(super) fn is_walking(&self) -> bool {
        self.comparison.is_some() || self.settling != Walk::Over || self.clearing != Walk::Over
    }
}
