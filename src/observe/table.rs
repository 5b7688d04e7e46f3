//! Aligned text tables. Unaware of what is in the cells.

/// Columns separated by two spaces, as wide as their widest cell; the last one is not padded. `right` names the columns
/// (from 0) whose cells stand at the right. No header line if `header` is empty.
pub fn render(header: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let lines: Vec<&Vec<String>> = Some(&head).filter(|h| !h.is_empty()).into_iter().chain(rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (column, cell) in line.iter().enumerate() {
            if column > 0 {
                text.push_str("  ");
            }
            let pad = " ".repeat(widths[column] - width(cell));
            if right.contains(&column) {
                text.push_str(&pad);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&pad);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Characters that are seen: colour sequences do not count.
fn width(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).map(|part| part.chars().count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let rows = vec![
            vec!["a".to_owned(), "1.50".to_owned(), "x".to_owned()],
            vec!["\u{1b}[31mlong\u{1b}[0m".to_owned(), "12.00".to_owned(), String::new()],
        ];
        assert_eq!(
            anstream::adapter::strip_str(&render(&["NODE", "S", "WHY"], &[1], &rows)).to_string(),
            "NODE      S  WHY\na      1.50  x\nlong  12.00\n"
        );
        assert_eq!(render(&[], &[], &[]), "");
    }
}
