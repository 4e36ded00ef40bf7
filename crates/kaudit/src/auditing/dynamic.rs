//! The delegates of AuditSink objects.

use std::sync::Arc;

use kaudit_backend::dynamic::{AuditSink, Surroundings};
use kaudit_sink::{Counters, Sink};

pub(super) fn start(_object: &AuditSink, _counters: &Arc<Counters>) -> Result<Arc<dyn Sink>, String> {
    Err("not yet".to_owned())
}

/// A pod is told where its cluster is.
pub(super) fn surroundings() -> Surroundings {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Surroundings::Cluster
    } else {
        Surroundings::Outside
    }
}
