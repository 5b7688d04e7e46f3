//! Random steps, workflows and source files. Unaware of runs.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use crate::dag::{Kind, Origin, Sort, Step, Workflow};

/// Sources that any step may take.
pub const SOURCES: [&str; 4] = ["src/a.txt", "src/b.txt", "src/c.txt", "src/big.txt"];
/// Values that the axis may have.
pub const VALUES: [&str; 4] = ["a", "b", "c", "e"];
/// The template of pages.
pub const TEMPLATE: &str = "src/page.txt";

/// One of a list.
pub fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.usize(..list.len())]
}

/// True in `percent` of 100 cases.
pub fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

/// Some lines of short words; a `q` or a `z` now and then, and sometimes no line end at the end.
pub fn text(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..6) {
        for _ in 0..rng.usize(1..5) {
            text.push(if chance(rng, 2) { 'q' } else { (b'a' + rng.u8(..8)) as char });
        }
        if chance(rng, 8) {
            text.push('z');
        }
        text.push('\n');
    }
    if chance(rng, 10) {
        text.pop();
    }
    text
}

/// Text for a source: large for one of them, a template for another.
pub fn source(rng: &mut Rng, path: &str) -> String {
    match path {
        TEMPLATE => format!("{} {{{{ vars.n }}}} {{{{ vars.salt }}}}: {{{{ a }}}}|end\n", rng.u8(..4)),
        "src/big.txt" => {
            let word = |rng: &mut Rng| (0..12).map(|_| (b'a' + rng.u8(..14)) as char).collect::<String>();
            (0..700 + rng.usize(..50)).map(|_| word(rng) + "\n").collect()
        }
        _ => text(rng),
    }
}

/// All source files of a new workspace.
pub fn sources(rng: &mut Rng, root: &Path) {
    let mut write = |path: String| {
        let place = root.join(&path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, source(rng, &path)).unwrap();
    };
    SOURCES.iter().for_each(|path| write((*path).to_owned()));
    VALUES.iter().for_each(|value| write(format!("src/m-{value}.txt")));
    for path in [TEMPLATE, "src/g1.txt", "src/g2.txt", "src/d/x.txt", "src/d/y/z.txt"] {
        write(path.to_owned());
    }
}

/// A whole workflow: in layers, a chain, or any shape.
pub fn workflow(rng: &mut Rng) -> Workflow {
    let mut workflow = Workflow {
        steps: Vec::new(),
        axis: VALUES[..rng.usize(1..4)].iter().map(|value| (*value).to_owned()).collect(),
        n: rng.u32(3..20),
    };
    for index in 0..rng.usize(0..3) {
        let wide = step(rng, &workflow, &format!("w{index}"), usize::MAX);
        workflow.steps.push(wide);
    }
    // how far back a step looks for what it takes
    let reach = *pick(rng, &[1, 3, 100]);
    for index in 0..rng.usize(3..11) {
        let next = step(rng, &workflow, &format!("s{index}"), reach);
        workflow.steps.push(next);
    }
    workflow
}

/// A step that takes what the workflow's steps make.
pub fn step(rng: &mut Rng, workflow: &Workflow, id: &str, reach: usize) -> Step {
    let wide = id.starts_with('w');
    let copied: Vec<&Step> =
        workflow.steps.iter().filter(|step| !step.trip && !step.direct && step.is_wide() == wide).collect();
    if chance(rng, 8) && !copied.is_empty() {
        // an equal node
        return Step { id: id.to_owned(), ..(*pick(rng, &copied)).clone() };
    }
    let mut made = Step {
        id: id.to_owned(),
        kind: Kind::Cat,
        from: Vec::new(),
        needs: Vec::new(),
        matrix: chance(rng, 18),
        allow_failure: chance(rng, 20),
        salt: 0,
        place: rng.u32(..3),
        direct: false,
        nap: chance(rng, 20),
        trip: chance(rng, 15),
        pool: chance(rng, 20),
        exclusive: chance(rng, 5),
    };
    let wides = [Kind::Sort, Kind::Head, Kind::Shift, Kind::Maybe, Kind::Fail];
    let kinds = [
        Kind::Cat,
        Kind::Cat,
        Kind::Sort,
        Kind::Head,
        Kind::Shift,
        Kind::Split,
        Kind::Fail,
        Kind::Fail,
        Kind::Maybe,
        Kind::Explode,
        Kind::Walk,
        Kind::Table,
        Kind::Table,
        Kind::Join { strict: false },
        Kind::Join { strict: true },
        Kind::Page,
    ];
    made.kind = *pick(rng, if wide { &wides } else { &kinds });
    made.trip &= !made.kind.is_stage();
    let tables = made_by(workflow, &made, usize::MAX, &[Sort::Table]);
    if matches!(made.kind, Kind::Join { .. }) && tables.is_empty() {
        made.kind = Kind::Table;
    }
    made.direct = !made.kind.is_stage() && chance(rng, 20);
    made.from = match made.kind {
        Kind::Cat => {
            let mut list = Vec::new();
            for _ in 0..rng.usize(1..5) {
                let next = match rng.u32(..10) {
                    0 | 1 if !made.matrix => Origin::Glob,
                    2 | 3 if !made.matrix => Origin::Wide,
                    _ => one(rng, workflow, &made, reach),
                };
                if !list.contains(&next) {
                    list.push(next);
                }
            }
            vec![list]
        }
        Kind::Walk => {
            let dirs = made_by(workflow, &made, usize::MAX, &[Sort::Dir]);
            let dir =
                if dirs.is_empty() || chance(rng, 20) { Origin::SourceDir } else { pick(rng, &dirs).clone() };
            vec![vec![dir]]
        }
        Kind::Join { .. } => {
            vec![vec![pick(rng, &tables).clone()], vec![pick(rng, &tables).clone()]]
        }
        Kind::Page => {
            vec![vec![one(rng, workflow, &made, reach)], vec![Origin::Source(TEMPLATE.to_owned())]]
        }
        _ => vec![vec![one(rng, workflow, &made, reach)]],
    };
    let single: Vec<&Step> = workflow.steps.iter().filter(|step| !step.matrix).collect();
    if !wide && chance(rng, 15) && !single.is_empty() {
        made.needs.push(pick(rng, &single).id.clone());
    }
    made
}

/// A file for a step.
fn one(rng: &mut Rng, workflow: &Workflow, of: &Step, reach: usize) -> Origin {
    // a page shows a table in another way
    let sorts: &[Sort] = if of.kind == Kind::Page { &[Sort::Text] } else { &[Sort::Text, Sort::Table] };
    let made = made_by(workflow, of, reach, sorts);
    if !of.is_wide() && !made.is_empty() && chance(rng, 75) {
        return pick(rng, &made).clone();
    }
    if of.matrix && chance(rng, 70) {
        return Origin::SourceOfAxis;
    }
    Origin::Source((*pick(rng, &SOURCES)).to_owned())
}

/// Outputs of these sorts that a step may take as one file.
fn made_by(workflow: &Workflow, of: &Step, reach: usize, sorts: &[Sort]) -> Vec<Origin> {
    let mut out = Vec::new();
    let near = workflow.steps.iter().rev().filter(|step| of.kind == Kind::Cat || !step.matrix || of.matrix);
    for step in near.take(reach) {
        for output in step.kind.outputs() {
            if sorts.contains(&output.sort) {
                out.push(Origin::Made { step: step.id.clone(), output: output.name });
            } else if output.sort == Sort::Dir && sorts.contains(&Sort::Text) && (!step.matrix || of.matrix) {
                out.push(Origin::Within { step: step.id.clone() });
            }
        }
    }
    out
}
