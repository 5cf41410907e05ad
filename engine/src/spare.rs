//! Memory that is given back when what used it goes.
//!
//! A table gives memory back when it uses less than an eighth of it, and keeps twice what it uses. So between two such moments at
//! least a quarter of the kept memory was freed, or filled, one entry at a time: the moves cost each of those changes a constant.

use std::collections::VecDeque;

/// A table of this size keeps its memory.
const LEAST: usize = 16;

/// How much a table keeps that uses `used` of a capacity; `None` if it keeps all.
pub(crate) fn kept(used: usize, capacity: usize) -> Option<usize> {
    (capacity > LEAST && used < capacity / 8).then_some((used * 2).max(LEAST))
}

/// Gives back what a vector does not use.
pub(crate) fn trim<T>(vec: &mut Vec<T>) {
    if let Some(kept) = kept(vec.len(), vec.capacity()) {
        vec.shrink_to(kept);
    }
}

/// Gives back what a queue does not use.
pub(crate) fn trim_queue<T>(queue: &mut VecDeque<T>) {
    if let Some(kept) = kept(queue.len(), queue.capacity()) {
        queue.shrink_to(kept);
    }
}

/// The vacant places of a vector whose other places do not move. It may also name places behind the end, and places that are in
/// use again: those were vacant when the vector was longer.
#[derive(Debug, Default)]
pub(crate) struct Vacant {
    places: Vec<u32>,
}

impl Vacant {
    /// A vacant place. `is_vacant` says whether the vector has a place, and it is vacant.
    pub(crate) fn take(&mut self, is_vacant: impl Fn(u32) -> bool) -> Option<u32> {
        while let Some(place) = self.places.pop() {
            if is_vacant(place) {
                return Some(place);
            }
        }
        None
    }

    /// A place has become vacant. The vector gives up the vacant places at its end, and memory if few are left.
    pub(crate) fn give<T>(&mut self, place: u32, vec: &mut Vec<T>, is_vacant: impl Fn(&T) -> bool) {
        self.places.push(place);
        while vec.last().is_some_and(&is_vacant) {
            vec.pop();
        }
        trim(vec);
        // Only places that were vacant at the end before can make it longer than the vector.
        if self.places.len() > vec.len() + LEAST {
            self.places.clear();
            self.places.extend((0..).zip(&*vec).filter(|(_, at)| is_vacant(at)).map(|(place, _)| place));
            trim(&mut self.places);
        }
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No place is given out that is in use. When all places but some are vacant, the memory is that of those.
        #[test]
        fn a_place_is_vacant_or_in_use(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..600)) {
            let (mut vec, mut vacant) = (Vec::<Option<usize>>::new(), Vacant::default());
            let mut used = BTreeMap::new();
            let give = |used: &mut BTreeMap<u32, usize>, vec: &mut Vec<Option<usize>>, vacant: &mut Vacant, place: u32| {
                assert_eq!(std::mem::take(&mut vec[place as usize]), used.remove(&place));
                vacant.give(place, vec, Option::is_none);
            };
            for (number, (puts, which)) in steps.into_iter().enumerate() {
                if puts || used.is_empty() {
                    let place = vacant.take(|place| matches!(vec.get(place as usize), Some(None)));
                    let place = place.unwrap_or(vec.len() as u32);
                    if place as usize == vec.len() {
                        vec.push(None);
                    }
                    prop_assert_eq!(vec[place as usize].replace(number), None);
                    used.insert(place, number);
                } else {
                    let place = *used.keys().nth(which.index(used.len())).unwrap();
                    give(&mut used, &mut vec, &mut vacant, place);
                }
                let held: Vec<_> = (0..).zip(&vec).filter_map(|(place, at)| Some((place, (*at)?))).collect();
                prop_assert_eq!(held, used.iter().map(|(place, number)| (*place, *number)).collect::<Vec<_>>());
            }
            while let Some((place, _)) = used.first_key_value() {
                let place = *place;
                give(&mut used, &mut vec, &mut vacant, place);
            }
            prop_assert!(vec.capacity() + vacant.places.capacity() <= 4 * LEAST);
        }
    }
}
