//! The page about filters says what the code does.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use kaudit_event::MicroTime;
use kaudit_query::{CODES, Filter, reference};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/filter.md");

#[test]
fn the_page_is_what_the_tables_say() {
    if std::env::var_os("KAUDIT_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, reference()).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(
        page == reference(),
        "docs/filter.md is not what the tables say: KAUDIT_WRITE_DOCS=1 cargo test -p kaudit-query --test reference"
    );
}

#[test]
fn each_code_has_an_example_that_gets_it_and_nothing_else() {
    for code in CODES {
        if code.example.is_empty() {
            continue;
        }
        let errors = Filter::parse(code.example, MicroTime::from_unix(0, 0)).unwrap_err();
        let codes: Vec<_> = errors.iter().map(|error| error.code).collect();
        assert_eq!(codes, [code.code], "{}", code.example);
    }
}

#[test]
fn the_filters_of_the_page_are_read() {
    let page = reference();
    let block = page.split("```").nth(1).unwrap();
    for filter in block.lines().skip(1) {
        assert!(
            Filter::parse(filter, MicroTime::from_unix(0, 0)).is_ok(),
            "{filter}"
        );
    }
}
