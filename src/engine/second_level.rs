//! The second level of a node's key: what lies at the paths that earlier successes discovered, and the results known for that.

use std::sync::Arc;

use super::evaluate::{Keyed, fits};
use super::facts::{FactFinder, Missing, Outputs, shown};
use super::project::Project;
use crate::graph::Node;
use crate::key::{self, Components, InputFact};
use crate::store::ResultRecord;

/// What the lists of discovered inputs say about a node.
pub(super) struct Looked {
    /// A list whose files now are those of a recorded result.
    pub(super) hit: Option<(Keyed, Arc<ResultRecord>)>,
    /// Every list, newest first: its paths as they stand in keys, and what is there of them now.
    pub(super) lists: Vec<(Vec<String>, Vec<InputFact>)>,
}

/// Looks for a result of a node with a depfile. `first`: its key without discovered inputs.
pub(super) fn look_up(
    project: &Project,
    finder: &FactFinder,
    node: &Node,
    first: &Keyed,
    outputs: &dyn Outputs,
) -> std::result::Result<Looked, Missing> {
    let mut lists = Vec::new();
    for paths in project.store.discovered(&first.key).map_err(Missing::Fault)? {
        let mut facts = Vec::with_capacity(paths.len());
        for path in paths.iter() {
            facts.extend(finder.discovered(project, node, path, outputs)?);
        }
        let whole = facts.len() == paths.len();
        let facts = in_order(facts);
        if whole {
            let second = with_discovered(first, facts.clone());
            let key = key::hash(&project.graph, node, &second);
            let record = project.store.result(&key).map_err(Missing::Fault)?;
            if let Some(record) = record.filter(|record| fits(record, node)) {
                let hit = Some((Keyed::new(project, node, second), record));
                return Ok(Looked { hit, lists });
            }
        }
        let mut names: Vec<String> = paths.iter().map(|path| shown(path)).collect();
        names.sort();
        lists.push((names, facts));
    }
    Ok(Looked { hit: None, lists })
}

impl Looked {
    /// Without a hit: the key that the node would have if it discovered what it discovered last; by `last` (the manifest of its last
    /// success here), else by the newest list.
    pub(super) fn nearest(
        self,
        project: &Project,
        node: &Node,
        first: Keyed,
        last: Option<&Components>,
    ) -> Keyed {
        let mut before: Vec<&str> =
            last.into_iter().flatten().filter_map(|(name, _)| key::discovered_path(name)).collect();
        before.sort_unstable();
        let mut lists = self.lists;
        let same = lists.iter().position(|(names, _)| names.iter().eq(&before));
        match lists.get_mut(same.unwrap_or(0)) {
            Some((_, facts)) => Keyed::new(project, node, with_discovered(&first, std::mem::take(facts))),
            None => first,
        }
    }
}

/// The facts of the second level.
pub(super) fn with_discovered(first: &Keyed, discovered: Vec<InputFact>) -> key::Facts {
    key::Facts { discovered: Some(discovered), ..first.facts.clone() }
}

/// The order of discovered inputs in a key: by path as shown there, then by content.
pub(super) fn in_order(mut facts: Vec<InputFact>) -> Vec<InputFact> {
    facts.sort_by(|a, b| a.path.cmp(&b.path).then(a.digest.0.cmp(&b.digest.0)));
    facts
}
