//! A table from the texts of references to the numbers of images, which has no copy of any text.

use std::hash::{BuildHasher as _, RandomState};

/// A table of names, by their hashes: open addressing, at most half full.
#[derive(Debug)]
pub(super) struct Names {
    slots: Box<[Slot]>,
    hashes: RandomState,
}

/// A number and the upper half of its text's hash, so that most texts are compared once.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    number: u32,
}

const EMPTY: Slot = Slot { hash: 0, number: u32::MAX };

impl Names {
    /// Makes a table of `count` texts.
    pub(super) fn new<'a>(count: usize, text: impl Fn(usize) -> &'a str) -> Self {
        let slots = vec![EMPTY; (count * 2).next_power_of_two()].into();
        let mut names = Self { slots, hashes: RandomState::new() };
        for number in 0..count {
            let (mut at, hash) = names.place(text(number));
            while names.slots[at].number != EMPTY.number {
                at = names.next(at);
            }
            names.slots[at] = Slot { hash, number: number as u32 };
        }
        names
    }

    /// Returns the numbers of a text, the lowest first. `text` has to return the texts that the table was made of.
    pub(super) fn find<'a>(
        &'a self,
        wanted: &'a str,
        text: impl Fn(usize) -> &'a str + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let (start, hash) = self.place(wanted);
        let used = move |at: &usize| self.slots[*at].number != EMPTY.number;
        std::iter::successors(Some(start), |&at| Some(self.next(at)))
            .take_while(used)
            .map(|at| self.slots[at])
            .filter(move |slot| slot.hash == hash && text(slot.number as usize) == wanted)
            .map(|slot| slot.number as usize)
    }

    /// Returns the first slot for a text, and the upper half of its hash.
    fn place(&self, text: &str) -> (usize, u32) {
        let hash = self.hashes.hash_one(text);
        (hash as usize & (self.slots.len() - 1), (hash >> 32) as u32)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text is found by itself, all of equal ones in their order, and no other text; of no texts none is found.
    #[test]
    fn texts_are_found() {
        let texts: Vec<String> =
            (0..1000).map(|number| format!("docker.io/acme/app:{}", number % 900)).collect();
        let names = Names::new(texts.len(), |number| &texts[number]);
        let find = |text: &str| names.find(text, |number| &texts[number]).collect::<Vec<_>>();
        for (number, text) in texts.iter().take(900).enumerate() {
            let expected = if number < 100 { vec![number, number + 900] } else { vec![number] };
            assert_eq!(find(text), expected);
        }
        assert_eq!((find("docker.io/acme/app:900"), find("")), (vec![], vec![]));
        assert_eq!(Names::new(0, |_| "").find("", |_| "").next(), None);
    }
}
