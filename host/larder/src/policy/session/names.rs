//! A table from the texts of references to the numbers of images, which has no copy of any text.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// A table of names, by their hashes.
#[derive(Debug)]
pub(super) struct Names {
    numbers: HashTable<u32>,
    hashes: RandomState,
}

impl Names {
    /// Makes a table of `count` texts.
    pub(super) fn new<'a>(count: usize, text: impl Fn(usize) -> &'a str) -> Self {
        let hashes = RandomState::new();
        let hash = |number: &u32| hashes.hash_one(text(*number as usize));
        let mut numbers = HashTable::with_capacity(count);
        for number in 0..count as u32 {
            numbers.insert_unique(hash(&number), number, hash);
        }
        Self { numbers, hashes }
    }

    /// Returns the numbers of a text, in no order. `text` has to return the texts that the table was made of.
    pub(super) fn find<'a>(
        &'a self,
        wanted: &'a str,
        text: impl Fn(usize) -> &'a str + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let found = self.numbers.iter_hash(self.hashes.hash_one(wanted));
        found.map(|&number| number as usize).filter(move |&number| text(number) == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each text is found by itself, all of equal ones, and no other text; of no texts none is found.
    #[test]
    fn texts_are_found() {
        let texts: Vec<String> =
            (0..1000).map(|number| format!("docker.io/acme/app:{}", number % 900)).collect();
        let names = Names::new(texts.len(), |number| &texts[number]);
        let find = |text: &str| {
            let mut found: Vec<_> = names.find(text, |number| &texts[number]).collect();
            found.sort_unstable();
            found
        };
        for (number, text) in texts.iter().take(900).enumerate() {
            let expected = if number < 100 { vec![number, number + 900] } else { vec![number] };
            assert_eq!(find(text), expected);
        }
        assert_eq!((find("docker.io/acme/app:900"), find("")), (vec![], vec![]));
        assert_eq!(Names::new(0, |_| "").find("", |_| "").next(), None);
    }
}
