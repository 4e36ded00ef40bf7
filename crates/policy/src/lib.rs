//! Kubernetes audit policy: what of which request is recorded.
//!
//! No I/O. [`RequestTarget`] and [`RequestInfo`] say what a request is about, exactly as
//! kube-apiserver sees it; [`Policy`] decides how it is recorded.

mod attributes;
mod client;
mod request_info;
mod rules;
mod target;

pub use attributes::{Attributes, RequestAuditConfig};
pub use client::{source_ips, user_agent};
pub use request_info::{LongRunning, RequestInfo, RequestInfoError, RequestInfoResolver};
pub use rules::{
    Condition, Explanation, Finding, FormatError, GroupResources, LintCode, MAX_POLICY_BYTES, PassedOver,
    Policy, PolicyError, PolicyRule, Position, Preset, Severity, Stated, Warnings, format, lint,
    unreadable_file,
};
pub use target::{RequestTarget, TargetError};
