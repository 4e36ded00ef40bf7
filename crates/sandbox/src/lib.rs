//! A small Kubernetes-style API server in memory: the embedded upstream of `kaudit dev` and of tests.
//!
//! [`Sandbox`] keeps its objects in memory, serves them as kube-apiserver would (discovery, CRUD, watch,
//! tables, patches, logs, exec) and lets just enough controllers run that a cluster seems alive. It stands
//! inside [`kaudit_tower`]'s chain, so its own requests are audited as the real server's are.
//!
//! A request runs through `server` (bytes to a call), `handlers` (what each verb does), `admission` and
//! `validation` (whether it may), and `store` (objects, revisions, watches); `response` makes bytes of
//! the answer.

mod access;
mod admission;
mod authn;
mod call;
mod controllers;
mod credentials;
mod defaults;
mod discovery;
mod escalation;
mod handlers;
mod kinds;
mod logs;
mod managed;
mod object;
mod openapi;
mod patching;
mod pod_security;
mod protobuf;
mod query;
mod rbac;
mod record;
mod response;
mod reviews;
mod roles;
mod sandbox;
mod seed;
mod selectors;
mod server;
mod state;
mod status;
mod store;
mod streams;
mod table;
mod tokens;
mod validation;
mod websocket;

pub use kaudit_tower::AuthorityError;
pub use sandbox::{Body, Builder, Sandbox, SandboxService};
