//! A small Kubernetes-style API server in memory: the embedded upstream of `kaudit dev` and of tests.

mod access;
mod admission;
mod call;
mod controllers;
mod defaults;
mod discovery;
mod handlers;
mod kinds;
mod logs;
mod managed;
mod object;
mod openapi;
mod patching;
mod protobuf;
mod query;
mod record;
mod response;
mod reviews;
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

pub use sandbox::{Body, Builder, Sandbox, SandboxService};
