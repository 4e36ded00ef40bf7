//! `gateway.accessLog`.

use kaudit_backend::Rotation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MAX_SIZE_MEGABYTES: u64 = 100;
const MAX_BACKUPS: usize = 10;

/// A line of JSON for each request that ended, at whatever level it is audited. Nothing waits for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AccessLog {
    /// The file, or `-` for standard output; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Megabytes at which the file is rotated; 0 never rotates. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_size: Option<u64>,
    /// Rotated files that are kept; 0 keeps all. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_backup: Option<usize>,
}

impl AccessLog {
    pub(crate) fn rotation(&self) -> Rotation {
        Rotation {
            max_size_megabytes: self.max_size.unwrap_or(MAX_SIZE_MEGABYTES),
            max_backups: self.max_backup.unwrap_or(MAX_BACKUPS),
            max_age_days: 0,
            compress: false,
        }
    }
}
