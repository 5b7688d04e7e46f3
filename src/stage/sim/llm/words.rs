//! The words that generated text is made of; one word is one token. Unaware of requests.

/// ASCII only, nothing that JSON escapes.
const PLAIN: [&str; 64] = [
    " the", " of", " and", " to", " in", " is", " that", " for", " it", " as", " was", " with", " be", " by",
    " on", " not", " he", " this", " are", " or", " his", " from", " at", " which", " but", " have", " an",
    " had", " they", " you", " were", " their", " one", " all", " we", " can", " her", " has", " there",
    " been", " if", " more", " when", " will", " would", " who", " so", " no", " model", " token", " layer",
    " batch", " cache", " latency", " server", " stream", " first", " last", " time", " value", " result",
    " number", " count", " rate",
];

/// Each has characters of two, three or four bytes.
const MULTIBYTE: [&str; 16] = [
    " é",
    " naïve",
    " über",
    " ça",
    " año",
    " žluť",
    " слово",
    " λόγος",
    " 東京",
    " 你好",
    " 한국",
    " ไทย",
    " €5",
    " 🙂",
    " 🚀go",
    " x→y",
];

/// The words to draw from.
pub(super) fn list(multibyte: bool) -> &'static [&'static str] {
    if multibyte { &MULTIBYTE } else { &PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_in_json_as_they_are() {
        for word in PLAIN.iter().chain(&MULTIBYTE) {
            assert_eq!(serde_json::to_string(word).unwrap(), format!("\"{word}\""));
        }
        assert!(PLAIN.iter().all(|word| word.is_ascii()));
        assert!(MULTIBYTE.iter().all(|word| !word.is_ascii()));
    }
}
