//! The only module that knows graph, key, store and exec: plan, node states, scheduler, run.
