//! Colour, on terminals only, and messages on stderr.

use std::io::{self, IsTerminal, Write};

use tallymesh_schemas::visible;

/// Whether a stream may show colours: it is a terminal, and the user has not set `NO_COLOR`.
fn coloured(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// A text in green, if stdout shows colour.
pub(crate) fn good(text: &str) -> String {
    paint(text, "32", &io::stdout())
}

/// A text in red, if stdout shows colour.
pub(crate) fn bad(text: &str) -> String {
    paint(text, "31", &io::stdout())
}

/// A text in bold, if stdout shows colour.
pub(crate) fn strong(text: &str) -> String {
    paint(text, "1", &io::stdout())
}

/// Writes a line to stderr: `error: …`, `warning: …`. Control characters are escaped. If stderr is closed, the line is lost.
pub(crate) fn complain(label: &str, text: &str) {
    let colour = if label == "error" { "1;31" } else { "1;33" };
    let label = paint(label, colour, &io::stderr());
    let _ = writeln!(io::stderr(), "{label}: {}", visible::escaped_lines(text));
}

/// The text in a colour, if the stream may show colours.
fn paint(text: &str, colour: &str, stream: &impl IsTerminal) -> String {
    if coloured(stream) { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}
