//! Domains: every spelling of a name maps to the same key.
//!
//! The key is the name in A-labels (UTS 46, non-transitional): ASCII, lower case, no dot at the end. `idna` does the mapping.
//! This module refuses, with a reason, what `idna` would drop silently and what is not a valid name.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "positions are inside a name whose length was checked"
)]

use std::borrow::Cow;
use std::net::IpAddr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::bounds;
use crate::key::error::{DomainFault, KeyError};
use crate::visible::is_hidden;

/// Names up to this length that are already in canonical form need only one pass, because no label of them can be too long.
const PLAIN_BYTES: usize = bounds::DOMAIN_LABEL_BYTES;

/// ASCII that no domain may contain: everything except letters, digits, `-`, `_` and the dot.
const DENIED: AsciiDenyList = AsciiDenyList::new(true, "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}~");

/// A domain in canonical form: A-labels, lower case, no dot at the end. A name that is in this form already is read once and
/// not copied, unless it is longer than 63 bytes or contains `--`, as A-labels do.
///
/// # Errors
/// [`KeyError::Domain`] with the reason.
pub fn domain(text: &str) -> Result<Cow<'_, str>, KeyError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if is_plain(name.as_bytes()) {
        return Ok(Cow::Borrowed(name));
    }
    mapped(text).map_err(|fault| KeyError::Domain { text: text.to_owned(), fault })
}

/// The role of a byte in a name of the one-pass check: none, or one of these bits.
const LETTER: u8 = 1;
const DOT: u8 = 2;
const HYPHEN: u8 = 4;

/// The role of each byte.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => LETTER,
            b'.' => DOT,
            b'-' => HYPHEN,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};

/// Whether a name is a domain in canonical form that uses only the most common letters, checked in one pass over its bytes. Two
/// cases are left to the mapping: two hyphens may begin an A-label, and a last label that begins or ends like a number may
/// belong to an address.
fn is_plain(name: &[u8]) -> bool {
    let mut before = DOT;
    let plain = name.iter().all(|byte| {
        let kind = KINDS[usize::from(*byte)];
        let twice = kind & std::mem::replace(&mut before, kind) & (DOT | HYPHEN);
        kind != 0 && twice == 0
    });
    plain && before != DOT && name.len() <= PLAIN_BYTES && !ends_like_number(name)
}

/// Whether the last label may be a number. A number ends with a digit of some base.
fn ends_like_number(name: &[u8]) -> bool {
    match name.last() {
        Some(b'0'..=b'9') | None => true,
        Some(b'a'..=b'f' | b'x') => {
            let label = name.rsplit(|byte| *byte == b'.').next().and_then(|label| label.first());
            label.is_none_or(u8::is_ascii_digit)
        }
        Some(_) => false,
    }
}

fn mapped(text: &str) -> Result<Cow<'_, str>, DomainFault> {
    if text.is_empty() {
        return Err(DomainFault::Empty);
    }
    // This check comes before the mapping, whose time grows with the length of a label. A character has at most four bytes.
    if text.len() > 8 * bounds::DOMAIN_BYTES {
        return Err(DomainFault::Long);
    }
    refuse_what_is_none(text)?;
    let map = |length| Uts46::new().to_ascii(text.as_bytes(), DENIED, Hyphens::Allow, length);
    let name = match map(DnsLength::VerifyAllowRootDot) {
        Ok(name) => name,
        Err(_) => return Err(map(DnsLength::Ignore).map_or(DomainFault::Idna, |name| length_fault(&name))),
    };
    let name = match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.strip_suffix('.').unwrap_or(name)),
        Cow::Owned(mut name) => {
            name.truncate(name.strip_suffix('.').unwrap_or(&name).len());
            Cow::Owned(name)
        }
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match last {
        "" if name.is_empty() => Err(DomainFault::Empty),
        "" => Err(DomainFault::EmptyLabel),
        last if hex || last.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(if name.parse::<IpAddr>().is_ok() { DomainFault::Address } else { DomainFault::Number })
        }
        _ => Ok(name),
    }
}

/// Refuses text that the mapping would skip, or refuse without a reason.
fn refuse_what_is_none(text: &str) -> Result<(), DomainFault> {
    if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
        return Err(DomainFault::Invisible(c));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let tagged = bare.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("ipv6:"));
    let bare = if tagged { bare.get(5..).unwrap_or_default() } else { bare };
    if bare.parse::<IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok() {
        return Err(DomainFault::Address);
    }
    if let Some((host, port)) = text.split_once([':', '：'])
        && !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(DomainFault::Port);
    }
    let odd = |c: &char| c.is_whitespace() || (c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.".contains(*c));
    text.chars().find(odd).map_or(Ok(()), |c| Err(DomainFault::Character(c)))
}

/// The error of a name in which only the lengths are wrong.
fn length_fault(name: &str) -> DomainFault {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name {
        "" => DomainFault::Empty,
        name if name.split('.').any(str::is_empty) => DomainFault::EmptyLabel,
        name if name.split('.').any(|label| label.len() > bounds::DOMAIN_LABEL_BYTES) => DomainFault::LongLabel,
        _ => DomainFault::Long,
    }
}

/// Whether the character is invisible: hidden characters, and all others that Unicode lists as default-ignorable. The two
/// joiners are not included: in some scripts they make a different name, and the mapping refuses them elsewhere.
fn is_invisible(character: char) -> bool {
    is_hidden(character)
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0080}'..='\u{e0fff}'
        )
}

/// A binding and a domain in canonical form, joined by a slash.
///
/// # Errors
/// [`KeyError::BindingDomain`] when the binding is invalid, [`KeyError::Domain`] when the domain is.
pub fn binding_domain(binding: &str, name: &str) -> Result<String, KeyError> {
    let good = !binding.is_empty()
        && binding.len() <= 128
        && binding.chars().all(|c| !c.is_whitespace() && !is_invisible(c) && c != '/');
    if !good {
        return Err(KeyError::BindingDomain(format!("{binding}/{name}")));
    }
    domain(name).map(|name| format!("{binding}/{name}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> DomainFault {
        match domain(text) {
            Err(KeyError::Domain { fault, .. }) => fault,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn one_name_has_one_form_however_it_is_written() {
        for text in [
            "münchen.example",
            "MÜNCHEN.example",
            "mu\u{308}nchen.Example.",
            "xn--mnchen-3ya.example",
            "XN--MNCHEN-3YA.EXAMPLE.",
            "münchen。example",
            "münchen．ｅｘａｍｐｌｅ",
            "münchen｡example。",
        ] {
            assert_eq!(domain(text).unwrap(), "xn--mnchen-3ya.example", "{text}");
        }
        for text in
            ["example.com", "EXAMPLE.com.", "ｅｘａｍｐｌｅ.com", "example。com", "example.com。", "𝐞xample.com"]
        {
            assert_eq!(domain(text).unwrap(), "example.com", "{text}");
        }
        // No transitional mapping: these are different names.
        assert_eq!(domain("straße.de").unwrap(), "xn--strae-oqa.de");
        assert_eq!(domain("strasse.de").unwrap(), "strasse.de");
        assert_eq!(binding_domain("b1", "Aol.com.").unwrap(), "b1/aol.com");
    }

    #[test]
    fn names_that_mail_and_caches_use_are_taken_as_they_are() {
        for name in [
            "aol.com",
            "_dmarc.example.com",
            "r3---sn-4g5e.googlevideo.com",
            "localhost",
            "3com.com",
            "a.3com",
            "xn--p1ai",
            "host-.example",
        ] {
            assert!(matches!(domain(name), Ok(found) if found == name), "{name}: {:?}", domain(name));
        }
        let long = format!("{}.example", "a".repeat(63));
        assert_eq!(domain(&long).unwrap(), long);
    }

    #[test]
    fn an_invalid_domain_is_refused_with_the_reason() {
        for (text, expected) in [
            ("", DomainFault::Empty),
            (".", DomainFault::Empty),
            ("。", DomainFault::Empty),
            ("a..b", DomainFault::EmptyLabel),
            (".a", DomainFault::EmptyLabel),
            ("a.。", DomainFault::EmptyLabel),
            ("exam\u{200b}ple.com", DomainFault::Invisible('\u{200b}')),
            ("exam\u{ad}ple.com", DomainFault::Invisible('\u{ad}')),
            ("\u{feff}example.com", DomainFault::Invisible('\u{feff}')),
            ("\u{202e}moc.elpmaxe", DomainFault::Invisible('\u{202e}')),
            ("example.com\u{fe0f}", DomainFault::Invisible('\u{fe0f}')),
            ("example.com\n", DomainFault::Invisible('\n')),
            ("exa mple.com", DomainFault::Character(' ')),
            ("exa\u{3000}mple.com", DomainFault::Character('\u{3000}')),
            ("a/b", DomainFault::Character('/')),
            ("user@example.com", DomainFault::Character('@')),
            ("*.example.com", DomainFault::Character('*')),
            ("example.com:25", DomainFault::Port),
            ("192.0.2.7", DomainFault::Address),
            ("１９２.0.2.7", DomainFault::Address),
            ("192。0。2。7", DomainFault::Address),
            ("192.0.2.7:25", DomainFault::Address),
            ("[192.0.2.7]", DomainFault::Address),
            ("2001:db8::1", DomainFault::Address),
            ("[IPv6:2001:db8::1]", DomainFault::Address),
            ("[2001:db8::1]:25", DomainFault::Address),
            ("192.0.2", DomainFault::Number),
            ("1", DomainFault::Number),
            ("example.0x7f", DomainFault::Number),
            ("exam\u{200d}ple.com", DomainFault::Idna),
            ("xn--a.com", DomainFault::Idna),
            ("xn--MÜNCHEN.de", DomainFault::Idna),
        ] {
            assert_eq!(fault(text), expected, "{text:?}");
        }
        assert_eq!(fault(&format!("{}.com", "a".repeat(64))), DomainFault::LongLabel);
        assert_eq!(fault(&"ab.".repeat(90)), DomainFault::Long);
        assert_eq!(fault(&"ü".repeat(100_000)), DomainFault::Long);
        assert!(binding_domain("b\u{200b}1", "aol.com").is_err());
    }

    #[test]
    fn an_error_shows_nothing_that_a_terminal_obeys() {
        for text in ["\u{202e}moc.elpmaxe", "exa\u{1b}[2Jmple.com:25", "\u{2066}b/\u{7}"] {
            for said in [domain(text).unwrap_err().to_string(), binding_domain(text, text).unwrap_err().to_string()] {
                assert!(!said.chars().any(is_hidden), "{said:?}");
            }
        }
        let said = domain("exam\u{200b}ple.com").unwrap_err().to_string();
        assert_eq!(
            said,
            "\"exam\\u{200b}ple.com\" is not a domain: it has the invisible character U+200B: remove that"
        );
    }

    proptest! {
        /// For a name in canonical form, the one-pass check gives the same result as the mapping.
        #[test]
        fn a_domain_is_the_same_however_it_is_written(text in "[a-z0-9._ /-]{0,12}|[a-z.]{55,65}|[a-z.]{250,255}") {
            let (plain, other) = (format!("x{text}"), format!("X{text}"));
            prop_assert_eq!(domain(&plain).ok(), domain(&other).ok());
        }

        /// The canonical form of a canonical form is itself. Any input gives a name or an error.
        #[test]
        fn the_one_form_stays(text in "\\PC{0,20}|[a-zäßλ中。．0-9.]{0,12}|xn--[a-z0-9-]{0,12}") {
            if let Ok(name) = domain(&text) {
                prop_assert!(name.is_ascii() && name.len() <= bounds::DOMAIN_BYTES);
                let again = domain(&name);
                prop_assert_eq!(again.as_deref().ok(), Some(&*name));
            }
        }
    }
}
