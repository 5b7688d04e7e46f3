//! The first run, the second, and the one after an edit.

use serde_json::json;

use crate::support::Workspace;

#[test]
fn everything_runs_once_then_nothing_then_what_changed() {
    let w = Workspace::with(json!({"steps": {
        "a": {"run": "cat s > a", "inputs": {"s": "s"}, "outputs": {"a": "a"}},
        "b": {"run": ["cat", "${steps.a.a}"], "stdout": "b", "outputs": {"b": "b"}},
        "other": {"run": "echo x > other", "outputs": {"o": "other"}},
    }}));
    w.write("s", "1");
    w.run(&[]).ok().ran(["a", "b", "other"]);
    assert_eq!(w.read("b"), "1");
    w.run(&[]).ok().all_fresh();
    w.write("s", "2");
    w.run(&[]).ok().ran(["a", "b"]);
    assert_eq!(w.read("b"), "2");
}
