//! The size of what one reads at once: columns, functions, types. Type names are used once.

use std::collections::BTreeMap;

use crate::source::{PATHS, Source, line_of, none, sources, sources_and_tests, words};

/// Columns of a line.
const COLUMNS_MAX: usize = 100;

/// Lines of a function, from its `fn` to its last brace.
const FUNCTION_LINES_MAX: usize = 64;

/// Lines of a type over all its `impl` blocks: what would pass it is two types.
const TYPE_LINES_MAX: usize = 500;

/// Files whose types may have names that their crate has already, with the reason.
const NAMES_AGAIN: &[(&str, &str)] = &[
    ("src/core/wire/proto.rs", "messages as bytes, by the names that docs/control.proto has"),
    ("src/core/wire/proto/flow.rs", "the same"),
];

/// Comment paragraphs of a hundred that may begin with a clause in place of the thing.
const HEADLESS_PERCENT_MAX: usize = 3;

/// First words of such clauses.
const CLAUSES: [&str; 9] =
    ["What", "Who", "Whether", "How", "Where", "Which", "Why", "Whose", "When"];

#[test]
fn a_type_name_is_used_once_in_a_crate() {
    let mut places: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for source in PATHS.into_iter().flat_map(sources) {
        let Some(folder) = source.crate_folder() else { continue };
        if NAMES_AGAIN.iter().any(|(file, _)| *file == source.path) {
            continue;
        }
        for (at, name) in type_names(&source.without_tests()) {
            let place = format!("{}:{at}", source.path);
            places.entry((folder.to_owned(), name)).or_default().push(place);
        }
    }
    assert!(places.len() > 300, "the types were not found");
    let mut faults = Vec::new();
    for ((folder, name), places) in &places {
        if places.len() > 1 {
            faults.push(format!("{folder}: {name} is defined at {}", places.join(" and at ")));
        }
    }
    none(&faults);
}

/// Types that `masked` defines outside of `impl` and `trait` blocks, with their lines.
fn type_names(masked: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, line) in masked.lines().enumerate() {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
        let Some(kind) = words.next() else { continue };
        let is_type = ["struct", "enum", "union", "trait"].contains(&kind)
            || (kind == "type" && !line.starts_with(' '));
        if let Some(name) = words.next().filter(|_| is_type) {
            names.push((at + 1, self::words(name).next().unwrap().to_owned()));
        }
    }
    names
}

#[test]
fn lines_fit_a_terminal() {
    let mut faults = Vec::new();
    for source in everything() {
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                faults.push(format!("{}:{}: {columns} columns", source.path, at + 1));
            }
        }
    }
    none(&faults);
}

#[test]
fn functions_fit_a_page() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for source in PATHS.into_iter().flat_map(sources) {
        for (at, name, lines) in functions(&source.without_tests()) {
            count += 1;
            if lines > FUNCTION_LINES_MAX {
                faults.push(format!("{}:{at}: {name} has {lines} lines", source.path));
            }
        }
    }
    assert!(count > 3000, "the functions were not found: {count}");
    none(&faults);
}

/// Functions with a body: line, name, and lines to the last brace.
fn functions(masked: &str) -> Vec<(usize, String, usize)> {
    let mut functions = Vec::new();
    for (at, _) in masked.match_indices("fn ") {
        if masked[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let Some(name) = words(&masked[at + 3..]).next().filter(|_| {
            masked[at + 3..].starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
        }) else {
            continue;
        };
        if let Some(body) = block_after(&masked[at..]) {
            let lines = body.matches('\n').count() + 1;
            functions.push((line_of(masked, at), name.to_owned(), lines));
        }
    }
    functions
}

/// The text from its begin to the brace that closes its first block; none where a semicolon at
/// depth zero comes before the block.
fn block_after(masked: &str) -> Option<&str> {
    let (mut depth, mut is_open) = (0, false);
    for (at, letter) in masked.char_indices() {
        match letter {
            ';' if depth == 0 => return None,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => {
                is_open |= depth == 0;
                depth += 1;
            }
            '}' => {
                depth -= 1;
                if depth == 0 && is_open {
                    return Some(&masked[..=at]);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn a_type_fits_a_head() {
    let mut lines: BTreeMap<(String, String), usize> = BTreeMap::new();
    for source in PATHS.into_iter().flat_map(sources) {
        let Some(folder) = source.crate_folder() else { continue };
        for (name, count) in impl_blocks(&source.without_tests()) {
            *lines.entry((folder.to_owned(), name)).or_default() += count;
        }
    }
    assert!(lines.len() > 300, "the types were not found: {}", lines.len());
    let mut faults = Vec::new();
    for ((folder, name), count) in &lines {
        if *count > TYPE_LINES_MAX {
            faults.push(format!("{folder}: {name} has {count} lines; {TYPE_LINES_MAX} may be"));
        }
    }
    none(&faults);
}

/// Types of the `impl` blocks of a file, with the lines of each block.
fn impl_blocks(masked: &str) -> Vec<(String, usize)> {
    let mut blocks = Vec::new();
    for (at, _) in masked.match_indices("impl") {
        let begins = masked[..at].ends_with('\n') || at == 0;
        let Some(block) = block_after(&masked[at..]).filter(|_| begins) else { continue };
        let head = without_generics(&block["impl".len()..block.find('{').unwrap()]);
        let of = head.split(" for ").last().unwrap().split(" where ").next().unwrap();
        if let Some(name) = of.split("::").last().and_then(|name| words(name).next()) {
            blocks.push((name.to_owned(), block.matches('\n').count() + 1));
        }
    }
    blocks
}

/// A text without what stands in angle brackets.
fn without_generics(text: &str) -> String {
    let mut depth = 0;
    let mut kept = String::new();
    for (letter, before) in text.chars().zip(format!(" {text}").chars()) {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ if depth == 0 => kept.push(letter),
            _ => {}
        }
    }
    kept.replace('\n', " ")
}

#[test]
fn comments_name_the_thing_first() {
    let (mut headless, mut count) = (Vec::new(), 0);
    for source in everything() {
        for (at, first) in paragraphs(&source) {
            count += 1;
            if CLAUSES.contains(&first.as_str()) {
                headless.push(format!("{}:{at}", source.path));
            }
        }
    }
    assert!(count > 5000, "the comments were not found: {count}");
    let most = count * HEADLESS_PERCENT_MAX / 100;
    assert!(
        headless.len() <= most,
        "{} of {count} paragraphs of comments begin with a clause; {most} may:\n{}",
        headless.len(),
        headless.join("\n")
    );
}

/// The first word of each paragraph of comments, with its line.
fn paragraphs(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut last = (0, "", false);
    for (at, comment) in source.comments() {
        let text = comment.trim_start_matches(['/', '!']);
        let marks = &comment[..comment.len() - text.len()];
        let is_going_on = last == (at - 1, marks, true);
        let text = text.trim_start();
        last = (at, marks, !text.is_empty());
        if let Some(first) = words(text).next().filter(|_| !is_going_on) {
            found.push((at, first.to_owned()));
        }
    }
    found
}

fn everything() -> impl Iterator<Item = Source> {
    PATHS.into_iter().chain(["tests", "fuzz"]).flat_map(sources_and_tests)
}

#[test]
fn the_reader_of_shapes_reads_them() {
    let text = "pub(crate) struct A<T>(T);\nimpl A {\n    type B = u8;\n    fn c(x: [u8; 2]) {\n\
                        if x { y }\n    }\n    fn d();\n}\ntype E = fn (u8);\n";
    assert_eq!(type_names(text), [(1, "A".to_owned()), (9, "E".to_owned())]);
    assert_eq!(functions(text), [(4, "c".to_owned(), 3)]);
    assert_eq!(impl_blocks(text), [("A".to_owned(), 7)]);
    let text = "impl<T: Fn(u8) -> A> b::C<T> for d::E<'a, T>\nwhere T: F {\n}\n";
    assert_eq!(impl_blocks(text), [("E".to_owned(), 3)]);
}
