//! What the tools of the field mean by TTFT, TPOT, ITL and latency: one rule set each, of one request. Unaware of statistics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::row::{Event, Kind, Row};
use crate::stage::table::percentile;

/// A rule set. Numbers of different ones are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rules {
    /// `ttft`: first text (reasoning or answer). `tpot`: (last text - first text) / (output tokens - 1), requests with more than one token
    /// only. `itl`: gaps between events with text. `e2el`: to the last text. Duration: first send to the end of the last request, failed
    /// ones too.
    #[default]
    Flow,
    /// AISBench 3.1: `ttft`: first chunk of any kind. `e2el`: to the last chunk, the one with usage too. `tpot`: (e2el - ttft) / (output tokens -
    /// 1), and 0 counts where there is no second token. `itl`: gaps between all chunks. Duration: of the successes.
    Aisbench,
    /// `vllm bench serve` (2026): `ttft`: first chunk with choices, text or not. `e2el`: to the last of them. `tpot`: (e2el - ttft) / (output
    /// tokens - 1), requests with more than one token only. `itl`: gaps between them. Duration: of the whole run.
    Vllm,
    /// evalscope up to 1.9: `ttft` as vllm. `e2el`: to the last chunk, the one with usage too. `tpot`: (e2el - ttft) / (output tokens - 1), and 0
    /// counts. `itl`: gaps between chunks with choices. Duration: of all requests.
    EvalscopeOld,
    /// evalscope from 1.10 or 1.11: `ttft`: first text. `e2el`: to the last chunk. `tpot`: (e2el - ttft) / (output tokens - 1), requests with more than
    /// one token only. `itl`: gaps between events with text. Duration: of the successes.
    EvalscopeNew,
}

/// What a rule set makes of a request, seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// When it was sent, on the row's clock.
    pub start: f64,
    /// When it ended, on the row's clock: `start` + `e2el`.
    pub end: f64,
    /// Time to first token.
    pub ttft: f64,
    /// Time per output token after the first; `None` where it stays out of the statistics.
    pub tpot: Option<f64>,
    /// Gaps between events.
    pub itl: Vec<f64>,
    /// Each gap divided by the tokens of the event that ends it, where they were counted (rule set flow).
    pub itl_tok: Vec<f64>,
    /// End-to-end latency.
    pub e2el: f64,
    /// To the response's head (rule set flow).
    pub ttfb: Option<f64>,
    /// To the first event of any kind but the head (rule set flow).
    pub ttfe: Option<f64>,
    /// To the first text that is no reasoning (rule set flow).
    pub ttfo: Option<f64>,
    /// To the end of the stream (rule set flow).
    pub total: Option<f64>,
    /// Tokens of the prompt, if known.
    pub input: Option<u64>,
    /// Tokens of the answer, if known.
    pub output: Option<u64>,
}

impl Rules {
    /// As in parameters and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Aisbench => "aisbench",
            Self::Vllm => "vllm",
            Self::EvalscopeOld => "evalscope-old",
            Self::EvalscopeNew => "evalscope-new",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Flow, Self::Aisbench, Self::Vllm, Self::EvalscopeOld, Self::EvalscopeNew];
        all.into_iter().find(|rules| rules.name() == name)
    }

    /// How it takes percentiles.
    pub fn percentile_rule(self) -> percentile::Rule {
        match self {
            Self::Flow | Self::Aisbench | Self::Vllm => percentile::Rule::Linear,
            Self::EvalscopeOld => percentile::Rule::FloorIndex,
            Self::EvalscopeNew => percentile::Rule::Nearest,
        }
    }

    /// The percentiles that it shows.
    pub fn percents(self) -> &'static [f64] {
        match self {
            Self::Flow => &[50.0, 75.0, 90.0, 95.0, 99.0],
            Self::Aisbench => &[50.0, 75.0, 90.0, 99.0],
            Self::Vllm => &[50.0, 99.0],
            Self::EvalscopeOld => &[10.0, 25.0, 50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0],
            Self::EvalscopeNew => &[1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0],
        }
    }

    /// Whether the time of a run is that of all requests, or of the successful ones.
    pub fn counts_failed_time(self) -> bool {
        match self {
            Self::Flow | Self::Vllm | Self::EvalscopeOld => true,
            Self::Aisbench | Self::EvalscopeNew => false,
        }
    }

    /// Whether it has to know what each event was.
    pub fn needs_kinds(self) -> bool {
        self != Self::Aisbench
    }

    /// Whether an event is one of those that `ttft` and `itl` are about.
    fn marks(self, kind: Kind) -> bool {
        match self {
            Self::Flow | Self::EvalscopeNew => matches!(kind, Kind::Reasoning | Kind::Content),
            Self::Vllm | Self::EvalscopeOld => matches!(kind, Kind::Role | Kind::Reasoning | Kind::Content),
            Self::Aisbench => !matches!(kind, Kind::Head | Kind::Done),
        }
    }

    /// What it makes of a request; `Err` says why the request counts as failed.
    pub fn timing(self, row: &Row) -> Result<Timing, String> {
        let (true, Some(start)) = (row.success, row.send) else {
            return Err(match row.error.as_deref() {
                None => "failed",
                Some(error) if error.trim().is_empty() => "no reason given",
                Some(error) => error,
            }
            .to_owned());
        };
        let in_stream = row.events.iter().any(|event| event.2 == Kind::Error);
        if in_stream && matches!(self, Self::Flow | Self::EvalscopeNew) {
            return Err("error in the stream".to_owned());
        }
        let marked: Vec<&Event> = row.events.iter().filter(|event| self.marks(event.2)).collect();
        let (Some(first), Some(last)) = (marked.first(), marked.last()) else {
            return Err(match self {
                Self::Flow | Self::EvalscopeNew => "no event with text",
                Self::Vllm | Self::EvalscopeOld => "no event with choices",
                Self::Aisbench => "no chunk",
            }
            .to_owned());
        };
        let end = match self {
            Self::EvalscopeOld | Self::EvalscopeNew => {
                let chunk = |event: &&Event| !matches!(event.2, Kind::Head | Kind::Done);
                row.events.iter().rfind(chunk).unwrap_or(last).0
            }
            _ => last.0,
        };
        let (ttft, e2el) = (first.0 - start, end - start);
        // the tokens of the text are the same whatever a rule set measures
        let text = |event: &&Event| matches!(event.2, Kind::Reasoning | Kind::Content | Kind::Data);
        let counted = || row.events.iter().filter(text).map(|event| event.1).sum::<Option<u64>>();
        let output = row.output_tokens.or_else(counted);
        let after_first = output.filter(|tokens| *tokens > 1).map(|tokens| (tokens - 1) as f64);
        let tpot = match self {
            Self::Flow => after_first.map(|tokens| (last.0 - first.0) / tokens),
            Self::Vllm | Self::EvalscopeNew => after_first.map(|tokens| (e2el - ttft) / tokens),
            Self::Aisbench | Self::EvalscopeOld => {
                output.map(|_| after_first.map_or(0.0, |tokens| (e2el - ttft) / tokens))
            }
        };
        let pairs = || marked.iter().zip(marked.iter().skip(1));
        let mut timing = Timing {
            start,
            end,
            ttft,
            tpot,
            itl: pairs().map(|(before, after)| after.0 - before.0).collect(),
            e2el,
            input: row.input_tokens,
            output,
            ..Timing::default()
        };
        if self == Self::Flow {
            let first_of = |is: &dyn Fn(Kind) -> bool| {
                row.events.iter().find(|event| is(event.2)).map(|event| event.0 - start)
            };
            timing.ttfb = first_of(&|kind| kind == Kind::Head);
            timing.ttfe = first_of(&|kind| kind != Kind::Head);
            timing.ttfo = first_of(&|kind| kind == Kind::Content);
            timing.total = row.end.or(row.events.last().map(|event| event.0)).map(|end| end - start);
            let per_token = |(before, after): (&&Event, &&Event)| {
                after.1.filter(|tokens| *tokens > 0).map(|tokens| (after.0 - before.0) / tokens as f64)
            };
            timing.itl_tok = pairs().filter_map(per_token).collect();
        }
        Ok(timing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent at 10; head, role, two texts, finish, usage, done.
    fn row() -> Row {
        let events = [
            (10.1, Kind::Head),
            (10.2, Kind::Role),
            (10.4, Kind::Reasoning),
            (10.5, Kind::Content),
            (10.8, Kind::Content),
            (11.0, Kind::Role),
            (11.5, Kind::Usage),
            (11.6, Kind::Done),
        ];
        let tokens = |kind| matches!(kind, Kind::Reasoning | Kind::Content).then_some(2);
        serde_json::from_value::<Row>(serde_json::json!({
            "id": 1, "send": 10.0, "events": [], "input_tokens": 7, "output_tokens": 6, "success": true
        }))
        .map(|row| Row { events: events.map(|(t, kind)| Event(t, tokens(kind), kind)).to_vec(), ..row })
        .unwrap()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn each_rule_set_by_hand() {
        // ttft, e2el, tpot, number of gaps
        for (rules, ttft, e2el, tpot, gaps) in [
            (Rules::Flow, 0.4, 0.8, 0.4 / 5.0, 2),
            (Rules::Aisbench, 0.2, 1.5, 1.3 / 5.0, 5),
            (Rules::Vllm, 0.2, 1.0, 0.8 / 5.0, 4),
            (Rules::EvalscopeOld, 0.2, 1.5, 1.3 / 5.0, 4),
            (Rules::EvalscopeNew, 0.4, 1.5, 1.1 / 5.0, 2),
        ] {
            let timing = rules.timing(&row()).unwrap();
            assert!(close(timing.ttft, ttft), "{rules:?}: {timing:?}");
            assert!(close(timing.e2el, e2el) && close(timing.end, 10.0 + e2el), "{rules:?}: {timing:?}");
            assert!(close(timing.tpot.unwrap(), tpot), "{rules:?}: {timing:?}");
            assert_eq!(timing.itl.len(), gaps, "{rules:?}");
        }
        let timing = Rules::Flow.timing(&row()).unwrap();
        assert!(close(timing.ttfb.unwrap(), 0.1) && close(timing.ttfe.unwrap(), 0.2));
        assert!(close(timing.ttfo.unwrap(), 0.5) && close(timing.total.unwrap(), 1.6));
        assert!(close(timing.itl_tok[0], 0.05) && close(timing.itl_tok[1], 0.15));
    }

    #[test]
    fn one_token_is_averaged_as_0_or_left_out() {
        let one = Row { output_tokens: Some(1), ..row() };
        let tpot = |rules: Rules| rules.timing(&one).unwrap().tpot;
        assert_eq!([tpot(Rules::Aisbench), tpot(Rules::EvalscopeOld)], [Some(0.0); 2]);
        assert_eq!([tpot(Rules::Flow), tpot(Rules::Vllm), tpot(Rules::EvalscopeNew)], [None; 3]);
    }

    #[test]
    fn what_counts_as_failed() {
        let only = |kind| Row { events: vec![Event(10.5, None, kind)], ..row() };
        let fails = |rules: Rules, row: &Row| rules.timing(row).unwrap_err();
        assert_eq!(fails(Rules::Flow, &only(Kind::Role)), "no event with text");
        assert_eq!(fails(Rules::Vllm, &only(Kind::Usage)), "no event with choices");
        assert_eq!(fails(Rules::Aisbench, &only(Kind::Done)), "no chunk");
        assert!(
            Rules::Aisbench.timing(&only(Kind::Usage)).is_ok()
                && Rules::Vllm.timing(&only(Kind::Role)).is_ok()
        );
        let mut broken = row();
        broken.events.push(Event(11.7, None, Kind::Error));
        assert_eq!(fails(Rules::Flow, &broken), "error in the stream");
        assert_eq!(fails(Rules::EvalscopeNew, &broken), "error in the stream");
        assert!(Rules::Vllm.timing(&broken).is_ok());
        let refused = Row { success: false, error: Some("503".to_owned()), ..row() };
        assert_eq!(fails(Rules::Flow, &refused), "503");
        for (error, reason) in
            [(None, "failed"), (Some(""), "no reason given"), (Some(" \n"), "no reason given")]
        {
            let refused = Row { error: error.map(str::to_owned), ..refused.clone() };
            assert_eq!(fails(Rules::Aisbench, &refused), reason);
        }
        let tokens = Row { output_tokens: None, ..row() };
        assert_eq!(Rules::Flow.timing(&tokens).unwrap().output, Some(6));
        assert_eq!(
            Rules::Vllm.timing(&tokens).unwrap().output,
            Some(6),
            "chunks without text have no tokens"
        );
        let uncounted = |event: &Event| Event(event.0, None, event.2);
        let tokens = Row { events: tokens.events.iter().map(uncounted).collect(), ..tokens };
        assert_eq!(Rules::Vllm.timing(&tokens).unwrap().output, None);
    }
}
