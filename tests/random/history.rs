//! A history: a workflow, and a list of what happens to it, all of it from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;

use crate::breaks::Break;
use crate::content::Disk;
use crate::edits::{EDITS, Edit, copy_tree};
use crate::generate::{self, chance, pick};
use crate::plan::Outcome;
use crate::world::{Request, Target, World, ensure};

/// One thing that happens. Each has its own seed: it does not depend on how much chance others took.
#[derive(Clone, Debug)]
pub struct Action {
    what: What,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Edit(Edit),
    Run,
    /// Only some targets.
    Targets,
    /// Ends at the first failure.
    Stop,
    /// `--force` or `--no-cache`.
    Anew,
    /// A run that a failpoint or a signal ends.
    Break,
    /// A source is edited while a run is on.
    Meanwhile,
    /// Two runs of the workspace at once.
    Two,
    /// A copy of the workspace runs beside it, with the same cache.
    Twin,
}

/// Points at which a run can be killed; those that every node reaches come up more often.
const POINTS: [&str; 9] = [
    "blob_written",
    "blob_written",
    "result_row",
    "result_row",
    "workspace_row",
    "workspace_row",
    "between_renames",
    "set_aside",
    "put_back",
];

/// All of it.
#[derive(Clone, Debug)]
pub struct History {
    pub seed: u64,
    /// Number in the full history, and what happens.
    pub actions: Vec<(usize, Action)>,
    /// Steps of the first workflow that are left out.
    pub without: BTreeSet<String>,
}

/// What was not as it has to be.
pub struct Failure {
    pub message: String,
    pub told: Vec<String>,
    pub workflow: String,
    /// The workspaces, as they were left.
    pub dir: TempDir,
}

impl History {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut whats = vec![What::Run];
        if chance(&mut rng, 50) {
            whats.push(What::Run);
        }
        for _ in 0..rng.usize(4..11) {
            for _ in 0..rng.usize(1..4) {
                whats.push(What::Edit(edit(&mut rng)));
            }
            let run = match rng.u32(..100) {
                0..=30 => What::Run,
                31..=42 => What::Targets,
                43..=48 => What::Stop,
                49..=52 => What::Anew,
                53..=83 => What::Break,
                84..=89 => What::Meanwhile,
                90..=95 => What::Two,
                _ => What::Twin,
            };
            if matches!(run, What::Break | What::Meanwhile) {
                // there is something to do, then
                whats.extend([What::Edit(Edit::Salt), What::Edit(Edit::Salt)]);
            }
            whats.push(run);
            if matches!(run, What::Meanwhile) {
                // the next one sees all of it
                whats.push(What::Run);
            }
            if matches!(run, What::Break) && chance(&mut rng, 30) {
                whats.push(What::Break);
            }
            if chance(&mut rng, 60) {
                whats.push(What::Run);
            }
        }
        whats.extend([What::Run, What::Run]);
        let actions = whats.into_iter().map(|what| Action { what, seed: rng.u64(..) }).enumerate().collect();
        Self { seed, actions, without: BTreeSet::new() }
    }

    /// The steps of its first workflow.
    pub fn steps(&self) -> Vec<String> {
        let mut rng = Rng::with_seed(self.seed);
        generate::workflow(&mut rng).steps.into_iter().map(|step| step.id).collect()
    }

    /// Lets all of it happen.
    pub fn play(&self) -> Result<(), Failure> {
        let dir = tempfile::Builder::new().prefix("flow-random-").tempdir().unwrap();
        let mut rng = Rng::with_seed(self.seed);
        let mut workflow = generate::workflow(&mut rng);
        self.without.iter().for_each(|id| workflow.remove(id));
        let mut world = World::new(workflow, dir.path());
        generate::sources(&mut rng, &world.root);
        world.save_workflow();
        for (number, action) in &self.actions {
            world.tell(format!("# {number}: {:?}", action.what));
            if let Err(message) = world.act(action) {
                let workflow = serde_json::to_string_pretty(&world.workflow.json()).unwrap();
                return Err(Failure { message, told: world.told, workflow, dir });
            }
        }
        Ok(())
    }
}

fn edit(rng: &mut Rng) -> Edit {
    let total: u32 = EDITS.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.u32(..total);
    for (edit, weight) in EDITS {
        match at.checked_sub(weight) {
            Some(rest) => at = rest,
            None => return edit,
        }
    }
    Edit::Rewrite
}

impl World {
    fn act(&mut self, action: &Action) -> Result<(), String> {
        let rng = &mut Rng::with_seed(action.seed);
        let request = Request { jobs: *pick(rng, &[1, 2, 4]), ..Request::default() };
        match action.what {
            What::Edit(edit) => self.edit(edit, rng),
            What::Run => {
                if chance(rng, 20) {
                    self.plan(&request)?;
                }
                self.run(&request)
            }
            What::Targets => {
                let request = self.targets(rng, request);
                self.run(&request)
            }
            What::Stop => self.run(&Request { stop_at_failure: true, ..request }),
            What::Anew => {
                let force = chance(rng, 50);
                self.run(&Request { force, no_cache: !force, ..request })
            }
            What::Break => {
                let request = if chance(rng, 20) { self.targets(rng, request) } else { request };
                let after = Duration::from_micros(rng.u64(..self.pace.as_micros() as u64 * 5 / 4));
                let how = match rng.u32(..10) {
                    0..=4 => Break::At(format!("{}:{}", pick(rng, &POINTS), rng.u8(1..4))),
                    5..=7 => Break::Killed(after),
                    _ => Break::Interrupted(after),
                };
                self.run_broken(&request, &how)
            }
            What::Meanwhile => {
                let after = Duration::from_micros(rng.u64(..self.pace.as_micros() as u64));
                let edit =
                    *pick(rng, &[Edit::Rewrite, Edit::SameSize, Edit::Append, Edit::Revert, Edit::Rename]);
                self.run_edited(&request, after, edit, rng)
            }
            What::Two => self.two(&request),
            What::Twin => self.twin(&request),
        }
    }

    /// One or two targets. Steps that fail for no reason in what they take would end in ways that depend on who is first.
    fn targets(&mut self, rng: &mut Rng, request: Request) -> Request {
        let count = rng.usize(1..3);
        let mut targets = Vec::new();
        if self.trips.is_empty() && !self.workflow.steps.is_empty() {
            for _ in 0..count {
                targets.push(Target {
                    step: pick(rng, &self.workflow.steps).id.clone(),
                    by_path: chance(rng, 30),
                    up: chance(rng, 20),
                    down: chance(rng, 20),
                });
            }
        }
        Request { targets, ..request }
    }

    /// Two runs at once: one waits for the other, and nothing runs twice.
    fn two(&mut self, request: &Request) -> Result<(), String> {
        let workflow = self.workflow.clone();
        let expected = self.expect(&workflow, request);
        let args = self.args(&expected.graph, request);
        self.tell(format!("flow {} (two at once)", args.join(" ")));
        let root = self.root.clone();
        let both = [self.start(&root, &args, None), self.start(&root, &args, None)];
        let both = both.map(|started| started.wait());
        let [one, other] = both;
        let (one, other) = (one?, other?);
        let said = || format!("\nfirst:\n{}\nsecond:\n{}", one.stderr, other.stderr);
        let outcomes = [self.outcomes(&expected, &one)?, self.outcomes(&expected, &other)?];
        let mut merged = BTreeMap::new();
        for (&node, outcome) in &outcomes[0] {
            let id = &expected.graph.nodes[node].id;
            let pair = [outcome.as_str(), outcomes[1][&node].as_str()];
            let runs = pair.iter().filter(|outcome| **outcome == "ran").count();
            let may = [&expected.most, &expected.least]
                .iter()
                .any(|plan| [plan.outcomes[node], plan.otherwise[node]].contains(&Some(Outcome::Ran)));
            ensure!(runs <= usize::from(may), "{id}: {pair:?}{}", said());
            for bad in ["failed", "skipped", "absent"] {
                ensure!((pair[0] == bad) == (pair[1] == bad), "{id}: {pair:?}{}", said());
            }
            let told = ["ran", "restored"].into_iter().find(|told| pair.contains(told));
            merged.insert(node, told.unwrap_or(pair[0]).to_owned());
        }
        self.compare_disk(&expected, &merged, &Disk::read(&root)).map_err(|e| e + &said())?;
        self.note(&expected, request, &merged);
        Ok(())
    }

    /// The same workflow in a second workspace with the same cache, at the same time: a result is made once.
    fn twin(&mut self, request: &Request) -> Result<(), String> {
        if !self.dirty.is_empty() {
            return self.run(request);
        }
        let workflow = self.workflow.clone();
        let twin = self.new_root();
        copy_tree(&self.root, &twin, true);
        std::fs::remove_dir_all(twin.join("cache")).unwrap_or_default();
        let expected = self.expect(&workflow, request);
        let of_twin = self.expect_in(&workflow, request, Disk::read(&twin), &BTreeSet::new());
        let args = self.args(&expected.graph, request);
        let cache = self.root.join("cache").display().to_string();
        let args_of_twin = [args.clone(), vec!["--cache".to_owned(), cache]].concat();
        self.tell(format!("flow {} (and in a twin {})", args.join(" "), twin.display()));
        let root = self.root.clone();
        let both = [self.start(&root, &args, None), self.start(&twin, &args_of_twin, None)];
        let [one, other] = both.map(|started| started.wait());
        let (one, other) = (one?, other?);
        let said = || format!("\nfirst:\n{}\ntwin:\n{}", one.stderr, other.stderr);
        let outcomes = [self.outcomes(&expected, &one)?, self.outcomes(&of_twin, &other)?];
        let mut runs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (expected, outcomes) in [&expected, &of_twin].into_iter().zip(&outcomes) {
            for (&node, outcome) in outcomes {
                let id = &expected.graph.nodes[node].id;
                for bad in [Outcome::Failed, Outcome::Skipped, Outcome::Absent] {
                    let wanted =
                        [&expected.most, &expected.least].map(|plan| plan.outcomes[node] == Some(bad));
                    ensure!(
                        wanted.contains(&(outcome == bad.as_str())),
                        "{id}: {outcome}, and the reference says {}{}",
                        bad.as_str(),
                        said()
                    );
                }
                // a node whose bytes were lost runs where they are wanted
                let known = expected.least.keys[node].as_deref().filter(|key| !self.cache.has(key, false));
                if let Some(key) = known.filter(|_| outcome == "ran") {
                    runs.entry(key).or_default().push(id);
                }
            }
        }
        for ids in runs.values() {
            ensure!(ids.len() == 1, "one key, and these ran: {ids:?}{}", said());
        }
        self.compare_disk(&expected, &outcomes[0], &Disk::read(&root)).map_err(|e| e + &said())?;
        let published = std::mem::take(&mut self.published);
        let compared = self.compare_disk(&of_twin, &outcomes[1], &Disk::read(&twin));
        compared.map_err(|e| format!("twin: {e}{}", said()))?;
        self.published = BTreeSet::new();
        let unsure = std::mem::take(&mut self.unsure);
        self.note(&of_twin, request, &outcomes[1]);
        (self.published, self.unsure) = (published, unsure);
        self.note(&expected, request, &outcomes[0]);
        std::fs::remove_dir_all(twin).unwrap();
        Ok(())
    }
}
