//! Whatever the text: a configuration that holds together or errors that point into it, never a panic, an overflow of
//! the stack, or work without bound.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tallymesh_schemas::bounds;
use tallymesh_schemas::config::Config;

const WHOLE: &str = include_str!("config/whole.hcl");

/// Parses, and checks what holds for every outcome.
fn parse(text: &str) -> Result<Config, String> {
    match Config::parse(text, "any.hcl") {
        Ok(config) => {
            let names = config.structures.iter().map(|spec| &spec.name).chain(config.caches.iter().map(|c| &c.name));
            let names: Vec<_> = names.collect();
            assert_eq!(names.iter().map(|name| name.id()).collect::<BTreeSet<_>>().len(), names.len());
            assert!(names.len() <= bounds::STRUCTURES);
            for spec in &config.structures {
                assert!(bounds::MAX_DELAY_SECONDS.contains(&spec.max_delay.as_secs_f64()));
                assert!(bounds::MAX_PENDING.contains(&u64::try_from(spec.max_pending).unwrap()));
            }
            Ok(config)
        }
        Err(errors) => {
            assert!(!errors.errors().is_empty());
            let lines: Vec<_> = text.split('\n').collect();
            for error in errors.errors() {
                let line = lines[error.line - 1];
                assert!(error.column <= line.chars().count() + 1, "{error}");
                assert!(!error.message.is_empty() && !error.help.is_empty());
            }
            assert!(errors.errors().is_sorted_by_key(|error| (error.line, error.column)));
            Err(errors.to_string())
        }
    }
}

#[test]
fn a_file_beyond_the_bound_is_refused_unread() {
    let text = " ".repeat(bounds::CONFIG_BYTES + 1);
    assert_eq!(
        parse(&text).unwrap_err(),
        "any.hcl:1:1: the file has 262145 bytes, a configuration has 262144 at most\n    is this the right file?"
    );
    assert!(parse(&text[1..]).is_ok());
}

/// The parser bounds nesting: this fails, with an abort, should a later version of it not.
#[test]
fn nesting_does_not_overflow_a_small_stack() {
    let openers = [
        "(",
        "[",
        "{",
        "-",
        "!",
        "\"${",
        "f(",
        "a?",
        "\"%{if true}",
        "{a=",
        "<<E\n${",
        "a[",
        "1+",
        "[for a in ",
        "a.b",
        "/*",
        "[{a=\"${(f(-",
        "\"",
        "\\",
    ];
    let bombs = openers.iter().flat_map(|opener| {
        [63, 64, 65, 66, bounds::CONFIG_BYTES / opener.len() - 64].map(|depth| {
            let opened = opener.repeat(depth);
            format!("inbound_audit {{\n  monitors = {opened}")
        })
    });
    let closed = (60..68).flat_map(|depth| {
        [("(", ")"), ("[", "]"), ("{\na = ", "\n}"), ("\"${", "}\""), ("f(", ")")].map(|(open, close)| {
            format!("inbound_audit {{\n  monitors = {}1{}\n}}\n", open.repeat(depth), close.repeat(depth))
        })
    });
    let blocks = [64, 65, 10_000].map(|depth| format!("{}{}", "cluster {\n".repeat(depth), "}\n".repeat(depth)));
    let texts: Vec<String> = bombs.chain(closed).chain(blocks).collect();
    let small = std::thread::Builder::new().stack_size(1 << 20);
    let parsed = small.spawn(move || {
        for text in &texts {
            parse(text).expect_err("a bomb is no configuration");
        }
    });
    parsed.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn arbitrary_characters_never_panic(text in proptest::collection::vec(any::<char>(), 0..200)) {
        let _ = parse(&text.into_iter().collect::<String>());
    }

    #[test]
    fn words_of_the_language_in_any_order_never_panic(
        words in proptest::collection::vec(proptest::sample::select(vec![
            "node", "cluster", "inbound_audit", "Datasource", "tls", "Replicate", "\"inbound_cidr\"", "\"metrics\"",
            "\"é\"", "\"${a}\"", "name", "listen", "seeds", "monitors", "parameters", "max_delay", "on_dead", "type",
            "class", " = ", "{", "}", "{\n", "}\n", "\n", "(", ")", "[", "]", ",", ";", "#", "/*", "*/", "\"", "1", "-1",
            "1e308", "0.5", "true", "null", "\"300,6\"", "\"connect;x\"", "\"drop 1s\"", "<<E\n", "E\n", "\\", "\r\n",
        ]), 0..60)
    ) {
        let _ = parse(&words.concat());
    }

    /// A right file with a piece cut out and another put in its place.
    #[test]
    fn a_file_that_was_damaged_never_panics(
        from in 0..WHOLE.len(), length in 0..40usize, insert in "[\\PC\n]{0,8}"
    ) {
        let to = (from + length).min(WHOLE.len());
        let _ = parse(&format!("{}{insert}{}", &WHOLE[..from], &WHOLE[to..]));
    }

    /// Lines of a right file, left out, doubled and swapped: most of it stays HCL, so that the checks behind the parser run.
    #[test]
    fn lines_of_a_file_in_any_order_never_panic(lines in proptest::collection::vec(0..WHOLE.lines().count(), 0..80)) {
        let all: Vec<_> = WHOLE.lines().collect();
        let text: String = lines.into_iter().flat_map(|line| [all[line], "\n"]).collect();
        let _ = parse(&text);
    }
}
