//! Welch's interval: where the difference of two means lies. Unaware of tables.
//!
//! Sources: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
//! Biometrika 34 (1947); degrees of freedom: F. E. Satterthwaite, Biometrics Bulletin 2 (1946); the incomplete beta function:
//! NIST Digital Library of Mathematical Functions, 8.17.

/// Where `mean(new) - mean(old)` lies, with the probability `confidence` (0.95 for 95 %) if the repeats are independent and about
/// normal: `d ± t s` with `s² = s1²/n1 + s2²/n2` (variances with `n - 1`) and `t` the two-sided quantile of Student's distribution with
/// `s⁴ / ((s1²/n1)²/(n1 - 1) + (s2²/n2)²/(n2 - 1))` degrees of freedom.
///
/// Without any spread the interval is one point. `None` if a side has fewer than two repeats: one value says nothing about noise.
pub(super) fn interval(old: &[f64], new: &[f64], confidence: f64) -> Option<(f64, f64)> {
    if old.len() < 2 || new.len() < 2 {
        return None;
    }
    // a power of two changes no digit, and keeps squares from being too large or too small
    let largest = old.iter().chain(new).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let unit = match largest {
        x if x > 2_f64.powi(400) => 2_f64.powi(800),
        x if x > 0.0 && x < 2_f64.powi(-400) => 2_f64.powi(-800),
        _ => 1.0,
    };
    let scaled = |side: &[f64]| side.iter().map(|x| x / unit).collect::<Vec<f64>>();
    let ((old_mean, old_part), (new_mean, new_part)) = (spread(&scaled(old)), spread(&scaled(new)));
    let (difference, square) = (new_mean - old_mean, old_part + new_part);
    if square == 0.0 {
        return Some((difference * unit, difference * unit));
    }
    // shares of the variance, so that no square is too large or too small
    let (a, b) = (old_part / square, new_part / square);
    let freedom = 1.0 / (a * a / (old.len() - 1) as f64 + b * b / (new.len() - 1) as f64);
    let half = student_quantile(confidence, freedom) * square.sqrt();
    Some(((difference - half) * unit, (difference + half) * unit))
}

/// The mean, and the square of its standard error.
fn spread(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = super::sample::mean(numbers);
    let squares: f64 = numbers.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, squares / (n - 1.0) / n)
}

/// The `t` for which a variable with Student's distribution is within `±t` with probability `confidence`.
fn student_quantile(confidence: f64, freedom: f64) -> f64 {
    let within = |t: f64| incomplete_beta(0.5, freedom / 2.0, t * t / (freedom + t * t));
    let (mut low, mut high) = (0.0, 1.0);
    while within(high) < confidence && high < 1e12 {
        (low, high) = (high, high * 2.0);
    }
    // halved until the two are neighbours
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if within(middle) < confidence { low = middle } else { high = middle }
    }
}

/// The regularized incomplete beta function I_x(a, b), by the continued fraction of DLMF 8.17.22.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // there it converges fast; else by symmetry, 8.17.4
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    front / fraction(a, b, x)
}

/// 1 + d1/(1 + d2/(1 + ...)), by Lentz's method.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let (mut value, mut c, mut d) = (1.0_f64, 1.0_f64, 0.0_f64);
    for step in 1..10_000 {
        let m = f64::from(step / 2);
        let term = if step % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        d = 1.0 + term * d;
        c = 1.0 + term / c;
        d = 1.0 / if d.abs() < TINY { TINY } else { d };
        c = if c.abs() < TINY { TINY } else { c };
        value *= c * d;
        if (c * d - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

/// ln Γ(x) for x > 0, by Stirling's series (DLMF 5.11.1) from 10 on and the recurrence below.
fn ln_gamma(x: f64) -> f64 {
    if x < 10.0 {
        return ln_gamma(x + 1.0) - x.ln();
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse * (1.0 / 1680.0 - inverse / 1188.0))))
        / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::vectors::{INTERVALS, QUANTILES};
    use super::*;

    fn near(value: f64, expected: f64, share: f64) {
        assert!((value - expected).abs() <= share * expected.abs(), "{value} {expected}");
    }

    #[test]
    fn quantiles_are_those_of_scipy() {
        for (confidence, freedom, t) in QUANTILES {
            near(student_quantile(confidence, freedom), t, 1e-11);
        }
    }

    #[test]
    fn intervals_are_those_of_scipy() {
        for (old, new, confidence, low, high) in INTERVALS {
            let found = interval(old, new, confidence).unwrap();
            near(found.0, low, 1e-10);
            near(found.1, high, 1e-10);
        }
    }

    #[test]
    fn the_size_of_numbers_does_not_matter() {
        let (old, new) = ([1.0, 1.1, 1.05], [1.5, 1.6, 1.55, 1.4]);
        let (low, high) = interval(&old, &new, 0.95).unwrap();
        for power in [1020, 401, 399, -399, -401, -1000] {
            let size = 2_f64.powi(power);
            let (old, new) = (old.map(|x| x * size), new.map(|x| x * size));
            assert_eq!(interval(&old, &new, 0.95), Some((low * size, high * size)), "{power}");
        }
    }

    #[test]
    fn without_spread_there_is_no_width_and_one_value_says_nothing() {
        assert_eq!(interval(&[2.0, 2.0], &[3.0, 3.0, 3.0], 0.95), Some((1.0, 1.0)));
        assert_eq!(interval(&[2.0], &[3.0, 3.1], 0.95), None);
        assert_eq!(interval(&[2.0, 2.1], &[3.0], 0.95), None);
    }
}
