//! The Porter stemmer as NLTK has it by default (its extensions, and its irregular forms). Unaware of texts and scores.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the changes of NLTK 3's `NLTK_EXTENSIONS` mode. Input
//! is lower-case ASCII: that is all that ROUGE's tokenizer lets through.

/// Words whose stem the rules would get wrong, with that stem.
const IRREGULAR: &[(&str, &str)] = &[
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a word of `a-z0-9`.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let steps = [step1a, step1b, step1c, step2, step3, step4, step5a, step5b];
    steps.iter().fold(word.to_owned(), |word, step| step(word))
}

fn is_consonant(word: &[u8], index: usize) -> bool {
    match word[index] {
        b'a' | b'e' | b'i' | b'o' | b'u' => false,
        // a y after a consonant is a vowel
        b'y' => {
            let ys = word[..index].iter().rev().take_while(|c| **c == b'y').count();
            let first = index - ys;
            let consonant = first == 0 || !is_consonant(word, first - 1);
            consonant == (ys % 2 == 0)
        }
        _ => true,
    }
}

/// Porter's m: how often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    let word = stem.as_bytes();
    (1..word.len()).filter(|i| !is_consonant(word, i - 1) && is_consonant(word, *i)).count()
}

fn has_vowel(stem: &str) -> bool {
    (0..stem.len()).any(|i| !is_consonant(stem.as_bytes(), i))
}

fn ends_in_double_consonant(word: &str) -> bool {
    let word = word.as_bytes();
    let n = word.len();
    n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1)
}

/// Consonant, vowel, consonant other than w, x, y; in two letters a vowel and a consonant do.
fn ends_in_cvc(word: &str) -> bool {
    let word = word.as_bytes();
    let n = word.len();
    match n {
        0 | 1 => false,
        2 => !is_consonant(word, 0) && is_consonant(word, 1),
        _ => {
            is_consonant(word, n - 3)
                && !is_consonant(word, n - 2)
                && is_consonant(word, n - 1)
                && !b"wxy".contains(&word[n - 1])
        }
    }
}

/// The first suffix that the word has decides: replaced if the rest meets the condition, else nothing is changed.
fn replace(word: String, rules: &[(&str, &str)], condition: impl Fn(&str, &str) -> bool) -> String {
    let found = rules.iter().find_map(|(suffix, by)| Some((*suffix, by, word.strip_suffix(suffix)?)));
    match found {
        Some((suffix, by, stem)) if condition(suffix, stem) => format!("{stem}{by}"),
        _ => word,
    }
}

fn step1a(word: String) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return format!("{}ie", &word[..1]);
    }
    replace(word, &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], |_, _| true)
}

fn step1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return if word.len() == 4 { format!("{stem}ie") } else { format!("{stem}i") };
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word };
    }
    let stem =
        ["ed", "ing"].iter().find_map(|suffix| word.strip_suffix(suffix).filter(|stem| has_vowel(stem)));
    let Some(stem) = stem.map(str::to_owned) else { return word };
    if let Some((_, by)) =
        [("at", "ate"), ("bl", "ble"), ("iz", "ize")].iter().find(|(end, _)| stem.ends_with(end))
    {
        return format!("{}{by}", &stem[..stem.len() - 2]);
    }
    if ends_in_double_consonant(&stem) {
        return if stem.ends_with(['l', 's', 'z']) { stem } else { stem[..stem.len() - 1].to_owned() };
    }
    if measure(&stem) == 1 && ends_in_cvc(&stem) { stem + "e" } else { stem }
}

fn step1c(word: String) -> String {
    replace(word, &[("y", "i")], |_, stem| stem.len() > 1 && is_consonant(stem.as_bytes(), stem.len() - 1))
}

fn step2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        return step2(format!("{stem}al"));
    }
    let rules = [
        ("ational", "ate"),
        ("tional", "tion"),
        ("enci", "ence"),
        ("anci", "ance"),
        ("izer", "ize"),
        ("bli", "ble"),
        ("alli", "al"),
        ("entli", "ent"),
        ("eli", "e"),
        ("ousli", "ous"),
        ("ization", "ize"),
        ("ation", "ate"),
        ("ator", "ate"),
        ("alism", "al"),
        ("iveness", "ive"),
        ("fulness", "ful"),
        ("ousness", "ous"),
        ("aliti", "al"),
        ("iviti", "ive"),
        ("biliti", "ble"),
        ("fulli", "ful"),
        ("logi", "log"),
    ];
    // the l of logi counts as part of the stem
    let l = |suffix: &str| if suffix == "logi" { "l" } else { "" };
    replace(word, &rules, |suffix, stem| measure(&format!("{stem}{}", l(suffix))) > 0)
}

fn step3(word: String) -> String {
    let rules = [
        ("icate", "ic"),
        ("ative", ""),
        ("alize", "al"),
        ("iciti", "ic"),
        ("ical", "ic"),
        ("ful", ""),
        ("ness", ""),
    ];
    replace(word, &rules, |_, stem| measure(stem) > 0)
}

fn step4(word: String) -> String {
    let suffixes = [
        "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism",
        "ate", "iti", "ous", "ive", "ize",
    ];
    let rules = suffixes.map(|suffix| (suffix, ""));
    replace(word, &rules, |suffix, stem| measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't'])))
}

fn step5a(word: String) -> String {
    replace(word, &[("e", "")], |_, stem| match measure(stem) {
        0 => false,
        1 => !ends_in_cvc(stem),
        _ => true,
    })
}

fn step5b(word: String) -> String {
    let long = word.strip_suffix("ll").is_some_and(|stem| measure(&format!("{stem}l")) > 1);
    if long { word[..word.len() - 1].to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_each_step() {
        for (word, expected) in [
            ("dying", "die"),
            ("ties", "tie"),
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("died", "die"),
            ("cried", "cri"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("by", "by"),
            ("relational", "relat"),
            ("conditionally", "condit"),
            ("possibly", "possibl"),
            ("geology", "geolog"),
            ("triplicate", "triplic"),
            ("hopefulness", "hope"),
            ("adjustment", "adjust"),
            ("adoption", "adopt"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
            ("yyy", "yyy"),
            ("2024s", "2024"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
