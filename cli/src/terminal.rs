//! The terminal: how wide it is, and whether it shows colours.

use std::env;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Table as Grid, presets};

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminal {
    /// In columns. None where the output is no terminal, so that no line is broken.
    pub(crate) width: Option<u16>,
    pub(crate) colors: bool,
}

impl Terminal {
    /// Colours follow `NO_COLOR` (<https://no-color.org>) and `TERM=dumb`.
    pub(crate) fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");

        Self {
            width: Grid::new().width().filter(|_| is_terminal),
            colors: is_terminal && !plain,
        }
    }

    /// An empty table that fits.
    pub(crate) fn grid<const N: usize>(self, header: [&str; N]) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(presets::UTF8_HORIZONTAL_ONLY)
            .force_no_tty()
            .set_header(header);
        if self.colors {
            grid.enforce_styling();
        }
        if let Some(width) = self.width {
            grid.set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        grid
    }
}

/// A table's text. The last column has the width that the others leave, and lines are broken only
/// there.
pub(crate) fn text(mut grid: Grid) -> String {
    let last = grid.column_count().saturating_sub(1);
    for column in grid.column_iter_mut().take(last) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    grid.trim_fmt()
}

/// Prints a table and an empty line, unless the table has no rows.
pub(crate) fn print(grid: Grid, out: &mut impl Write) -> io::Result<()> {
    if grid.row_count() == 0 {
        return Ok(());
    }
    writeln!(out, "{}\n", text(grid))
}
