//! The stable stage: the part of a run in which as many requests were in flight as may be. Unaware of what is computed of it.
//!
//! Two rules, as read in the published release 3.1.20260630 and in the repository of August 2026.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the stage is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StableRule {
    /// The published release 3.1.20260630: requests that are collected while nearly as many as may be are in flight.
    #[default]
    Release,
    /// The repository of August 2026: requests sent between the second moment of full concurrency and the last one.
    Head,
}

/// A stable stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Stable {
    /// Begin and end, seconds on the requests' clock.
    pub window: (f64, f64),
    /// The requests, by their place in the list.
    pub requests: Vec<usize>,
}

/// The release takes so much of the maximum for full.
const NEARLY: f64 = 0.98;
/// A start so soon after an end keeps the concurrency up, seconds.
const SOON: f64 = 0.001;

#[derive(Clone, Copy)]
struct Moment {
    at: f64,
    start: bool,
    request: usize,
}

/// The stage of successful requests with these begins and ends, of which `max` may be in flight; `None` if there is none.
pub fn stable(requests: &[(f64, f64)], max: u64, rule: StableRule) -> Option<Stable> {
    let mut moments: Vec<Moment> = Vec::with_capacity(2 * requests.len());
    for (request, (start, end)) in requests.iter().enumerate() {
        moments.push(Moment { at: *start, start: true, request });
        moments.push(Moment { at: *end, start: false, request });
    }
    moments.sort_by(|a, b| a.at.total_cmp(&b.at));
    match rule {
        StableRule::Release => release(&moments, requests.len(), max),
        StableRule::Head => head(&moments, requests, max),
    }
}

fn release(moments: &[Moment], count: usize, max: u64) -> Option<Stable> {
    let nearly = (NEARLY * max as f64) as u64;
    let (mut flying, mut started) = (0u64, 0);
    let mut collected = Vec::new();
    let mut begin = None;
    for (n, moment) in moments.iter().enumerate() {
        if moment.start {
            started += 1;
            flying += 1;
            if flying == max {
                collected.push(moment.request);
                if collected.len() == 2 {
                    begin = Some(moment.at);
                }
            } else if collected.len() > 2 && flying >= nearly {
                collected.push(moment.request);
            }
            continue;
        }
        flying -= 1;
        let Some(begin) = begin else { continue };
        let soon = || {
            let mut then = flying;
            moments[n + 1..].iter().take_while(|next| next.at - moment.at <= SOON).any(|next| {
                then = if next.start { then + 1 } else { then.saturating_sub(1) };
                next.start && then >= nearly
            })
        };
        if started == count || (flying < nearly && !soon()) {
            // the first one met a run that was not yet full
            collected.remove(0);
            return Some(Stable { window: (begin, moment.at), requests: collected });
        }
    }
    None
}

fn head(moments: &[Moment], requests: &[(f64, f64)], max: u64) -> Option<Stable> {
    let mut flying = 0u64;
    let (mut full_starts, mut begin, mut end) = (0, None, None);
    for moment in moments {
        flying = if moment.start { flying + 1 } else { flying - 1 };
        if flying == max {
            end = Some(moment.at);
            full_starts += u32::from(moment.start);
            if moment.start && full_starts == 2 {
                begin = Some(moment.at);
            }
        }
    }
    let (begin, end) = (begin?, end?);
    let inside = |(_, (start, _)): &(usize, &(f64, f64))| (begin..=end).contains(start);
    let requests = requests.iter().enumerate().filter(inside).map(|(n, _)| n).collect();
    Some(Stable { window: (begin, end), requests })
}
