//! What patches make of Kubernetes objects.
//!
//! [`patch`] has the four kinds of patch of the API: JSON patch, JSON merge patch, strategic merge patch
//! and apply. An audit event's patch body and an object's state before it give the state after it; the
//! sandbox server writes with the same code.
//!
//! Nothing here does I/O or takes the time from anywhere.

pub mod patch;
