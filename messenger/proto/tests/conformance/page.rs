//! The map in `docs/conformance.md` is whole: each case has a row, each row its test.

const PAGE: &str = include_str!("../../../../docs/conformance.md");

const ROOMS: [&str; 10] = [
    include_str!("auth.rs"),
    include_str!("banner.rs"),
    include_str!("client.rs"),
    include_str!("framing.rs"),
    include_str!("idents.rs"),
    include_str!("lossless.rs"),
    include_str!("messages.rs"),
    include_str!("states.rs"),
    include_str!("v1.rs"),
    include_str!("../../../tests/monitor.rs"),
];

/// Functions named after a case.
fn tests() -> Vec<&'static str> {
    let names = ROOMS.iter().flat_map(|room| room.lines()).filter_map(|line| {
        let name = line.strip_prefix("fn ")?.split('(').next()?;
        is_case(name).then_some(name)
    });
    names.collect()
}

/// Whether a name begins as `c07_` does.
fn is_case(name: &str) -> bool {
    let digits = name.strip_prefix('c').and_then(|rest| rest.split_once('_'));
    digits.is_some_and(|(digits, _)| digits.len() == 2 && digits.parse::<u8>().is_ok())
}

#[test]
fn every_case_has_its_row_and_every_row_its_test() {
    let numbers = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let numbers: Vec<u8> = numbers.filter_map(|number| number.parse().ok()).collect();
    assert_eq!(numbers, (1..=58).collect::<Vec<_>>());
    let rows = PAGE.split('`').skip(1).step_by(2).filter(|code| is_case(code));
    let rows: Vec<&str> = rows.map(|code| code.trim_end_matches('*')).collect();
    for row in &rows {
        assert!(tests().iter().any(|test| test.starts_with(row)), "no test for {row}");
    }
    for test in tests() {
        assert!(rows.iter().any(|row| test.starts_with(row)), "no row for {test}");
    }
}
