use super::*;

fn event(number: u32) -> String {
    format!(
        "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"auditID\":\"{number}\",\"user\":{{}}}}"
    )
}

/// Objects as they stand, torn pieces in angle brackets, holes as their length.
fn shown(line: &[u8]) -> Vec<String> {
    let text = |range: Range<usize>| String::from_utf8_lossy(&line[range]).into_owned();
    resync(line)
        .into_iter()
        .map(|piece| match piece {
            Piece::Object(range) => text(range),
            Piece::Torn(range, reason) => format!("<{}> {reason:?}", text(range)),
            Piece::Hole(range) => range.len().to_string(),
        })
        .collect()
}

#[test]
fn a_broken_line_is_taken_apart_where_an_event_can_begin() {
    let (one, two) = (event(1), event(2));
    let half = &one[..70];
    let table = [
        (one.clone(), vec![one.clone()]),
        (format!(" {one} \r"), vec![one.clone()]),
        (format!("{one}{two}"), vec![one.clone(), two.clone()]),
        (
            format!("{half}{two}"),
            vec![format!("<{half}> Overwritten"), two.clone()],
        ),
        (
            format!("{half}\0\0\0{two}"),
            vec![format!("<{half}> Overwritten"), "3".to_owned(), two.clone()],
        ),
        (half.to_owned(), vec![format!("<{half}> Cut")]),
        (
            format!("rest\"}}{two}"),
            vec!["<rest\"}> NotObject".to_owned(), two.clone()],
        ),
        (
            format!("{two} tail"),
            vec![two.clone(), "<tail> NotObject".to_owned()],
        ),
        // An event in a body is a value, never a line.
        (
            format!("{{\"a\": {one}, {half}"),
            vec![format!("<{{\"a\": {one}, {half}> Cut")],
        ),
        (format!("{{\"a\":[{one}"), vec![format!("<{{\"a\":[{one}> Cut")]),
        (String::new(), vec![]),
    ];
    for (line, pieces) in table {
        assert_eq!(shown(line.as_bytes()), pieces, "{line}");
    }
}

#[test]
fn taking_apart_is_linear() {
    // Each of these could begin an event and none ends; quadratic work would take minutes.
    let line = event(1)[..60].repeat(200_000);
    assert_eq!(resync(line.as_bytes()).len(), 200_000);
    let line = "{\"a\":".repeat(1_000_000);
    assert_eq!(resync(line.as_bytes()).len(), 1);
}

#[test]
fn lines_keep_their_bytes_and_their_offsets() {
    let (one, two) = (event(1), event(2));
    let text = format!("{one}\n\n{}{two}\n\0\0{one}\n{{\"b\":{two}}}\n", &one[..30]);
    let split = split(text.as_bytes(), 1000);
    let lines: Vec<_> = split
        .lines
        .iter()
        .map(|line| &text[line.start..line.end])
        .collect();
    let nested = format!("{{\"b\":{two}}}");
    assert_eq!(lines, [one.as_str(), &two, &one, &nested]);
    let last = split.lines.last().unwrap();
    assert_eq!(last.end_offset, 1000 + text.len() as u64);
    assert_eq!(split.lines[0].end_offset, 1000 + one.len() as u64 + 1);
    assert_eq!(split.torn.len(), 1);
    assert_eq!((split.holes, split.hole_bytes), (1, 2));
}

#[test]
fn entries_of_a_container_are_known() {
    let entry =
        |text: &'static str| entry(text.as_bytes()).map(|entry| (entry.stream, entry.is_last, entry.text));
    assert_eq!(
        entry("2016-10-06T00:17:09.669794202Z stdout P log content 1"),
        Some((Stream::Stdout, false, &b"log content 1"[..]))
    );
    assert_eq!(
        entry("2016-10-06T00:17:09+02:00 stderr F:x "),
        Some((Stream::Stderr, true, &b""[..]))
    );
    for text in [
        "",
        "{}",
        "2016-10-06T00:17:09Z stdin F x",
        "2016-10-06T00:17:09Z stdout X x",
        "now stdout F x",
    ] {
        assert_eq!(entry(text), None, "{text}");
    }
}
