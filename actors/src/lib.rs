//! finflow-actors.
