//! When each node of a run did something and what it waited for, folded from events. Unaware of where events come from.

use indexmap::IndexMap;

use crate::event::{Begin, Event, Held, Stamped};
use crate::model::Outcome;

/// When one node did what it did. Times are stamps: seconds since the run started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// When it was ready.
    pub queued: f64,
    /// When it began.
    pub began: f64,
    /// When it ended; `None` while it is at work, and forever if the run was killed.
    pub ended: Option<f64>,
    /// Nodes whose end it waited for, the last one first.
    pub after: Vec<String>,
    /// What it waited for although it was ready.
    pub held: Option<Held>,
    /// What became of it.
    pub outcome: Option<Outcome>,
}

/// The nodes of a run that did something; those that had nothing to do are not in it.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// In the order in which they began to be known.
    pub nodes: IndexMap<String, Span>,
    /// Seconds of the run, or as far as is known.
    pub seconds: f64,
    /// The run came to its end.
    pub ended: bool,
}

impl Span {
    fn new(begin: &Begin) -> Self {
        let Begin { queued, began, after, held } = begin.clone();
        Self { queued, began, after, held, ..Self::default() }
    }
}

impl Timeline {
    /// Takes one event in.
    pub fn apply(&mut self, stamped: &Stamped) {
        if !self.ended {
            self.seconds = self.seconds.max(stamped.t);
        }
        match &stamped.event {
            Event::NodeStarted { node, attempt: 1, begin, .. } => {
                let unknown = Begin { queued: stamped.t, began: stamped.t, ..Begin::default() };
                self.nodes.insert(node.clone(), Span::new(begin.as_ref().unwrap_or(&unknown)));
            }
            Event::NodeFinished(report) => {
                let begin = report.timing.as_ref().and_then(|timing| timing.begin.as_ref());
                if let Some(begin) = begin {
                    self.nodes.insert(report.id.clone(), Span::new(begin));
                }
                if let Some(span) = self.nodes.get_mut(&report.id) {
                    span.ended = Some(report.timing.as_ref().map_or(stamped.t, |timing| timing.ended));
                    span.outcome = Some(report.outcome);
                }
            }
            Event::RunFinished { .. } => self.ended = true,
            _ => {}
        }
    }

    /// When a node ended; what never did, when nothing more is known.
    pub fn end(&self, span: &Span) -> f64 {
        span.ended.unwrap_or(self.seconds)
    }
}
