//! Columns for people.

/// The line of heads and one for each row, with columns as wide as their widest cell; each ends with LF.
pub(super) fn table_of<const N: usize>(heads: &[&str; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| {
        let of_cells = rows.iter().filter_map(|row| row.get(column));
        let widths = of_cells.map(|cell| cell.chars().count());
        widths
            .chain(heads.get(column).map(|head| head.len()))
            .max()
            .unwrap_or_default()
    };
    let line = |row: [&str; N]| {
        let padded = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        let line: Vec<String> = padded.collect();
        format!("{}\n", line.join("  ").trim_end())
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    [line(*heads)].into_iter().chain(rows).collect()
}
