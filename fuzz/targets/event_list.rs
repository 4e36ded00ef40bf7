//! Any bytes as the body of an audit webhook's post: the items and the end are the same whatever the pieces are in which
//! it arrives, and no more is held than an item and a piece.

#![no_main]

use kaudit_collect::lists::{Item, Splitter};
use kaudit_event::EventLine;
use libfuzzer_sys::fuzz_target;

const MAX_ITEM: usize = 600;

/// What comes out, and how it ends. Whether an item was scanned or is text may depend on the pieces, what it is may not.
fn split(text: &[u8], size: usize) -> (Vec<Vec<u8>>, String) {
    let mut splitter = Splitter::new(MAX_ITEM);
    let mut items = Vec::new();
    for piece in text.chunks(size.max(1)) {
        splitter.push(piece);
        loop {
            let item = match splitter.next_item() {
                Ok(None) => break,
                Ok(Some(item)) => item,
                Err(error) => return (items, format!("{error:?}")),
            };
            items.push(match item {
                Item::Scanned(line) => line_of(line),
                Item::Text(text) => EventLine::scan(text).map_or_else(|| text.to_vec(), line_of),
                Item::Oversized { rest, bytes, hash } => {
                    assert!(rest.len() <= MAX_ITEM && bytes > MAX_ITEM as u64);
                    [rest, &bytes.to_be_bytes(), hash.as_bytes()].concat()
                }
            });
        }
    }
    (items, format!("{:?}", splitter.finish()))
}

fn line_of(line: EventLine<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    line.write_line(&mut text);
    text
}

fuzz_target!(|input: &[u8]| {
    let Some((size, text)) = input.split_first() else {
        return;
    };
    let whole = split(text, text.len());
    assert_eq!(split(text, usize::from(*size)), whole);
    assert_eq!(split(text, 1), whole);
});
