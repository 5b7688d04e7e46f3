//! Pure: expansion of a workflow to nodes, the DAG, selection, drawing. Unaware of keys, stores and running.
