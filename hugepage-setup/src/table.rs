//! Colour and columns.

use crate::size::Size;

/// Whether to colour, which only terminals want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Columns as wide as their widest cell: the last one to the left, the others to the right.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heads: &str) -> Self {
        Self { rows: vec![heads.split(' ').map(|head| head.replace('-', " ")).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Sums up what is too long to list; the sum goes first.
    pub(crate) fn rest(
        &mut self,
        held: impl Iterator<Item = Size>,
        cells: impl Fn(usize) -> Vec<String>,
    ) {
        let held: Vec<u64> = held.map(Size::bytes).collect();
        if !held.is_empty() {
            let sum = held.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
            let mut row = vec![Size::from_bytes(sum).to_string()];
            row.extend(cells(held.len()));
            self.row(row);
        }
    }

    /// Itself, if it has a row below the heads.
    pub(crate) fn filled(self) -> Option<Self> {
        (self.rows.len() > 1).then_some(self)
    }

    pub(crate) fn print(&self, paint: Paint) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let line = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column + 1 == columns { cell.clone() } else { format!("{cell:>width$}") }
            });
            let line = line.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            text += &if index == 0 { paint.dim(line) } else { line.to_owned() };
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_line_up_and_the_last_column_runs_free() {
        let mut table = Table::new("HELD FREE-MEMORY FILE");
        table.row(["2M", "1G", "/a long one"].map(String::from).to_vec());
        table.rest([Size::from_kib(1), Size::from_kib(2)].into_iter(), |count| {
            vec![String::new(), format!("{count} more")]
        });
        let expected = "\
HELD  FREE MEMORY  FILE
  2M           1G  /a long one
  3K               2 more
";
        assert_eq!(table.print(Paint(false)), expected);
        assert!(table.print(Paint(true)).starts_with("\x1b[2mHELD"));
    }
}
