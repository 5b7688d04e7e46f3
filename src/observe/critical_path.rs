//! The chain of nodes that decided how long a run took: from its end back, each time to what the node waited for last. Unaware of
//! where records lie.

use serde_json::{Value, json};

use super::record::{Record, millis};
use super::timeline::{Span, Timeline};
use super::{lines, table};

/// One node of the chain. Times in seconds since the run started.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Node id.
    pub node: String,
    /// When it began.
    pub began: f64,
    /// How long it took.
    pub seconds: f64,
    /// It never finished: the run was killed.
    pub unfinished: bool,
    /// Why it did not begin earlier.
    pub cause: Cause,
    /// Seconds between the moment from which it could have begun and its beginning: for a dependency from that one's end, else from
    /// when it was ready.
    pub waited: f64,
    /// Most that the run could be shorter if this node took no time; `None` where the chain is too long to find out for each.
    pub saves: Option<f64>,
}

/// What a node waited for last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// For nothing but the start of the run.
    Start,
    /// For a node whose result it takes, or that it comes after.
    Dependency(String),
    /// It was ready, and waited for a slot, a pool, memory or to be alone.
    Held {
        /// `slot`, `memory`, `exclusive`, `pool NAME`.
        by: String,
        /// The node whose end gave it free.
        node: String,
    },
}

/// For so many nodes of a chain, the longest, it is found out what they would save.
const WEIGHED: usize = 100;

/// The chain, in the order of time; empty if no node had anything to do.
pub fn find(timeline: &Timeline) -> Vec<Link> {
    let end = |ix: usize| timeline.end(&timeline.nodes[ix]);
    let last = (0..timeline.nodes.len()).max_by(|a, b| end(*a).total_cmp(&end(*b)));
    let mut chain = Vec::new();
    let mut at = last;
    // a slot is given back before what was made in it is committed
    let mut until = f64::INFINITY;
    while let Some(ix) = at {
        let (id, span) = (&timeline.nodes.get_index(ix).map_or("", |(id, _)| id), &timeline.nodes[ix]);
        let (cause, before) = cause(timeline, span);
        let ready = match (&cause, before) {
            (Cause::Dependency(_), Some(before)) => end(before),
            (Cause::Held { .. }, _) => span.queued,
            _ => 0.0,
        };
        chain.push((
            ix,
            Link {
                node: (*id).to_string(),
                began: span.began,
                seconds: (end(ix).min(until) - span.began).max(0.0),
                unfinished: span.ended.is_none(),
                cause,
                waited: (span.began - ready).max(0.0),
                saves: None,
            },
        ));
        at = before;
        until = span.began;
    }
    chain.reverse();
    weigh(timeline, &mut chain);
    chain.into_iter().map(|(_, link)| link).collect()
}

/// What a node waited for last, and where that is in the timeline.
fn cause(timeline: &Timeline, span: &Span) -> (Cause, Option<usize>) {
    // going back in time only: whatever a damaged record says, the walk ends
    let earlier = |id: &String| {
        let ix = timeline.nodes.get_index_of(id)?;
        (timeline.nodes[ix].began < span.began).then_some(ix)
    };
    if let Some(held) = &span.held
        && let Some(ix) = earlier(&held.node)
    {
        return (Cause::Held { by: held.by.clone(), node: held.node.clone() }, Some(ix));
    }
    match span.after.first().and_then(|id| Some((id, earlier(id)?))) {
        Some((id, ix)) => (Cause::Dependency(id.clone()), Some(ix)),
        None => (Cause::Start, None),
    }
}

/// What each node of the chain would save: the run is thought through again with that node taking no time. All others keep their own
/// times and start as long as before after the last of what they waited for, so far as the record names it: so this is a bound.
fn weigh(timeline: &Timeline, chain: &mut [(usize, Link)]) {
    let count = timeline.nodes.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| timeline.nodes[*a].began.total_cmp(&timeline.nodes[*b].began));
    let before: Vec<Vec<usize>> = timeline
        .nodes
        .values()
        .map(|span| {
            let ids = span.after.iter().chain(span.held.as_ref().map(|held| &held.node));
            let found = ids.filter_map(|id| timeline.nodes.get_index_of(id));
            found.filter(|ix| timeline.nodes[*ix].began < span.began).collect()
        })
        .collect();
    let length = |ix: usize| timeline.end(&timeline.nodes[ix]) - timeline.nodes[ix].began;
    let total = order.iter().map(|ix| timeline.end(&timeline.nodes[*ix])).fold(0.0, f64::max);
    let mut longest: Vec<usize> = (0..chain.len()).collect();
    longest.sort_by(|a, b| chain[*b].1.seconds.total_cmp(&chain[*a].1.seconds));
    let mut ends = vec![0.0; count];
    for place in longest.into_iter().take(WEIGHED) {
        let gone = chain[place].0;
        let mut all = 0.0_f64;
        for &ix in &order {
            let span = &timeline.nodes[ix];
            let was = before[ix].iter().map(|p| timeline.end(&timeline.nodes[*p])).fold(0.0, f64::max);
            let is = before[ix].iter().map(|p| ends[*p]).fold(0.0, f64::max);
            let begins = span.began - (was - is).max(0.0);
            ends[ix] = begins + if ix == gone { 0.0 } else { length(ix) };
            all = all.max(ends[ix]);
        }
        chain[place].1.saves = Some((total - all).max(0.0));
    }
}

/// The chain as text: a head, a table, and what the times mean.
pub fn text(record: &Record) -> String {
    let timeline = &record.timeline;
    let chain = find(timeline);
    let mut out =
        format!("run  {}  {} in {}\n\n", record.id, record.outcome(), lines::seconds(timeline.seconds));
    if chain.is_empty() {
        out.push_str("no node had anything to do\n");
        return out;
    }
    let rows: Vec<Vec<String>> = chain
        .iter()
        .map(|link| {
            let node =
                if link.unfinished { format!("{}  (never finished)", link.node) } else { link.node.clone() };
            vec![
                lines::seconds(link.began),
                lines::seconds(link.seconds),
                format!("{:.0}%", share(link, timeline) * 100.0),
                link.saves.map_or_else(|| "-".to_owned(), lines::seconds),
                lines::seconds(link.waited),
                cause_text(&link.cause),
                node,
            ]
        })
        .collect();
    let header = ["START", "TIME", "SHARE", "SAVES", "WAITED", "FOR", "NODE"];
    out.push_str(&table::render(&header, &[0, 1, 2, 3, 4], &rows));
    let (n, busy) = (chain.len(), chain.iter().map(|link| link.seconds).sum::<f64>());
    let nodes = if n == 1 { "node" } else { "nodes" };
    out.push_str(&format!(
        "\n{n} {nodes} in a row took {} of {}",
        lines::seconds(busy),
        lines::seconds(timeline.seconds)
    ));
    out.push_str("; SAVES: at best, if that node took no time\n");
    out
}

fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Start => "start of the run".to_owned(),
        Cause::Dependency(_) => "dependency".to_owned(),
        Cause::Held { by, .. } => by.clone(),
    }
}

fn share(link: &Link, timeline: &Timeline) -> f64 {
    if timeline.seconds > 0.0 { link.seconds / timeline.seconds } else { 0.0 }
}

/// The chain as JSON: `{"run", "outcome", "seconds", "nodes": [{"id", "start", "seconds", "share", "saves", "waited", "for", "node",
/// "finished"}]}`; `for` is `start`, `dependency`, `slot`, `memory`, `exclusive` or `pool NAME`, `node` the one it waited for.
pub fn json(record: &Record) -> Value {
    let timeline = &record.timeline;
    let nodes: Vec<Value> = find(timeline)
        .iter()
        .map(|link| {
            let (what, node) = match &link.cause {
                Cause::Start => ("start", None),
                Cause::Dependency(node) => ("dependency", Some(node)),
                Cause::Held { by, node } => (by.as_str(), Some(node)),
            };
            json!({
                "id": link.node, "start": millis(link.began), "seconds": millis(link.seconds),
                "share": millis(share(link, timeline)), "saves": link.saves.map(millis),
                "waited": millis(link.waited), "for": what, "node": node, "finished": !link.unfinished,
            })
        })
        .collect();
    json!({
        "run": record.id, "outcome": record.outcome(), "seconds": millis(timeline.seconds), "nodes": nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Held;
    use expect_test::expect;

    /// Id, when it was ready, began and ended (0: never), what it came after, what held it.
    type Row<'r> = (&'r str, f64, f64, f64, &'r [&'r str], Option<(&'r str, &'r str)>);

    fn timeline(spans: &[Row<'_>], seconds: f64) -> Timeline {
        let nodes = spans
            .iter()
            .map(|(id, queued, began, ended, after, held)| {
                let held = held.map(|(by, node)| Held { by: by.to_owned(), node: node.to_owned() });
                let after = after.iter().map(|id| (*id).to_owned()).collect();
                let ended = (*ended > 0.0).then_some(*ended);
                ((*id).to_owned(), Span { queued: *queued, began: *began, ended, after, held, outcome: None })
            })
            .collect();
        Timeline { nodes, seconds, ended: true }
    }

    fn record(timeline: Timeline) -> Record {
        Record {
            id: "r".to_owned(),
            end: timeline.ended.then(|| "ok".to_owned()),
            timeline,
            ..Record::default()
        }
    }

    #[test]
    fn from_the_end_back_to_what_each_waited_for_last() {
        // a, then b and c beside each other, then d after both; e waited for the slot of b
        let t = timeline(
            &[
                ("a", 0.0, 0.1, 2.1, &[], None),
                ("b", 2.1, 2.1, 5.1, &["a"], None),
                ("c", 2.1, 2.1, 4.1, &["a"], None),
                ("d", 5.2, 5.2, 6.2, &["b", "c"], None),
                ("e", 2.1, 5.1, 5.6, &["a"], Some(("slot", "b"))),
            ],
            6.5,
        );
        expect![[r#"
            run  r  ok in 6.50s

            START   TIME  SHARE  SAVES  WAITED  FOR               NODE
            0.10s  2.00s    31%  2.00s   0.10s  start of the run  a
            2.10s  3.00s    46%  1.00s   0.00s  dependency        b
            5.20s  1.00s    15%  0.60s   0.10s  dependency        d

            3 nodes in a row took 6.00s of 6.50s; SAVES: at best, if that node took no time
        "#]]
        .assert_eq(&text(&record(t)));
    }

    #[test]
    fn a_slot_and_a_pool_are_named_with_the_node_that_held_them() {
        let t = timeline(
            &[
                ("a", 0.0, 0.0, 2.0, &[], None),
                ("b", 0.0, 2.0, 3.0, &[], Some(("slot", "a"))),
                ("c", 0.0, 3.0, 9.0, &[], Some(("pool db", "b"))),
            ],
            9.0,
        );
        let chain = find(&t);
        assert_eq!(chain[2].cause, Cause::Held { by: "pool db".to_owned(), node: "b".to_owned() });
        assert_eq!((chain[1].waited, chain[2].waited), (2.0, 3.0));
        assert_eq!(
            chain.iter().map(|link| link.saves).collect::<Vec<_>>(),
            [Some(2.0), Some(1.0), Some(6.0)]
        );
        assert_eq!(json(&record(t))["nodes"][2]["for"], "pool db");
    }

    #[test]
    fn what_never_finished_lasts_until_nothing_more_is_known_and_a_circle_ends() {
        let mut t = timeline(&[("a", 0.0, 0.0, 1.0, &["b"], None), ("b", 1.0, 1.0, 0.0, &["a"], None)], 7.0);
        t.ended = false;
        let record = record(t);
        assert!(text(&record).contains("6.00s    86%  6.00s   0.00s  dependency        b  (never finished)"));
        let found = find(&record.timeline);
        assert_eq!(found.iter().map(|link| link.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(text(&super::Record::default()).ends_with("no node had anything to do\n"));
    }
}
