//! The repeats of one measurement: its numbers, and what is none. Unaware of what they are compared with.

/// 2^53: whole numbers up to it are floats without loss.
const EXACT: u128 = 1 << 53;

/// A finite number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    float: f64,
    /// The same, if it is whole and written so.
    whole: Option<i128>,
}

/// The cells of one key and column.
pub(super) struct Cells<'c> {
    /// Those that are finite numbers, with their texts.
    pub(super) numbers: Vec<(&'c str, Number)>,
    /// The others, in order: spellings of NaN and of an infinity are one text each.
    pub(super) others: Vec<&'c str>,
}

impl<'c> Cells<'c> {
    pub(super) fn of(cells: &[&'c str]) -> Self {
        let (mut numbers, mut others) = (Vec::new(), Vec::new());
        for cell in cells {
            match number(cell) {
                Some(float) if float.is_finite() => {
                    numbers.push((*cell, Number { float, whole: cell.trim().parse().ok() }));
                }
                Some(float) if float.is_nan() => others.push("nan"),
                Some(float) => others.push(if float > 0.0 { "inf" } else { "-inf" }),
                None => others.push(cell),
            }
        }
        others.sort_unstable();
        Self { numbers, others }
    }

    pub(super) fn floats(&self) -> Vec<f64> {
        self.numbers.iter().map(|(_, number)| number.float).collect()
    }

    /// The number itself as it is written, or the mean of several.
    pub(super) fn text(&self, sample: &Sample) -> String {
        match self.numbers.as_slice() {
            [(text, _)] => (*text).to_owned(),
            _ => sample.mean.to_string(),
        }
    }
}

/// The repeats of one measurement; at least one.
pub(super) struct Sample {
    pub(super) numbers: Vec<f64>,
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Sample {
    pub(super) fn of(numbers: Vec<f64>) -> Self {
        Self {
            mean: mean(&numbers),
            min: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            max: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            numbers,
        }
    }
}

/// Both sides less the smallest number of all, where some are beyond 2^53: floats would make different whole numbers equal. `None` where
/// none is, or not all are whole.
pub(super) fn near_one_another(old: &Cells, new: &Cells) -> Option<(Sample, Sample)> {
    let all = || old.numbers.iter().chain(&new.numbers).map(|(_, number)| number.whole);
    let large = |whole: Option<i128>| whole.is_some_and(|whole| whole.unsigned_abs() > EXACT);
    if !all().any(large) {
        return None;
    }
    let least = all().collect::<Option<Vec<i128>>>()?.into_iter().min()?;
    let side = |cells: &Cells| {
        let less = |(_, number): &(&str, Number)| Some(number.whole?.checked_sub(least)? as f64);
        Some(Sample::of(cells.numbers.iter().map(less).collect::<Option<_>>()?))
    };
    Some((side(old)?, side(new)?))
}

/// The mean; summed in order of size, so that the order of the rows cannot change the last digit.
pub(super) fn mean(numbers: &[f64]) -> f64 {
    if let [one] = numbers {
        return *one;
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    match (sorted.iter().sum::<f64>(), sorted.first(), sorted.last()) {
        // of numbers so large that their sum is none
        (sum, Some(least), Some(greatest)) if !sum.is_finite() => {
            sorted.iter().map(|x| x / n).sum::<f64>().clamp(*least, *greatest)
        }
        (sum, ..) => sum / n,
    }
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}
