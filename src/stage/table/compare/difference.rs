//! Whether two values differ, by how much, and by more than noise. Unaware of tables.

use super::params::Noise;
use super::welch;

/// How an old and a new value differ.
#[derive(Debug, PartialEq)]
pub(super) struct Difference {
    /// The old value; of several repeats the mean.
    pub(super) old: String,
    /// The new value; of several repeats the mean.
    pub(super) new: String,
    /// `new - old`; only between finite numbers.
    pub(super) absolute: Option<f64>,
    /// `(new - old) / |old|`; only between finite numbers and where old is not 0.
    pub(super) relative: Option<f64>,
    /// The change counts: not numbers, or `|relative|` above the threshold and the repeats apart.
    pub(super) beyond_noise: bool,
    /// What decided between a change and noise.
    pub(super) rule: Rule,
    /// Where `new - old` lies, by Welch's interval.
    pub(super) interval: Option<(f64, f64)>,
}

/// What decided between a change and noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nothing but the threshold: too few repeats.
    Threshold,
    /// Whether the ranges of the repeats touch.
    Ranges,
    /// Whether Welch's interval holds 0.
    Welch,
}

impl Rule {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::Ranges => "ranges",
            Self::Welch => "welch",
        }
    }
}

/// How changes are told from noise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    /// The share of the old value above which a change counts.
    pub(super) threshold: f64,
    /// What repeats say about noise.
    pub(super) noise: Noise,
    /// The probability of Welch's interval.
    pub(super) confidence: f64,
}

impl Judge {
    /// Whether a change is above the threshold; one from 0 always is.
    pub(super) fn above(&self, relative: Option<f64>) -> bool {
        relative.is_none_or(|r| r.abs() > self.threshold)
    }

    /// Whether two samples are apart, and what says so.
    fn apart(&self, old: &Sample, new: &Sample) -> (bool, Rule, Option<(f64, f64)>) {
        if old.numbers.len() == 1 && new.numbers.len() == 1 {
            return (true, Rule::Threshold, None);
        }
        match self.noise {
            Noise::Ranges => (old.max < new.min || new.max < old.min, Rule::Ranges, None),
            Noise::Welch => match welch::interval(&old.numbers, &new.numbers, self.confidence) {
                Some((low, high)) => (low > 0.0 || high < 0.0, Rule::Welch, Some((low, high))),
                None => (true, Rule::Threshold, None),
            },
        }
    }
}

/// Compares the cells of one key and column; several where the measurement was repeated.
///
/// Numbers are compared as numbers (`1`, `1.0` and `1e0` are equal), everything else as text. NaN equals NaN; against anything
/// else NaN, an infinity, an empty cell and text are changes without an amount. Repeats that are not all finite numbers are
/// compared as sets of texts.
pub(super) fn between(old: &[&str], new: &[&str], judge: &Judge) -> Option<Difference> {
    if same_cells(old, new) {
        return None;
    }
    let (Some(before), Some(after)) = (Sample::of(old), Sample::of(new)) else {
        let (old, new) = (texts(old), texts(new));
        let (absolute, relative, interval) = (None, None, None);
        let (beyond_noise, rule) = (true, Rule::Threshold);
        return Some(Difference { old, new, absolute, relative, beyond_noise, rule, interval });
    };
    let absolute = after.mean - before.mean;
    if absolute == 0.0 && (old.len() > 1 || new.len() > 1) {
        return None;
    }
    let relative = (before.mean != 0.0).then(|| absolute / before.mean.abs());
    let (apart, rule, interval) = judge.apart(&before, &after);
    let beyond_noise = apart && judge.above(relative);
    Some(Difference {
        old: before.text(old),
        new: after.text(new),
        absolute: Some(absolute),
        relative,
        beyond_noise,
        rule,
        interval,
    })
}

/// True if the cells say the same, whatever the order of repeats.
fn same_cells(old: &[&str], new: &[&str]) -> bool {
    if let ([a], [b]) = (old, new) {
        return same(a, b);
    }
    let sorted = |cells: &[&str]| {
        let mut cells: Vec<String> = cells.iter().map(|c| (*c).to_owned()).collect();
        cells.sort_unstable();
        cells
    };
    sorted(old) == sorted(new)
}

fn same(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    // Whole numbers beyond 2^53 differ although their nearest floats are equal.
    if let (Ok(a), Ok(b)) = (a.trim().parse::<i128>(), b.trim().parse::<i128>()) {
        return a == b;
    }
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()),
        _ => false,
    }
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// The repeats of one measurement.
struct Sample {
    numbers: Vec<f64>,
    mean: f64,
    min: f64,
    max: f64,
}

impl Sample {
    /// None unless all cells are finite numbers.
    fn of(cells: &[&str]) -> Option<Self> {
        let numbers: Vec<f64> =
            cells.iter().map(|cell| number(cell).filter(|n| n.is_finite())).collect::<Option<_>>()?;
        Some(Self {
            mean: mean(&numbers),
            min: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            max: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            numbers,
        })
    }

    /// The cell itself, or the mean of several.
    fn text(&self, cells: &[&str]) -> String {
        match cells {
            [one] => (*one).to_owned(),
            _ => self.mean.to_string(),
        }
    }
}

/// The mean; summed in order of size, so that the order of the rows cannot change the last digit.
pub(super) fn mean(numbers: &[f64]) -> f64 {
    match numbers {
        [one] => *one,
        many => sorted(many).iter().sum::<f64>() / many.len() as f64,
    }
}

fn sorted(numbers: &[f64]) -> Vec<f64> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers
}

/// The different texts, in order, separated by `;`.
fn texts(cells: &[&str]) -> String {
    let mut cells = cells.to_vec();
    cells.sort_unstable();
    cells.dedup();
    cells.join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(old: &[&str], new: &[&str], threshold: f64) -> Option<Difference> {
        super::between(old, new, &Judge { threshold, noise: Noise::Ranges, confidence: 0.95 })
    }

    fn amounts(old: &[&str], new: &[&str], threshold: f64) -> Option<(Option<f64>, Option<f64>, bool)> {
        between(old, new, threshold).map(|d| (d.absolute, d.relative, d.beyond_noise))
    }

    #[test]
    fn equal_values_in_another_spelling_are_no_change() {
        for (a, b) in
            [("1", "1.0"), ("1e3", "1000"), ("NaN", "nan"), ("x", "x"), ("", ""), ("inf", "Infinity")]
        {
            assert_eq!(between(&[a], &[b], 0.0), None, "{a} {b}");
        }
        assert!(between(&["9007199254740993"], &["9007199254740992"], 0.0).is_some());
    }

    #[test]
    fn amounts_stand_only_where_they_mean_something() {
        assert_eq!(amounts(&["4"], &["5"], 0.0), Some((Some(1.0), Some(0.25), true)));
        assert_eq!(amounts(&["-4"], &["-5"], 0.0), Some((Some(-1.0), Some(-0.25), true)));
        assert_eq!(amounts(&["0"], &["5"], 0.5), Some((Some(5.0), None, true)));
        for (a, b) in [("NaN", "1"), ("1", "inf"), ("", "1"), ("fp4", "fp8"), ("True", "False"), ("1", "")] {
            assert_eq!(amounts(&[a], &[b], 9.0), Some((None, None, true)), "{a} {b}");
        }
    }

    #[test]
    fn a_change_has_to_be_above_the_threshold() {
        assert!(!between(&["8"], &["9"], 0.125).unwrap().beyond_noise);
        assert!(between(&["8"], &["9"], 0.12).unwrap().beyond_noise);
        assert!(between(&["8"], &["7"], 0.12).unwrap().beyond_noise);
    }

    #[test]
    fn repeats_have_to_be_apart() {
        let noisy = between(&["10", "12"], &["11", "15"], 0.0).unwrap();
        assert_eq!((noisy.old.as_str(), noisy.new.as_str(), noisy.beyond_noise), ("11", "13", false));
        assert!(between(&["10", "12"], &["13", "15"], 0.0).unwrap().beyond_noise);
        assert!(!between(&["10", "12"], &["13", "15"], 0.5).unwrap().beyond_noise);
        assert!(between(&["10", "12"], &["13"], 0.0).unwrap().beyond_noise);
        assert_eq!(between(&["10", "12"], &["12", "10"], 0.0), None);
        assert_eq!(between(&["a", "b", "a"], &["b"], 0.0).unwrap().old, "a;b");
    }
}
