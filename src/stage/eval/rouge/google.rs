//! ROUGE as Google's `rouge-score` 0.1.2 has it.

use std::collections::HashMap;

use super::{Score, Unscored, lcs, porter};

/// The scores there are, in the order they are told.
pub(in super::super) const TYPES: [&str; 5] = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"];

/// Tokens as numbers: equal numbers are equal tokens.
#[derive(Default)]
struct Words {
    known: HashMap<String, u32>,
    stemmer: bool,
}

impl Words {
    /// Lower-cases (all of Unicode), splits at everything but `a-z0-9`, and stems what is longer than three.
    fn of(&mut self, text: &str) -> Vec<u32> {
        let text = text.to_lowercase();
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
        let words = words.filter(|word| !word.is_empty());
        let mut out = Vec::new();
        for word in words {
            let word = if self.stemmer && word.len() > 3 { porter::stem(word) } else { word.to_owned() };
            let next = self.known.len() as u32;
            out.push(*self.known.entry(word).or_insert(next));
        }
        out
    }
}

/// `[precision, recall, F]` of each type that is asked for, in the order of `types`.
pub(in super::super) fn score(
    target: &str,
    prediction: &str,
    stemmer: bool,
    types: &[&str],
) -> Result<Vec<Score>, Unscored> {
    let mut words = Words { stemmer, ..Words::default() };
    let (wanted, given) = (words.of(target), words.of(prediction));
    // first, as it may refuse
    let sum = match types.contains(&"rougeLsum") {
        true => by_lines(&mut words, target, prediction)?,
        false => [0.0; 3],
    };
    let one = |kind: &&str| match *kind {
        "rouge1" => n_grams(&wanted, &given, 1),
        "rouge2" => n_grams(&wanted, &given, 2),
        "rouge3" => n_grams(&wanted, &given, 3),
        "rougeL" => longest(&wanted, &given),
        _ => sum,
    };
    Ok(types.iter().map(one).collect())
}

fn of(hits: usize, wanted: usize, given: usize) -> Score {
    let precision = hits as f64 / given.max(1) as f64;
    let recall = hits as f64 / wanted.max(1) as f64;
    let f = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    [precision, recall, f]
}

/// Clipped counts of n-grams.
fn n_grams(wanted: &[u32], given: &[u32], n: usize) -> Score {
    let mut counts: HashMap<&[u32], usize> = HashMap::new();
    for gram in wanted.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    let mut hits = 0;
    for gram in given.windows(n) {
        if let Some(left) = counts.get_mut(gram).filter(|left| **left > 0) {
            *left -= 1;
            hits += 1;
        }
    }
    let count = |words: &[u32]| (words.len() + 1).saturating_sub(n);
    of(hits, count(wanted), count(given))
}

/// The longest common subsequence of the whole texts.
fn longest(wanted: &[u32], given: &[u32]) -> Score {
    of(lcs::length(wanted, given) as usize, wanted.len(), given.len())
}

/// The union of longest common subsequences, line by line; a token is hit no more often than either side has it.
fn by_lines(words: &mut Words, target: &str, prediction: &str) -> Result<Score, Unscored> {
    let mut lines = |text: &str| -> Vec<Vec<u32>> {
        text.split('\n').filter(|line| !line.is_empty()).map(|line| words.of(line)).collect()
    };
    let (wanted, given) = (lines(target), lines(prediction));
    let size = |lines: &[Vec<u32>]| lines.iter().map(Vec::len).sum::<usize>();
    if size(&wanted) == 0 || size(&given) == 0 {
        return Ok([0.0; 3]);
    }
    let counts = |lines: &[Vec<u32>]| {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        lines.iter().flatten().for_each(|word| *counts.entry(*word).or_default() += 1);
        counts
    };
    let (mut in_wanted, mut in_given) = (counts(&wanted), counts(&given));
    let mut hits = 0;
    for line in &wanted {
        let mut union = vec![false; line.len()];
        for other in &given {
            for place in lcs::places(line, other, true)? {
                union[place] = true;
            }
        }
        for (word, _) in line.iter().zip(union).filter(|(_, in_union)| *in_union) {
            if let (Some(a), Some(b)) = (in_wanted.get_mut(word), in_given.get_mut(word))
                && *a > 0
                && *b > 0
            {
                *a -= 1;
                *b -= 1;
                hits += 1;
            }
        }
    }
    Ok(of(hits, size(&wanted), size(&given)))
}
