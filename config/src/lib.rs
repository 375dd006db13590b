//! finflow-config.
