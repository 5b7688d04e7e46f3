//! How one attempt runs: local processes, the guard that lets nothing outlive flow, service processes. Unaware of graphs and keys.
