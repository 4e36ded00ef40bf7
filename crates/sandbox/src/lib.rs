//! A small Kubernetes-style API server in memory: the embedded upstream of `kaudit dev` and of tests.

mod kinds;
mod object;
mod query;
mod selectors;
mod status;
mod store;
