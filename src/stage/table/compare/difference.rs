//! Whether two values differ, by how much, and by more than noise. Unaware of tables.

use super::params::Noise;
use super::sample::{self, Cells, Sample};
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
/// Numbers are compared as numbers (`1`, `1.0` and `1e0` are equal), everything else as text; NaN equals NaN. Where both sides have the same
/// cells that are no finite numbers (NaN, infinities, empty cells, texts), the numbers decide as if those were not there. Else it is a
/// change without an amount, which always counts.
pub(super) fn between(old: &[&str], new: &[&str], judge: &Judge) -> Option<Difference> {
    let (before, after) = (Cells::of(old), Cells::of(new));
    if before.others != after.others || before.numbers.is_empty() != after.numbers.is_empty() {
        let (old, new) = (texts(old), texts(new));
        let (absolute, relative, interval) = (None, None, None);
        let (beyond_noise, rule) = (true, Rule::Threshold);
        return Some(Difference { old, new, absolute, relative, beyond_noise, rule, interval });
    }
    if before.numbers.is_empty() {
        return None;
    }
    let (from, to) = (Sample::of(before.floats()), Sample::of(after.floats()));
    let near = sample::near_one_another(&before, &after);
    let (near_from, near_to) = near.as_ref().map_or((&from, &to), |(old, new)| (old, new));
    let absolute = near_to.mean - near_from.mean;
    if absolute == 0.0 {
        return None;
    }
    let relative = (from.mean != 0.0).then(|| {
        let size = from.mean.abs();
        // two finite numbers can be further apart than the greatest one
        if absolute.is_finite() { absolute / size } else { to.mean / size - from.mean / size }
    });
    let (apart, rule, interval) = judge.apart(near_from, near_to);
    let beyond_noise = apart && judge.above(relative);
    Some(Difference {
        old: before.text(&from),
        new: after.text(&to),
        absolute: Some(absolute),
        relative,
        beyond_noise,
        rule,
        interval,
    })
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
    }

    #[test]
    fn whole_numbers_are_exact_beyond_what_floats_hold() {
        let (a, b) = ("9007199254740993", "9007199254740992");
        let least = Some(1.0 / 9007199254740992.0);
        assert_eq!(amounts(&[b], &[a], 0.0), Some((Some(1.0), least, true)));
        assert_eq!(amounts(&[a], &[b], 0.0), Some((Some(-1.0), least.map(|r| -r), true)));
        assert_eq!(amounts(&[b], &[a], 1e-9), Some((Some(1.0), least, false)));
        assert_eq!(amounts(&[b, b], &[a, a], 0.0), Some((Some(1.0), least, true)));
        assert_eq!(amounts(&[b, a], &[a, b], 0.0), None);
        // beyond 64 bits, and further apart than 128
        let (large, more) =
            ("170141183460469231731687303715884105726", "170141183460469231731687303715884105727");
        assert_eq!(amounts(&[large], &[more], 0.0).unwrap().0, Some(1.0));
        assert_eq!(amounts(&[&format!("-{more}")], &[more], 0.0).unwrap().1, Some(2.0));
    }

    #[test]
    fn means_of_huge_numbers_are_no_infinity() {
        for noise in [Noise::Ranges, Noise::Welch] {
            let judge = Judge { threshold: 0.1, noise, confidence: 0.95 };
            let found = |old: &[&str], new: &[&str]| {
                super::between(old, new, &judge).map(|d| (d.relative.unwrap(), d.beyond_noise))
            };
            let (relative, beyond) =
                found(&["1e308", "1.1e308", "1e308"], &["1.5e308", "1.6e308", "1.5e308"]).unwrap();
            assert!((relative - 0.483_870_967_741_935_5).abs() < 1e-12 && beyond, "{noise:?} {relative}");
            let noisy = found(&["1e308", "1.6e308"], &["1.2e308", "1.7e308"]).unwrap();
            assert!(!noisy.1, "{noise:?}");
            assert_eq!(found(&["1e308"], &["-1e308"]), Some((-2.0, true)));
            assert_eq!(found(&["1e308", "1e308"], &["1e308", "1e308", "1e308"]), None);
        }
    }

    #[test]
    fn what_is_no_number_on_both_sides_decides_nothing() {
        for other in ["nan", "", "inf", "failed"] {
            assert_eq!(between(&["1", other], &["1.0", other], 0.0), None, "{other}");
            assert_eq!(between(&[other, "2", "1"], &["1", "2", other], 0.0), None, "{other}");
            let small = between(&["100", "101", other], &["100.1", other, "101"], 0.5).unwrap();
            assert_eq!((small.old.as_str(), small.new.as_str()), ("100.5", "100.55"));
            assert!(!small.beyond_noise && small.relative.is_some(), "{other}");
            let large = between(&["100", other], &["200", other], 0.5).unwrap();
            assert_eq!((large.old.as_str(), large.relative, large.beyond_noise), ("100", Some(1.0), true));
            // one more, and one that is another
            for new in [&["1", "1"][..], &["1", other, other], &["1", "other"], &[other, other]] {
                let gone = between(&["1", other], new, 9.0).unwrap();
                assert_eq!((gone.absolute, gone.relative, gone.beyond_noise), (None, None, true), "{new:?}");
            }
        }
        assert_eq!(between(&["NaN", "-inf", ""], &["", "nan", "-Infinity"], 0.0), None);
        assert!(between(&["1", "inf"], &["1", "-inf"], 9.0).unwrap().beyond_noise);
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
