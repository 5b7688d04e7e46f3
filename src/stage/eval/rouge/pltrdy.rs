//! ROUGE as pltrdy's `rouge` 1.0.1 has it.

use std::collections::{HashMap, HashSet};

use super::{Score, Unscored, lcs};

/// The scores there are, in the order they are told.
pub(in super::super) const TYPES: [&str; 3] = ["rouge-1", "rouge-2", "rouge-l"];

/// Words as numbers: equal numbers are equal words.
#[derive(Default)]
struct Words(HashMap<String, u32>);

impl Words {
    /// Sentences end at `.`; blanks of any kind separate words. Nothing is lower-cased. A sentence of blanks only is one empty word.
    fn sentences(&mut self, text: &str) -> Vec<Vec<u32>> {
        let sentences = text.split('.').filter(|sentence| !sentence.is_empty());
        sentences.map(|sentence| self.words(sentence)).collect()
    }

    fn words(&mut self, sentence: &str) -> Vec<u32> {
        let mut words: Vec<&str> = sentence.split(is_blank).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            words.push("");
        }
        let number = |word: &str| {
            let next = self.0.len() as u32;
            *self.0.entry(word.to_owned()).or_insert(next)
        };
        words.into_iter().map(number).collect()
    }
}

/// White space as Python's `str.split` has it: Unicode's, and four control characters.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `[precision, recall, F]` of each type that is asked for, in the order of `types`. `exclusive`: n-grams count once, as sets.
pub(in super::super) fn score(
    target: &str,
    prediction: &str,
    exclusive: bool,
    types: &[&str],
) -> Result<Vec<Score>, Unscored> {
    let mut words = Words::default();
    let (given, wanted) = (words.sentences(prediction), words.sentences(target));
    if given.is_empty() {
        return Err(Unscored::Raised("ValueError: Hypothesis is empty."));
    }
    if wanted.is_empty() {
        return Err(Unscored::Raised("ValueError: Reference is empty."));
    }
    let one = |kind: &&str| match *kind {
        "rouge-1" => Ok(n_grams(&wanted, &given, 1, exclusive)),
        "rouge-2" => Ok(n_grams(&wanted, &given, 2, exclusive)),
        _ => union_of_longest(&wanted, &given, exclusive),
    };
    types.iter().map(one).collect()
}

fn of(hits: usize, wanted: usize, given: usize) -> Score {
    let share = |count: usize| if count == 0 { 0.0 } else { hits as f64 / count as f64 };
    let (precision, recall) = (share(given), share(wanted));
    [precision, recall, 2.0 * ((precision * recall) / (precision + recall + 1e-8))]
}

/// N-grams of all words of a text: they go across sentences.
fn n_grams(wanted: &[Vec<u32>], given: &[Vec<u32>], n: usize, exclusive: bool) -> Score {
    let counts = |sentences: &[Vec<u32>]| {
        let words: Vec<u32> = sentences.iter().flatten().copied().collect();
        let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
        for gram in words.windows(n) {
            let count = counts.entry(gram.to_vec()).or_default();
            *count = if exclusive { 1 } else { *count + 1 };
        }
        counts
    };
    let (wanted, given) = (counts(wanted), counts(given));
    let hits = given.iter().map(|(gram, count)| wanted.get(gram).map_or(0, |other| *count.min(other))).sum();
    of(hits, wanted.values().sum(), given.values().sum())
}

/// The union of longest common subsequences over all pairs of sentences.
fn union_of_longest(wanted: &[Vec<u32>], given: &[Vec<u32>], exclusive: bool) -> Result<Score, Unscored> {
    let size = |sentences: &[Vec<u32>]| {
        let words = sentences.iter().flatten();
        if exclusive { words.collect::<HashSet<_>>().len() } else { words.count() }
    };
    let mut once = HashSet::new();
    let mut all = 0;
    for sentence in wanted {
        for other in given {
            if exclusive {
                let places = lcs::places(sentence, other, false)?;
                once.extend(places.iter().map(|place| sentence[*place]));
            } else {
                all += lcs::length(sentence, other) as usize;
            }
        }
    }
    Ok(of(if exclusive { once.len() } else { all }, size(wanted), size(given)))
}
