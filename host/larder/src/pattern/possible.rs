//! Tells whether a pattern can match a reference at all. The guest SDK's cache for tests has this file as its own.
//!
//! A normalized reference is `REGISTRY/PATH[:TAG][@DIGEST]`, with a tag, a digest or both. [`Place`] is a place in such a
//! text; [`can_match`] walks pattern and text together, from each pair of places over each byte that both take. It is
//! exact but for lengths: a repository of more than 255 characters counts as possible, and a digest of which a star stands for
//! some digits.

use std::collections::HashSet;

use super::Star;

/// A place in a normalized reference: what precedes it, as far as that decides what may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// In the name of the registry. `names` has the [`NAMES`] that it may still become, by number; `at` is its length while
    /// there are any.
    Host {
        names: u8,
        at: u8,
        is_dotted: bool,
        edge: Edge,
    },
    Port {
        is_empty: bool,
    },
    /// In a component of the path.
    Component {
        path: Path,
        run: Run,
    },
    Tag {
        is_empty: bool,
    },
    /// In the name of a digest's algorithm, of which so many bytes are there: `sha` and the two digits of `bits`.
    Algorithm {
        at: u8,
        first: u8,
    },
    /// In the digits of a digest, of which so many are missing; behind a star, any number.
    Digits {
        missing: Option<u8>,
    },
}

/// Where in a label of a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Edge {
    Start,
    Inside,
    Hyphen,
}

/// Which component of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Path {
    /// The first of docker.io, where no image has only one.
    Docker,
    /// Any other.
    Any,
}

/// What the component has at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Run {
    Start,
    Plain,
    Dot,
    Underscore,
    Underscores,
    Hyphens,
}

/// Registries that are special: Docker's, its former name, which no normalized reference has, and the one without a dot.
const NAMES: [&[u8]; 3] = [b"docker.io", b"index.docker.io", b"localhost"];

impl Place {
    const START: Self = Self::Host { names: 0b111, at: 0, is_dotted: false, edge: Edge::Start };

    /// Returns the place after one more byte; none where no reference goes on with it.
    fn after(self, byte: u8) -> Option<Self> {
        match self {
            Self::Host { names, at, is_dotted, edge } => after_host(names, at, is_dotted, edge, byte),
            Self::Port { is_empty } => match byte {
                b'0'..=b'9' => Some(Self::Port { is_empty: false }),
                b'/' if !is_empty => Some(Self::Component { path: Path::Any, run: Run::Start }),
                _ => None,
            },
            Self::Component { path, run } => after_component(path, run, byte),
            Self::Tag { is_empty } => match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => Some(Self::Tag { is_empty: false }),
                b'.' | b'-' if !is_empty => Some(self),
                b'@' if !is_empty => Some(Self::Algorithm { at: 0, first: 0 }),
                _ => None,
            },
            Self::Algorithm { at, first } => match (at, first, byte) {
                (0, _, b's') | (1, _, b'h') | (2, _, b'a') => Some(Self::Algorithm { at: at + 1, first }),
                (3, _, b'2' | b'3' | b'5') => Some(Self::Algorithm { at: 4, first: byte }),
                (4, b'2', b'5') | (4, b'3', b'8') | (4, b'5', b'1') => Some(Self::Algorithm { at: 5, first }),
                (5, b'2', b'6') | (5, b'3', b'4') | (5, b'5', b'2') => Some(Self::Algorithm { at: 6, first }),
                (6, b'2', b':') => Some(Self::Digits { missing: Some(64) }),
                (6, b'3', b':') => Some(Self::Digits { missing: Some(96) }),
                (6, b'5', b':') => Some(Self::Digits { missing: Some(128) }),
                _ => None,
            },
            Self::Digits { missing } => {
                let missing = match missing {
                    Some(missing) => Some(missing.checked_sub(1)?),
                    None => None,
                };
                byte.is_ascii_hexdigit().then_some(Self::Digits { missing })
            }
        }
    }

    /// Returns whether a repository or a reference may end here.
    fn is_end(self) -> bool {
        match self {
            Self::Component { path, run } => path == Path::Any && run == Run::Plain,
            Self::Tag { is_empty } => !is_empty,
            Self::Digits { missing } => missing.is_none_or(|missing| missing == 0),
            Self::Host { .. } | Self::Port { .. } | Self::Algorithm { .. } => false,
        }
    }
}

fn after_host(names: u8, at: u8, is_dotted: bool, edge: Edge, byte: u8) -> Option<Place> {
    let is_name = |name: usize| names >> name & 1 == 1 && NAMES[name].len() == usize::from(at);
    let still = |name: &usize| names >> name & 1 == 1 && NAMES[*name].get(usize::from(at)) == Some(&byte);
    let names = (0..NAMES.len()).filter(still).fold(0, |names, name| names | 1 << name);
    let at = if names == 0 { 0 } else { at + 1 };
    let host = |is_dotted, edge| Some(Place::Host { names, at, is_dotted, edge });
    match (byte, edge) {
        (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9', _) => host(is_dotted, Edge::Inside),
        (b'-', Edge::Inside | Edge::Hyphen) => host(is_dotted, Edge::Hyphen),
        (b'.', Edge::Inside) => host(true, Edge::Start),
        (b':', Edge::Inside) => Some(Place::Port { is_empty: true }),
        (b'/', Edge::Inside) if is_name(0) => Some(Place::Component { path: Path::Docker, run: Run::Start }),
        (b'/', Edge::Inside) if is_name(1) => None,
        (b'/', Edge::Inside) if is_dotted || is_name(2) => {
            Some(Place::Component { path: Path::Any, run: Run::Start })
        }
        _ => None,
    }
}

fn after_component(path: Path, run: Run, byte: u8) -> Option<Place> {
    let component = |run| Some(Place::Component { path, run });
    match (byte, run) {
        (b'a'..=b'z' | b'0'..=b'9', _) => component(Run::Plain),
        // The first component may look like the name of a host.
        (b'A'..=b'Z', _) if path == Path::Docker => component(Run::Plain),
        (b'.', Run::Plain) => component(Run::Dot),
        (b'_', Run::Plain) => component(Run::Underscore),
        (b'_', Run::Underscore) => component(Run::Underscores),
        (b'-', Run::Plain | Run::Hyphens) => component(Run::Hyphens),
        (b'/', Run::Plain) => Some(Place::Component { path: Path::Any, run: Run::Start }),
        (b':', Run::Plain) if path == Path::Any => Some(Place::Tag { is_empty: true }),
        (b'@', Run::Plain) if path == Path::Any => Some(Place::Algorithm { at: 0, first: 0 }),
        _ => None,
    }
}

/// The bytes that references are made of.
const BYTES: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789/:.@-_ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Returns whether these literals, with these stars before and behind them, match any normalized reference or repository.
pub(super) fn can_match(literals: &[u8], stars: &[Option<Star>]) -> bool {
    let mut seen = HashSet::from([(0, Place::START)]);
    let mut left = vec![(0, Place::START)];
    while let Some((at, place)) = left.pop() {
        if at == literals.len() && place.is_end() {
            return true;
        }
        let mut go = |at, place: Option<Place>| {
            if let Some(place) = place
                && seen.insert((at, place))
            {
                left.push((at, place));
            }
        };
        if let Some(star) = stars[at] {
            let takes = |byte: &&u8| star == Star::Across || !super::is_separator(**byte);
            BYTES.iter().filter(takes).for_each(|&byte| {
                go(
                    at,
                    place.after(byte).map(|place| match place {
                        // How many a star has taken need not be known.
                        Place::Digits { .. } => Place::Digits { missing: None },
                        place => place,
                    }),
                );
            });
        }
        if let Some(&byte) = literals.get(at) {
            go(at + 1, place.after(byte));
        }
    }
    false
}
