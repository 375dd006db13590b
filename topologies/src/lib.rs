//! finflow-topologies.
