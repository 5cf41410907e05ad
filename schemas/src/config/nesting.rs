//! Measures the nesting of a text before it is parsed. The parser tries some brackets in two ways, and each way tries the inner
//! brackets in two ways, so its time doubles with every level.

use crate::bounds;

/// What encloses a bracket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Code,
    /// `${` or `%{` in a string. The string continues after its end.
    String,
}

/// The place of the first bracket that is nested deeper than any valid configuration.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let text = text.as_bytes();
    let mut open: Vec<Within> = Vec::new();
    let mut string = false;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let until = |end: &[u8]| rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len());
        let mut opened = None;
        let taken = match (string, rest) {
            (true, [b'\\', _, ..]) => 2,
            (true, [b'$' | b'%', b'{', ..]) => {
                (opened, string) = (Some(Within::String), false);
                2
            }
            (true, [b'"' | b'\n', ..]) | (false, [b'"', ..]) => {
                string = !string;
                1
            }
            (false, [b'#', ..] | [b'/', b'/', ..]) => until(b"\n"),
            (false, [b'/', b'*', ..]) => 2 + until(b"*/"),
            (false, [b'{' | b'[' | b'(', ..]) => {
                opened = Some(Within::Code);
                1
            }
            (false, [b'}' | b']' | b')', ..]) => {
                string = open.pop() == Some(Within::String);
                1
            }
            _ => 1,
        };
        if let Some(within) = opened {
            if open.len() >= bounds::CONFIG_NESTING {
                return Some(at);
            }
            open.push(within);
        }
        at += taken;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_where_they_are_brackets() {
        let most = bounds::CONFIG_NESTING;
        assert_eq!(too_deep(&"{".repeat(most)), None);
        assert_eq!(too_deep(&"{".repeat(most + 1)), Some(most));
        assert_eq!(too_deep(&"[({".repeat(most)), Some(most));
        assert_eq!(too_deep(&"{}[]()".repeat(most)), None);
        for quiet in ["# {\n", "// {\n", "/* { */", "\"{\"", "\"\\\"{\"", "\"{\n"] {
            assert_eq!(too_deep(&quiet.repeat(most + 1)), None, "{quiet}");
        }
        assert_eq!(too_deep(&"\"${".repeat(most + 1)), Some(3 * most + 1));
        assert_eq!(too_deep(&"\"${a}{\"".repeat(most + 1)), None);
    }
}
