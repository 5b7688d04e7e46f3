//! Replays a history and, if it fails, looks for a smaller one that fails, too. Unaware of what may be wrong.

use crate::history::{Failure, History};

/// Attempts at a smaller history.
const ATTEMPTS: usize = 80;

/// Plays the history of a seed; panics with the smallest one found that fails.
///
/// `FLOW_ACTIONS` and `FLOW_WITHOUT` say which actions are kept and which steps are left out, as an earlier failure printed them.
pub fn replay(seed: u64) {
    let mut history = History::new(seed);
    let listed = |variable: &str| -> Option<Vec<String>> {
        let text = std::env::var(variable).ok()?;
        Some(text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    };
    if let Some(kept) = listed("FLOW_ACTIONS") {
        history.actions.retain(|(number, _)| kept.contains(&number.to_string()));
    }
    history.without.extend(listed("FLOW_WITHOUT").unwrap_or_default());
    let Err(failure) = history.play() else { return };
    let (history, failure) = shrunk(history, failure);
    let numbers: Vec<String> = history.actions.iter().map(|(number, _)| number.to_string()).collect();
    let without: Vec<&str> = history.without.iter().map(String::as_str).collect();
    let dir = failure.dir.keep();
    std::fs::write(dir.join("flow.json"), &failure.workflow).unwrap();
    panic!(
        "{}\n\n{}\n\nThe workspaces are kept in {}, the workflow as flow.json beside them. Again:\n\
         FLOW_SEED={seed} FLOW_ACTIONS={} FLOW_WITHOUT={} cargo test --test random",
        failure.told.join("\n"),
        failure.message,
        dir.display(),
        numbers.join(","),
        without.join(",")
    );
}

/// Leaves out actions, many at a time and then one by one, and steps, as long as something is wrong.
fn shrunk(mut history: History, mut failure: Failure) -> (History, Failure) {
    let mut left = ATTEMPTS;
    let mut fails = |candidate: History, history: &mut History, failure: &mut Failure| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let Err(found) = candidate.play() else { return false };
        *failure = found;
        *history = candidate;
        true
    };
    let mut size = history.actions.len() / 2;
    while size > 0 {
        let mut end = history.actions.len();
        while end > 0 {
            let from = end.saturating_sub(size);
            let mut candidate = history.clone();
            candidate.actions.drain(from..end);
            fails(candidate, &mut history, &mut failure);
            end = from;
        }
        size /= 2;
    }
    for step in history.steps().into_iter().rev() {
        let mut candidate = history.clone();
        candidate.without.insert(step);
        fails(candidate, &mut history, &mut failure);
    }
    (history, failure)
}
