//! What the gateway's listener takes from the network.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Proxies that pass bytes on and say first whose they are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProxyProtocol {
    /// Networks of proxies whose connections begin with a header of the PROXY protocol, version 1 or 2, for example
    /// `10.0.0.0/24`. The address in it is the client's. A connection from there without one is closed, and one from
    /// elsewhere has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Vec<String>>,
}
