//! `sim.llm` over real sockets on loopback.
