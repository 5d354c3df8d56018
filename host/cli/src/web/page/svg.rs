//! Parts of drawings.

/// The size of a drawing, in its own units: about a pixel each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Canvas {
    /// The class that shows it on screens of its kind.
    pub(super) class: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Every drawing is there for wide and for narrow screens, so that its texts are as large on both.
pub(super) const CANVASES: [Canvas; 2] = [
    Canvas { class: "wide", width: 1080.0, height: 340.0 },
    Canvas { class: "narrow", width: 340.0, height: 300.0 },
];

/// A rectangle of a drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Writes a coordinate.
pub(super) fn at(coordinate: f64) -> String {
    format!("{coordinate:.1}")
}

/// Returns as much of a text as fits into a width.
pub(super) fn fitting(text: &str, width: f64) -> String {
    /// The width of a letter, rather more than less.
    const LETTER: f64 = 7.0;
    let letters = (width / LETTER) as usize;
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    match letters {
        0..=3 => String::new(),
        letters => text.chars().take(letters - 1).chain(['…']).collect(),
    }
}
