//! "Did you mean ...?": the nearest known name. Unaware of where names come from.

/// The candidate nearest to `typed`, if one is near enough to be a likely misspelling.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A hint that names the nearest candidate, or lists all of them when there are few.
pub fn hint<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let all: Vec<&str> = candidates.into_iter().collect();
    if let Some(name) = nearest(typed, all.iter().copied()) {
        return Some(format!("did you mean '{name}'?"));
    }
    match all.len() {
        0 => None,
        1..=12 => Some(format!("known here: {}", all.join(", "))),
        n => Some(format!("known here: {} and {} more", all[..8].join(", "), n - 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["inputs", "outputs", "matrix"];
        assert_eq!(nearest("ouputs", keys), Some("outputs"));
        assert_eq!(nearest("zebra", keys), None);
        assert_eq!(hint("zebra", keys).unwrap(), "known here: inputs, outputs, matrix");
    }
}
