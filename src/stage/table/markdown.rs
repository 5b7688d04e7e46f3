//! Markdown tables: cells that cannot break them. Unaware of what the tables show.

/// `text` as one cell: pipes escaped, line ends as spaces.
pub fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' => out.push_str("\\|"),
            '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// One line of a table.
pub fn row<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|c| cell(c.as_ref())).collect();
    format!("| {} |\n", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cell_stays_one_cell() {
        assert_eq!(super::row(["a|b", "c\r\nd"]), "| a\\|b | c  d |\n");
    }
}
