//! Any bytes as lines of a log: what comes out is objects, torn pieces and holes, in order, and nothing of
//! the text is missing but blanks.

#![no_main]

use kaudit_collect::lines::{Piece, resync, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut at = 0;
    for piece in resync(text) {
        let range = match &piece {
            Piece::Object(range) | Piece::Torn(range, _) | Piece::Hole(range) => range.clone(),
        };
        assert!(text[at..range.start].trim_ascii().is_empty(), "left out");
        match piece {
            Piece::Object(_) => {
                assert_eq!(text[range.start], b'{');
                assert!(kaudit_event::check_json(&text[range.clone()]).is_ok());
            }
            Piece::Hole(_) => assert!(text[range.clone()].iter().all(|byte| *byte == 0)),
            _ => {}
        }
        assert!(!range.is_empty());
        at = range.end;
    }
    assert!(text[at..].trim_ascii().is_empty(), "left out at the end");

    let whole = split(text, 7);
    let mut offset = 7;
    for line in &whole.lines {
        let bytes = &text[line.start..line.end];
        assert!(bytes.first() == Some(&b'{') && bytes.last() == Some(&b'}'));
        assert!(line.end_offset >= offset && line.end_offset >= 7 + line.end as u64);
        offset = line.end_offset;
    }
    assert!(offset <= 7 + text.len() as u64);
    // Each line alone gives the same.
    let mut lines = 0;
    let mut torn = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let alone = split(line, 0);
        lines += alone.lines.len();
        torn += alone.torn.len();
    }
    assert_eq!((whole.lines.len(), whole.torn.len()), (lines, torn));
});
