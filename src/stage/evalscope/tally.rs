//! What the requests of a run come to: counts, GPU memory, values for percentiles. Unaware of where rows and samples are read.

use serde_json::Value;

use super::columns::Columns;
use super::database::{Depth, Row, Tokens};
use super::lenient;
use super::options::At;
use super::percentiles::METRICS;
use super::record::{Recomputed, Requests};
use crate::stage::metrics::slo::Slo;
use crate::stage::table::percentile::percentile;

/// Places in [`METRICS`].
const TTFT: usize = 0;
const TPOT: usize = 2;

/// Mean, highest and lowest of the values so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    sum: f64,
    count: u64,
    highest: f64,
    lowest: f64,
}

impl Extent {
    pub(super) fn add(&mut self, value: f64) {
        let first = self.count == 0;
        self.sum += value;
        self.count += 1;
        self.highest = if first { value } else { self.highest.max(value) };
        self.lowest = if first { value } else { self.lowest.min(value) };
    }

    /// `None` of no values.
    pub(super) fn mean_high_low(&self) -> Option<[f64; 3]> {
        (self.count > 0).then(|| [self.sum / self.count as f64, self.highest, self.lowest])
    }
}

/// Takes rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    slo: Option<Slo>,
    at: Option<At>,
    gpu: Extent,
    requests: u64,
    succeeded: u64,
    conforming: u64,
    /// Requests whose list of token times is no list of numbers.
    unreadable: u64,
    /// By metric. Of runs that say what was streamed TTFT and TPOT are in `streamed` or `whole` instead.
    values: [Vec<f64>; METRICS.len()],
    streamed: Option<Answers>,
    whole: Answers,
}

/// TTFT and TPOT of some requests.
#[derive(Debug, Default)]
struct Answers {
    ttft: Vec<f64>,
    tpot: Vec<f64>,
}

impl Tally {
    pub(super) fn new(slo: Option<Slo>, at: Option<At>) -> Self {
        Self { slo, at, ..Self::default() }
    }

    /// The limits that requests are held against.
    pub(super) fn slo(&self) -> Option<Slo> {
        self.slo
    }

    /// How much of each row it needs.
    pub(super) fn depth(&self) -> Depth {
        match (&self.at, &self.slo) {
            (Some(_), _) => Depth::Tokens,
            (None, Some(_)) => Depth::Times,
            (None, None) => Depth::Counts,
        }
    }

    pub(super) fn add(&mut self, row: &Row) {
        self.requests += 1;
        self.succeeded += u64::from(row.success);
        if let Some(gpu) = row.gpu {
            self.gpu.add(gpu);
        }
        if let Some(slo) = self.slo {
            // 0 stands for what has no time per token: one token, or no stream
            let tpot = row.tpot.filter(|tpot| *tpot > 0.0);
            self.conforming += u64::from(row.success && slo.keeps(row.ttft, tpot, row.latency));
        }
        if self.at.is_some() && row.success {
            self.sample(row);
        }
    }

    fn sample(&mut self, row: &Row) {
        let per_second = |tokens: Option<f64>| Some(tokens? / row.latency.filter(|latency| *latency > 0.0)?);
        let both = row.input.zip(row.output).map(|(input, output)| input + output);
        match row.stream {
            // 0 stands for an answer of one token, which has no time per token
            Some(true) => {
                let streamed = self.streamed.get_or_insert_default();
                streamed.ttft.extend(row.ttft);
                streamed.tpot.extend(row.tpot.filter(|tpot| *tpot > 0.0));
            }
            Some(false) => {
                self.whole.ttft.extend(row.ttft);
                self.whole.tpot.extend(row.tpot);
            }
            None => {
                self.values[TTFT].extend(row.ttft);
                self.values[TPOT].extend(row.tpot);
            }
        }
        let single = [
            (3, row.latency),
            (4, row.input),
            (5, row.output),
            (6, per_second(row.output)),
            (7, per_second(both)),
        ];
        for (metric, value) in single {
            self.values[metric].extend(value);
        }
        let gaps = match row.tokens {
            Some(Tokens::Gaps(text)) => list(text),
            Some(Tokens::Clock(text)) => {
                list(text).map(|times| times.windows(2).map(|pair| pair[1] - pair[0]).collect())
            }
            Some(Tokens::NoText) => None,
            None => Some(Vec::new()),
        };
        match gaps {
            Some(gaps) => self.values[1].extend(gaps.into_iter().filter(|gap| gap.is_finite())),
            None => self.unreadable += 1,
        }
    }

    /// How many successful requests gave no token times because theirs could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// GPU memory: mean, highest, lowest; `None` if no row has it.
    pub(super) fn gpu(&self) -> Option<[f64; 3]> {
        self.gpu.mean_high_low()
    }

    pub(super) fn counts(&self) -> Requests {
        Requests {
            requests: self.requests,
            succeeded: self.succeeded,
            conforming: self.slo.map(|_| self.conforming),
        }
    }

    /// The percentiles that were asked for; a metric without values is NaN.
    pub(super) fn recomputed(mut self) -> Option<Recomputed> {
        let at = self.at?;
        // as evalscope does: those that were not streamed stand for the run only if none was
        let Answers { ttft, tpot } = self.streamed.unwrap_or(self.whole);
        self.values[TTFT].extend(ttft);
        self.values[TPOT].extend(tpot);
        for values in &mut self.values {
            values.sort_unstable_by(f64::total_cmp);
        }
        let mut columns = Columns::default();
        for percent in &at.at {
            for (metric, values) in METRICS.iter().zip(&self.values) {
                columns.insert(&format!("{percent}p_{metric}"), percentile(values, *percent, at.rule));
            }
        }
        Some(Recomputed { rule: at.rule, requests: self.succeeded, columns })
    }
}

/// The numbers of a list; `None` if it is none. Bare NaN and null were not measured: they are NaN, and no list is an empty one.
fn list(text: &[u8]) -> Option<Vec<f64>> {
    match lenient::parse(text).ok()? {
        Value::Array(items) => items.iter().map(|item| Some(lenient::Number::of(item)?.as_f64())).collect(),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::Cell;
    use super::*;
    use crate::stage::table::percentile::Rule;
    use proptest::prelude::*;

    fn at(rule: Rule) -> At {
        At { rule, at: vec![0.0, 50.0, 99.9] }
    }

    #[test]
    fn times_of_tokens_are_gaps_or_readings_of_a_clock() {
        for tokens in [Tokens::Gaps(b"[0.5, 2.0]"), Tokens::Clock(b"[7.0, 7.5, 9.5]")] {
            let mut tally = Tally::new(None, Some(at(Rule::Nearest)));
            assert_eq!(tally.depth(), Depth::Tokens);
            let row = Row { success: true, tokens: Some(tokens), ..Row::default() };
            tally.add(&row);
            tally.add(&Row { success: false, latency: Some(9.0), ..row });
            let found = tally.recomputed().unwrap();
            assert_eq!((found.requests, found.rule), (1, Rule::Nearest));
            assert_eq!(found.columns["0p_itl_"], Cell::Float(0.5));
            assert_eq!(found.columns["99.9p_itl_"], Cell::Float(2.0));
            assert_eq!(found.columns.get("50p_latency_"), Some(&Cell::Null));
        }
    }

    #[test]
    fn answers_of_one_token_have_no_tpot_and_whole_ones_no_ttft_beside_streamed_ones() {
        let of = |rows: &[(Option<bool>, f64, f64)]| {
            let mut tally = Tally::new(None, Some(at(Rule::Nearest)));
            for (stream, ttft, tpot) in rows {
                let (ttft, tpot) = (Some(*ttft), Some(*tpot));
                tally.add(&Row { success: true, stream: *stream, ttft, tpot, ..Row::default() });
            }
            let found = tally.recomputed().unwrap();
            ["0p_ttft_", "99.9p_ttft_", "0p_tpot_", "99.9p_tpot_"].map(|column| found.columns[column].clone())
        };
        let floats = |values: [f64; 4]| values.map(Cell::Float);
        let (streamed, whole) = (Some(true), Some(false));
        let rows = [(streamed, 1.0, 0.5), (streamed, 2.0, 0.0), (whole, 9.0, 0.0), (streamed, 1.5, 0.25)];
        assert_eq!(of(&rows), floats([1.0, 2.0, 0.25, 0.5]));
        assert_eq!(of(&[(whole, 9.0, 0.0), (whole, 8.0, 0.0)]), floats([8.0, 9.0, 0.0, 0.0]));
        let none = [Cell::Float(1.0), Cell::Float(1.0), Cell::Null, Cell::Null];
        assert_eq!(of(&[(streamed, 1.0, 0.0), (whole, 9.0, 0.0)]), none);
        // versions that do not say count every 0
        assert_eq!(of(&[(None, 1.0, 0.0), (None, 2.0, 0.5)]), floats([1.0, 2.0, 0.0, 0.5]));
    }

    #[test]
    fn a_list_that_cannot_be_read_is_counted() {
        let mut tally = Tally::new(None, Some(at(Rule::Nearest)));
        let lists = [
            Tokens::Gaps(b"[0.5, NaN, null]"),
            Tokens::Gaps(b"[]"),
            Tokens::Clock(b"null"),
            Tokens::Gaps(b"[9.0, "),
            Tokens::Gaps(b""),
            Tokens::Clock(b"[1.0, \"late\", 9.0]"),
            Tokens::Gaps(b"{}"),
            Tokens::NoText,
        ];
        for tokens in lists.map(Some).into_iter().chain([None]) {
            tally.add(&Row { success: true, tokens, ..Row::default() });
            tally.add(&Row { success: false, tokens, ..Row::default() });
        }
        assert_eq!(tally.unreadable(), 5);
        assert_eq!(tally.recomputed().unwrap().columns["99.9p_itl_"], Cell::Float(0.5));
    }

    proptest! {
        /// Counts and GPU memory against counting each by itself.
        #[test]
        fn counts_and_memory(rows in prop::collection::vec(
            (any::<bool>(), prop::option::of(0.0..90.0f64), prop::option::of(0.0..2.0f64), prop::option::of(0.0..2.0f64)), 0..40
        ), ttft in prop::option::of(0.1..2.0f64), e2el in 0.1..2.0f64) {
            let slo = Slo { ttft, tpot: None, e2el: Some(e2el) };
            let mut tally = Tally::new(Some(slo), None);
            for (success, gpu, ttft, latency) in &rows {
                tally.add(&Row { success: *success, gpu: *gpu, ttft: *ttft, latency: *latency, ..Row::default() });
            }
            let good: Vec<_> = rows.iter().filter(|row| row.0).collect();
            let keeps = good.iter().filter(|row| {
                ttft.is_none_or(|limit| row.2.is_some_and(|taken| taken <= limit)) && row.3.is_some_and(|taken| taken <= e2el)
            });
            let counts = tally.counts();
            prop_assert_eq!((counts.requests, counts.succeeded), (rows.len() as u64, good.len() as u64));
            prop_assert_eq!(counts.conforming, Some(keeps.count() as u64));
            let mut gpu: Vec<f64> = rows.iter().filter_map(|row| row.1).collect();
            gpu.sort_by(f64::total_cmp);
            match tally.gpu() {
                None => prop_assert!(gpu.is_empty()),
                Some([mean, high, low]) => {
                    prop_assert_eq!((high, low), (gpu[gpu.len() - 1], gpu[0]));
                    prop_assert!((mean * gpu.len() as f64 - gpu.iter().sum::<f64>()).abs() < 1e-6);
                }
            }
        }
    }
}
