//! The only module that knows graph, key, store and exec: plan, node states, scheduler, run.
//!
//! `project` opens a workflow in its workspace; `evaluate` decides what a node needs; `plan` shows that without running;
//! `run` coordinates: it evaluates nodes whose producers are done, hands jobs to threads (`pool`, `attempt`), hands what they made to the
//! committing thread (`collect`, `commit`, `publish`), and takes their results. `scratch` and `aside` are where attempts write; `retention` knows which entries of append
//! directories are current and which were removed; `adopt` records what is there as a result, `upgrade` says what runs only because
//! of another version; `recover` undoes what a killed run left; `watchlist` knows what decided a run and what of it is different now;
//! `schedule` is the pure resource model.

mod adopt;
mod alone;
mod aside;
mod attach;
mod attempt;
mod certificate;
mod certify;
mod clean;
mod collect;
mod compiled;
mod command;
mod commit;
mod confine;
mod determinism;
mod discover;
mod evaluate;
mod facts;
mod fill;
mod grown;
mod inputs;
mod known;
mod listed;
mod listing;
mod log_file;
mod machine;
mod options;
mod ours;
mod plan;
mod project;
mod publish;
mod query;
mod recover;
mod retention;
mod pool;
mod second_level;
mod run;
mod run_locks;
mod schedule;
mod scratch;
mod services;
mod session;
mod upgrade;
mod watchlist;

pub use attach::{exec, on_finish, up};
pub use certificate::{Certified, Changed, Check, check as check_certificate, path as certificate_path};
pub use certify::run_certified;
pub use clean::{CleanReport, clean};
pub use grown::grow;
pub use known::resume;
pub use machine::{Cpu, Hardware, Machine};
pub use options::{Force, Restore, RunOptions, RunSummary};
pub use plan::{PlanStatus, PlannedNode, plan};
pub use project::{OpenRequest, Project, locked};
pub use query::{Explanation, NodeListing, Why, explain, list, orphans, source_key, why};
pub use recover::recover;
pub use run::{remarks, run};
pub use session::{Interrupts, Session, new_run_id};
pub use upgrade::upgrade_note_for;
pub use watchlist::{Seen, Watchlist};
