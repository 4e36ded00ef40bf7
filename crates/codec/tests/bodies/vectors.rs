//! Objects as they go over the wire and as they are recorded, written by `interop/protobuf_table`.

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Vector {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) shape: String,
    /// In hexadecimal.
    wire: String,
    pub(crate) json: String,
}

impl Vector {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
        let pairs = self.wire.as_bytes().as_chunks::<2>().0;
        pairs
            .iter()
            .map(|[high, low]| digit(*high) << 4 | digit(*low))
            .collect()
    }
}

pub(crate) fn read() -> Vec<Vector> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/protobuf/vectors.jsonl.zst"
    );
    let lines = zstd::decode_all(std::fs::read(path).unwrap().as_slice()).unwrap();
    lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}
