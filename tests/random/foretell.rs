//! What `flow plan` says, beside what the reference says. Unaware of what a run makes of it.

use serde_json::Value;

use crate::plan::Outcome::{self, Absent, Failed, Fresh, Ran, Restored, Skipped};
use crate::world::{Request, World, ensure};

impl World {
    /// What `flow plan` says is what a run would do.
    pub fn plan(&mut self, request: &Request) -> Result<(), String> {
        let workflow = self.workflow.clone();
        let expected = self.expect(&workflow, request);
        let mut args: Vec<String> =
            ["plan", "flow.json", "--json"].iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(self.set_n.map(|n| ["--set".to_owned(), format!("n={n}")]).into_iter().flatten());
        self.tell(format!("flow {}", args.join(" ")));
        let root = self.root.clone();
        let ended = self.start(&root, &args, None).wait()?;
        let said = || format!("\nstdout:\n{}\nstderr:\n{}", ended.stdout, ended.stderr);
        let json: Value =
            serde_json::from_str(&ended.stdout).map_err(|e| format!("no plan: {e}{}", said()))?;
        for report in json["nodes"].as_array().into_iter().flatten() {
            let (id, status) = (report["id"].as_str().unwrap_or_default(), report["status"].as_str());
            let node = (0..expected.graph.nodes.len()).find(|node| expected.graph.nodes[*node].id == id);
            let node = node.ok_or_else(|| format!("{id} is no node{}", said()))?;
            let outcomes = [&expected.most, &expected.least].map(|plan| plan.outcomes[node]);
            let unsettled =
                expected.graph.nodes[node].outputs.iter().any(|(_, path)| self.dirty.contains(path));
            let fits = |wanted: &[Outcome]| {
                unsettled || outcomes.iter().flatten().any(|outcome| wanted.contains(outcome))
            };
            let shared = [&expected.most, &expected.least].iter().any(|plan| plan.otherwise[node].is_some());
            let well = match status {
                // what stands here may be skipped when something it only comes after fails
                Some("fresh") => fits(&[Fresh, Skipped]),
                // a blob that is damaged or lost is found when it is wanted; of equal nodes one runs
                Some("would_restore") => fits(&[Restored, Ran, Failed, Skipped]),
                Some("would_run") => fits(&[Ran, Failed, Skipped]) || shared,
                Some("would_fail") => fits(&[Failed, Skipped]),
                // what decides is not made yet
                Some("may_run") => true,
                Some("absent") => fits(&[Absent, Skipped]),
                _ => false,
            };
            ensure!(well, "plan says that {id} is {status:?}, the reference {outcomes:?}{}", said());
        }
        Ok(())
    }
}
