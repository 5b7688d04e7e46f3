//! Whether the clocks of pods can be compared, and how much their runs overlap. Unaware of requests.

use super::Pod;
use crate::stage::metrics::recorded::DRIFT;

/// A pod that begins so long after all others ended, seconds, was not measured together with them: the tasks of one run on one host follow
/// each other more closely.
const APART: f64 = 120.0;

/// Begin and end of what a pod did, seconds.
pub(super) type Span = (f64, f64);

/// What to add to the times of each pod so that all are on the clock of the first one, and lines that say what is odd about it; `Err` says why it
/// is not known.
pub(super) fn shifts(pods: &[Pod]) -> Result<(Vec<f64>, Vec<String>), String> {
    let offsets: Option<Vec<(&Pod, f64)>> = pods.iter().map(|pod| Some((pod, pod.clock_offset?))).collect();
    if let Some(offsets) = offsets {
        // the first look at each clock stands for it: that of the wall may be corrected between two, that of the time points is the same
        let mut clocks: Vec<(&Pod, f64)> = Vec::new();
        let (mut shifts, mut lines) = (Vec::new(), Vec::new());
        for (pod, offset) in offsets {
            let of_host = |other: &Pod| pod.host.is_some() && other.host == pod.host;
            let near = |(other, known): &&(&Pod, f64)| {
                of_host(other) && (offset - known).abs() <= DRIFT as f64 / 1e9
            };
            let same = clocks.iter().find(near).map(|(_, known)| *known);
            if same.is_none() {
                if let Some((other, known)) = clocks.iter().find(|(other, _)| of_host(other)) {
                    lines.push(format!(
                        "{} and {} are of one host, and their clock.json differ by {:.1} s: it was started anew, or its clock was set; their times are \
                         brought together by that",
                        other.name,
                        pod.name,
                        (offset - known).abs()
                    ));
                }
                clocks.push((pod, offset));
            }
            let first = clocks.first().map_or(offset, |(_, first)| *first);
            shifts.push(same.unwrap_or(offset) - first);
        }
        return Ok((shifts, lines));
    }
    let hosts: Vec<&Pod> = pods.iter().filter(|pod| pod.host.is_some()).collect();
    if let Some(pair) = hosts.windows(2).find(|pair| pair[0].host != pair[1].host) {
        return Err(format!("{} and {} ran on different hosts", pair[0].name, pair[1].name));
    }
    Ok((vec![0.0; pods.len()], Vec::new()))
}

/// An error if a pod lies too far from the others to have been measured with them on one clock. `spans`: of the pods, where they have one.
pub(super) fn together(pods: &[Pod], spans: &[Option<Span>]) -> Result<(), String> {
    let mut known: Vec<(&Pod, Span)> =
        pods.iter().zip(spans).filter_map(|(pod, span)| Some((pod, (*span)?))).collect();
    known.sort_by(|a, b| a.1.0.total_cmp(&b.1.0));
    let longest = known.iter().map(|(_, (begin, end))| end - begin).fold(APART, f64::max);
    let mut last: Option<(&Pod, f64)> = None;
    for (pod, (begin, end)) in known {
        if let Some((before, ended)) = last
            && begin - ended > longest
        {
            return Err(format!(
                "{} begins {:.1} s after {} ended: their clocks count from different moments, or they were not measured together",
                pod.name,
                begin - ended,
                before.name
            ));
        }
        if last.is_none_or(|(_, ended)| end > ended) {
            last = Some((pod, end));
        }
    }
    Ok(())
}

/// From the first begin to the last end.
pub(super) fn union(spans: &[Span]) -> Option<Span> {
    let begin = spans.iter().map(|span| span.0).min_by(f64::total_cmp)?;
    let end = spans.iter().map(|span| span.1).max_by(f64::total_cmp)?;
    Some((begin, end))
}

/// The part of the union in which every pod was at work: 1 if all began and ended together, 0 if some never met, or one has no span. `None` without
/// a union that takes time.
pub(super) fn overlap_ratio(spans: &[Option<Span>]) -> Option<f64> {
    let known: Vec<Span> = spans.iter().copied().flatten().collect();
    let (begin, end) = union(&known).filter(|(begin, end)| end > begin)?;
    if known.len() < spans.len() {
        return Some(0.0);
    }
    let from = known.iter().map(|span| span.0).max_by(f64::total_cmp)?;
    let to = known.iter().map(|span| span.1).min_by(f64::total_cmp)?;
    Some(((to - from) / (end - begin)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, host: Option<&str>, clock_offset: Option<f64>) -> Pod {
        Pod {
            name: name.to_owned(),
            dir: name.to_owned(),
            requests: 1,
            failed: 0,
            max_concurrency: None,
            host: host.map(str::to_owned),
            clock_offset,
            client_bound: None,
            databases: Default::default(),
            data_sets: Default::default(),
        }
    }

    #[test]
    fn clocks_are_brought_together_or_refused() {
        let known = [pod("a", Some("x"), Some(1000.0)), pod("b", Some("y"), Some(400.5))];
        assert_eq!(shifts(&known).unwrap(), (vec![0.0, -599.5], vec![]));
        let unknown = [pod("a", None, None), pod("b", Some("y"), Some(1.0))];
        assert_eq!(shifts(&unknown).unwrap().0, [0.0, 0.0]);
        let hosts = [pod("a", Some("x"), None), pod("b", Some("y"), Some(1.0))];
        assert_eq!(shifts(&hosts).unwrap_err(), "a and b ran on different hosts");
    }

    #[test]
    fn pods_of_one_host_have_one_clock_unless_it_was_set() {
        let pods = [
            pod("a", Some("x"), Some(1000.0)),
            pod("b", Some("y"), Some(400.0)),
            pod("c", Some("x"), Some(1000.5)),
            pod("d", Some("x"), Some(1060.0)),
            pod("e", Some("x"), Some(1063.0)),
            pod("f", Some("y"), Some(396.0)),
            pod("g", None, Some(1000.5)),
        ];
        let (found, lines) = shifts(&pods).unwrap();
        assert_eq!(found, [0.0, -600.0, 0.0, 60.0, 60.0, -600.0, 0.5]);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("a and d are of one host, and their clock.json differ by 60.0 s"),
            "{}",
            lines[0]
        );
    }

    #[test]
    fn pods_that_lie_apart_are_refused() {
        let pods = [pod("a", None, None), pod("b", None, None), pod("c", None, None)];
        let spans = |b: Span| [Some((0.0, 10.0)), Some(b), None];
        assert!(
            together(&pods, &spans((5.0, 20.0))).is_ok() && together(&pods, &spans((100.0, 110.0))).is_ok()
        );
        assert!(
            together(&pods, &spans((131.0, 140.0)))
                .unwrap_err()
                .starts_with("b begins 121.0 s after a ended")
        );
        // a gap shorter than the longest run
        assert!(together(&pods, &[Some((0.0, 1000.0)), Some((1500.0, 1600.0)), None]).is_ok());
    }

    #[test]
    fn the_share_of_the_time_in_which_all_work() {
        assert_eq!(overlap_ratio(&[Some((0.0, 10.0)), Some((5.0, 20.0))]), Some(0.25));
        assert_eq!(overlap_ratio(&[Some((0.0, 10.0)), Some((15.0, 20.0))]), Some(0.0));
        assert_eq!(overlap_ratio(&[Some((0.0, 10.0))]), Some(1.0));
        assert_eq!(
            overlap_ratio(&[Some((0.0, 10.0)), None]),
            Some(0.0),
            "one that did nothing was never at work"
        );
        assert_eq!(
            (overlap_ratio(&[]), overlap_ratio(&[Some((1.0, 1.0))]), overlap_ratio(&[None])),
            (None, None, None)
        );
    }
}
