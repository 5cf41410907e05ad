//! The help: every command has an example that can be parsed, and every placeholder is explained.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, Parser};

use crate::args::Cli;

/// Calls `look` with every visible command and its full name.
fn each(command: &Command, called: &str, look: &mut impl FnMut(&Command, &str)) {
    look(command, called);
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        each(sub, &format!("{called} {}", sub.get_name()), look);
    }
}

/// The words of the `tally` command in a line of examples, without the shell's redirections and without comments.
fn words(line: &str) -> Option<Vec<&str>> {
    let line = &line[line.find("tally ")?..];
    let line = line.split("   ").next()?;
    Some(line.split_whitespace().take_while(|word| !matches!(*word, ">" | ">>" | "<" | "|")).collect())
}

#[test]
fn every_command_has_an_example_that_is_understood() {
    let mut examples = 0;
    each(&Cli::command(), "tally", &mut |command, called| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{called} has no example");
        let lines = help.lines().filter(|line| line.starts_with("  ") && line.contains("tally "));
        for line in lines.filter_map(words) {
            examples += 1;
            if let Err(error) = Cli::try_parse_from(&line) {
                assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{called}: {}\n{error}", line.join(" "));
            }
        }
    });
    assert!(examples > 50, "{examples}");
}

#[test]
fn every_placeholder_is_explained() {
    each(&Cli::command(), "tally", &mut |command, called| {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{called}: {} is not explained", argument.get_id());
        }
    });
}
