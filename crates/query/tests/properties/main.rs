//! What holds for every filter and every event.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod generate;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, Event, MicroTime};
use kaudit_query::accumulate::{Borrowed, Compare, Distinct, DistinctCount, Histogram, Key, Limits, Top};
use kaudit_query::{COLUMNS, Column, Expr, Filter, LineMatch, Row, complete};
use proptest::collection::vec;
use proptest::prelude::*;

const NOW: MicroTime = MicroTime::from_unix(1_795_446_000, 0);

fn line(event: &Event) -> Vec<u8> {
    let mut line = Vec::new();
    event.write_json_line(&mut line).unwrap();
    line
}

fn parsed(text: &str) -> Filter {
    Filter::parse(text, NOW).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"))
}

/// The same JSON with letters and slashes of its strings escaped here and there.
fn escaped(line: &[u8], seed: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut in_string, mut after_escape, mut state) = (false, 0, seed);
    for (at, byte) in line.iter().enumerate() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let is_head = at < 60;
        if after_escape > 0 {
            after_escape -= 1;
        } else if in_string && *byte == b'\\' {
            after_escape = if line[at + 1] == b'u' { 5 } else { 1 };
        } else if *byte == b'"' {
            in_string = !in_string;
        } else if in_string && !is_head && state >> 61 == 0 && byte.is_ascii_alphanumeric() {
            out.extend(format!("\\u00{byte:02x}").bytes());
            continue;
        } else if in_string && !is_head && state >> 62 == 1 && *byte == b'/' {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_printed_reads_as_the_same_filter(text in generate::filter()) {
        let filter = parsed(&text);
        let printed = filter.to_string();
        prop_assert_eq!(parsed(&printed), filter, "{} printed {}", text, printed);
    }

    #[test]
    fn any_text_is_read_or_refused(text in generate::noise(), cursor in 0_usize..64) {
        match Filter::parse(&text, NOW) {
            Ok(filter) => prop_assert_eq!(parsed(&filter.to_string()), filter, "{}", text),
            Err(errors) => {
                prop_assert!(!errors.is_empty());
                for error in errors {
                    prop_assert!(text.get(error.span.clone()).is_some(), "{text:?}: {error:?}");
                    if let Some(fix) = error.fix {
                        prop_assert!(text.get(fix.span).is_some());
                    }
                }
            }
        }
        let completions = complete(&text, cursor);
        prop_assert!(text.get(completions.replaces).is_some());
    }

    #[test]
    fn not_is_the_complement(text in generate::filter(), event in generate::event()) {
        let decoded = DecodedEvent::parse(Bytes::from(line(&event))).unwrap();
        let row = Row::of(decoded.view());
        let filter = parsed(&text);
        let negated = Filter::new(Expr::Not(Box::new(filter.expr().clone())));
        prop_assert_ne!(filter.matches(&row), negated.matches(&row));
    }

    #[test]
    fn a_line_answers_as_its_event_does(text in generate::filter(), event in generate::event(), seed in any::<u64>()) {
        let line = line(&event);
        let filter = parsed(&text);
        let Some(lines) = filter.for_lines() else { return Ok(()); };
        for line in [line.clone(), escaped(&line, seed)] {
            let decoded = DecodedEvent::parse(Bytes::from(line.clone())).unwrap();
            let expected = LineMatch::from(filter.matches(&Row::of(decoded.view())));
            let answer = lines.matches(&line);
            prop_assert!(answer == expected || answer == LineMatch::Undecided, "{}: {}", text, String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn needles_stand_in_every_line_that_matches(text in generate::filter(), event in generate::event(), seed in any::<u64>()) {
        let line = line(&event);
        let filter = parsed(&text);
        let Some(needles) = filter.needles() else { return Ok(()); };
        let decoded = DecodedEvent::parse(Bytes::from(line.clone())).unwrap();
        if filter.matches(&Row::of(decoded.view())) {
            prop_assert!(needles.are_in(&line), "{}: {}", text, String::from_utf8_lossy(&line));
        }
        let other = escaped(&line, seed);
        let decoded = DecodedEvent::parse(Bytes::from(other.clone())).unwrap();
        if filter.matches(&Row::of(decoded.view())) {
            prop_assert!(needles.may_match(&other), "{}: {}", text, String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn values_of_columns_are_what_existence_asks_for(event in generate::event()) {
        let decoded = DecodedEvent::parse(Bytes::from(line(&event))).unwrap();
        let row = Row::of(decoded.view());
        for column in COLUMNS.iter().filter_map(kaudit_query::ColumnInfo::column) {
            let exists = parsed(&format!("{column}: *")).matches(&row);
            prop_assert_eq!(exists, row.value(&column) != kaudit_query::Value::Absent, "{}", column);
        }
    }

    #[test]
    fn tops_merge_to_what_one_would_have_counted(values in vec(0_i64..40, 0..200), at in any::<prop::sample::Index>(), bound in 1_usize..60) {
        let limits = Limits { values: bound, bytes: 1 << 20 };
        let count = |values: &[i64]| {
            let mut top = Top::new(limits);
            values.iter().for_each(|value| top.add_key(Borrowed::Number(*value), 1));
            top
        };
        let (left, right) = values.split_at(at.index(values.len() + 1));
        let mut merged = count(left);
        merged.merge(&count(right));
        let whole = count(&values);
        prop_assert_eq!(merged.total(), whole.total());
        if merged.is_exact() && whole.is_exact() {
            prop_assert_eq!(merged.finish(10), whole.finish(10));
        }
        for entry in merged.finish(usize::MAX).entries {
            let Key::Number(number) = entry.key else { panic!("only numbers were counted") };
            let truly = values.iter().filter(|value| **value == number).count();
            prop_assert!(entry.count <= truly as u64);
        }
        prop_assert!(merged.finish(usize::MAX).distinct <= bound);
    }

    #[test]
    fn histograms_and_distinct_counts_merge_to_what_one_would_have_counted(
        times in vec((-4_000_000_000_000_i64..4_000_000_000_000, 0_u8..20), 0..300),
        at in any::<prop::sample::Index>(),
        most in 2_usize..50,
    ) {
        let (left, right) = times.split_at(at.index(times.len() + 1));
        let histogram = |times: &[(i64, u8)]| {
            let mut histogram = Histogram::new(most);
            times.iter().for_each(|(time, kind)| histogram.add((*kind > 0).then_some(*time)));
            histogram
        };
        let mut merged = histogram(left);
        merged.merge(&histogram(right));
        prop_assert_eq!(&merged, &histogram(&times));
        let counts = merged.finish();
        prop_assert!(counts.buckets.len() <= most);
        let counted: u64 = counts.buckets.iter().map(|bucket| bucket.count).sum();
        prop_assert_eq!(counted + counts.undated, times.len() as u64);

        let distinct = |times: &[(i64, u8)]| {
            let mut distinct = Distinct::default();
            times.iter().for_each(|(time, _)| distinct.add_key(Borrowed::Number(*time)));
            distinct
        };
        let mut merged = distinct(left);
        merged.merge(&distinct(right));
        prop_assert_eq!(&merged, &distinct(&times));
        let truly = times.iter().map(|(time, _)| time).collect::<std::collections::BTreeSet<_>>().len();
        prop_assert_eq!(merged.finish(), DistinctCount::Exactly(truly as u64));
    }

    #[test]
    fn comparisons_merge_to_what_one_would_have_counted(events in vec((generate::event(), any::<bool>()), 0..12), at in any::<prop::sample::Index>()) {
        let columns = || [Column::Verb, Column::UserGroups, Column::ResponseCode];
        let compare = |events: &[(Event, bool)]| {
            let mut compare = Compare::new(columns(), Limits::default());
            for (event, is_selected) in events {
                let decoded = DecodedEvent::parse(Bytes::from(line(event))).unwrap();
                if *is_selected {
                    compare.add_selection(&Row::of(decoded.view()));
                }
                compare.add_baseline(&Row::of(decoded.view()));
            }
            compare
        };
        let (left, right) = events.split_at(at.index(events.len() + 1));
        let mut merged = compare(left);
        merged.merge(&compare(right));
        prop_assert_eq!(merged.finish(50), compare(&events).finish(50));
    }
}

#[test]
fn many_distinct_values_are_estimated_within_five_percent() {
    let mut distinct = Distinct::default();
    for value in 0..200_000 {
        distinct.add_key(Borrowed::Number(value));
    }
    let DistinctCount::About(about) = distinct.finish() else {
        panic!("200,000 values are not counted one by one");
    };
    assert!((190_000..210_000).contains(&about), "{about}");
}
