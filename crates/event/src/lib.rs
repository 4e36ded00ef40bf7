//! Kubernetes audit events (`audit.k8s.io/v1`): types, byte-exact encoding, decoding.
//!
//! This crate does no I/O. It owns what an audit event *is*: the owned form that producers fill
//! ([`Event`]), the JSON and legacy text forms exactly as kube-apiserver writes them, and the forms
//! that readers use.

mod decode;
mod eid;
mod encode;
mod items;
mod line;
mod managed_fields;
pub mod record;
mod restrict;
mod text;
mod time;
mod types;
mod view;

pub use decode::{DecodeError, EventList, MAX_EVENT_BYTES};
pub use eid::Eid;
pub use encode::compact::push_compact as push_compact_json;
pub use encode::string::{json_string_len, push_json_string};
pub use encode::{
    Body, BodyError, EncodeError, LeftOut, check_json, go_quoted, write_event_list, write_json_item_of_line,
};
pub use items::{BadItem, BadItemReason, event_list_items, ndjson_items};
pub use line::{EventLine, log_line_of_item};
pub use managed_fields::without_managed_fields;
pub use restrict::ManagedFields;
pub use text::Text;
pub use time::MicroTime;
pub use types::{
    Annotations, AuthenticationMetadata, Event, Extra, Level, ListMeta, ObjectReference, Open, ShardInfo,
    Stage, StageSet, Status, StatusCause, StatusDetails, Unknown, UserInfo,
};
pub use view::{DecodedEvent, EventView, FieldText, ObjectView};
