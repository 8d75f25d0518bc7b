//! A machine made of memory: sockets, readiness, bell and clock of `src/net.rs`, driven by a seed.
