//! Whether the clocks of pods can be compared, and how much their runs overlap. Unaware of requests.

use super::Pod;

/// A pod that begins so long after all others ended, seconds, was not measured together with them: the tasks of one run on one host follow
/// each other more closely.
const APART: f64 = 120.0;

/// Begin and end of what a pod did, seconds.
pub(super) type Span = (f64, f64);

/// What to add to the times of each pod so that all are on the clock of the first one; `Err` says why that is not known.
pub(super) fn shifts(pods: &[Pod]) -> Result<Vec<f64>, String> {
    let offsets: Option<Vec<f64>> = pods.iter().map(|pod| pod.clock_offset).collect();
    if let Some(offsets) = offsets {
        let first = offsets.first().copied().unwrap_or(0.0);
        return Ok(offsets.iter().map(|offset| offset - first).collect());
    }
    let hosts: Vec<&Pod> = pods.iter().filter(|pod| pod.host.is_some()).collect();
    if let Some(pair) = hosts.windows(2).find(|pair| pair[0].host != pair[1].host) {
        return Err(format!("{} and {} ran on different hosts", pair[0].name, pair[1].name));
    }
    Ok(vec![0.0; pods.len()])
}

/// An error if a pod lies too far from the others to have been measured with them on one clock. `spans`: of the pods, where something succeeded.
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

/// The part of the union in which every pod was at work: 1 if all began and ended together, 0 if some never met.
pub(super) fn overlap_ratio(spans: &[Span]) -> Option<f64> {
    let (begin, end) = union(spans)?;
    let from = spans.iter().map(|span| span.0).max_by(f64::total_cmp)?;
    let to = spans.iter().map(|span| span.1).min_by(f64::total_cmp)?;
    (end > begin).then(|| ((to - from) / (end - begin)).max(0.0))
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
        assert_eq!(shifts(&known).unwrap(), [0.0, -599.5]);
        let unknown = [pod("a", None, None), pod("b", Some("y"), Some(1.0))];
        assert_eq!(shifts(&unknown).unwrap(), [0.0, 0.0]);
        let hosts = [pod("a", Some("x"), None), pod("b", Some("y"), Some(1.0))];
        assert_eq!(shifts(&hosts).unwrap_err(), "a and b ran on different hosts");
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
        assert_eq!(overlap_ratio(&[(0.0, 10.0), (5.0, 20.0)]), Some(0.25));
        assert_eq!(overlap_ratio(&[(0.0, 10.0), (15.0, 20.0)]), Some(0.0));
        assert_eq!(overlap_ratio(&[(0.0, 10.0)]), Some(1.0));
        assert_eq!((overlap_ratio(&[]), overlap_ratio(&[(1.0, 1.0)])), (None, None));
    }
}
