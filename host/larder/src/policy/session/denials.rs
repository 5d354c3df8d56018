//! What a run was not allowed, for the operator: the first thousand, and the number of the others by right.

use std::collections::BTreeMap;

use super::access::{Name, Refusal};
use crate::plan::{Denial, Right};

/// The number of denials that are kept with their words.
const LISTED: usize = 1000;

/// The denials of a run.
#[derive(Debug, Default)]
pub(super) struct Denials {
    listed: Vec<Denial>,
    others: BTreeMap<Right, u64>,
    /// The rights that were lacking for no image in particular.
    general: u8,
}

impl Denials {
    /// Records a refusal. Of those that are about no image, each right counts once.
    pub(super) fn record(&mut self, refusal: &Refusal, image: Option<Name<'_>>) {
        let right = refusal.right();
        if image.is_none() {
            let bit = 1 << right as u8;
            if self.general & bit != 0 {
                return;
            }
            self.general |= bit;
        }
        if self.listed.len() == LISTED {
            *self.others.entry(right).or_default() += 1;
            return;
        }
        self.listed.push(Denial {
            right,
            reference: image.map(|name| name.text().to_owned()),
            message: refusal.message(image),
            allowed_by: refusal.allowed_by(image),
        });
    }

    /// Returns those that are listed, and one more for each right of which there are others.
    pub(super) fn list(&self) -> Vec<Denial> {
        let others = self.others.iter().map(|(&right, number)| Denial {
            right,
            reference: None,
            message: format!("{number} more images were denied in the same way and are not listed"),
            allowed_by: "what would allow those that are listed".to_owned(),
        });
        self.listed.iter().cloned().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand denials are listed, of the others there is a number for each right; what is about no image counts once.
    #[test]
    fn a_thousand_are_listed() {
        let cell = std::cell::OnceCell::new();
        let name = Name::new("docker.io/acme/app:1", &cell);
        let mut denials = Denials::default();
        for _ in 0..3 {
            denials.record(&Refusal::NotPrunable, None);
        }
        for number in 0..1500 {
            let refusal = if number % 3 == 0 { Refusal::Hidden } else { Refusal::NotGranted };
            denials.record(&refusal, Some(name));
        }
        let list = denials.list();
        assert_eq!((list.len(), list[0].right), (1002, Right::Prune));
        let last: Vec<_> = list[1000..].iter().map(|denial| (denial.right, &*denial.message)).collect();
        let sentence = "more images were denied in the same way and are not listed";
        let [read, remove] = [167, 334].map(|number| format!("{number} {sentence}"));
        assert_eq!(last, [(Right::Read, &*read), (Right::Remove, &*remove)]);
    }
}
