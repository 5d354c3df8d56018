//! Tables without borders, as in the output of `ls` and `docker`.

use anstyle::Style;
use comfy_table::{CellAlignment, ContentArrangement, Table as Layout, presets};

use super::plain;

const HEADER: Style = Style::new().bold();

/// A table that is being built. Its cells are made safe to print.
pub(crate) struct Table {
    layout: Layout,
}

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Left, for text.
    Left,
    /// Right, for numbers.
    Right,
}

impl Table {
    /// Makes a table with these columns, at most this wide.
    pub(crate) fn new<const N: usize>(columns: [(&str, Align); N], width: Option<u16>) -> Self {
        let mut layout = Layout::new();
        layout.load_style(presets::NOTHING).set_header(columns.map(|(name, _)| name));
        match width {
            Some(width) => layout.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => layout.set_content_arrangement(ContentArrangement::Disabled),
        };
        for (column, (_, align)) in layout.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { layout }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.layout.add_row(cells.map(|cell| plain(&cell)));
    }

    /// Returns the table with its header, or an empty text if it has no rows.
    pub(crate) fn render(&self) -> String {
        if self.layout.row_count() == 0 {
            return String::new();
        }
        let text = self.layout.trim_fmt();
        let (header, rows) = text.split_once('\n').unwrap_or((&text, ""));
        format!("{HEADER}{header}{HEADER:#}\n{rows}\n")
    }
}
