//! Domains: one name is one key, and an invalid name is refused with the reason.

use crate::support::{Mesh, Process, SOON};

const NODE: &str = "relay-0-1";

/// One name in spellings that occur in practice.
const SPELLINGS: [&str; 8] = [
    "münchen.example",
    "MÜNCHEN.Example",
    "münchen.example.",
    "mu\u{308}nchen.example",
    "münchen。example",
    "münchen．ｅｘａｍｐｌｅ",
    "xn--mnchen-3ya.example",
    "XN--MNCHEN-3YA.EXAMPLE.",
];

#[test]
fn all_spellings_of_a_name_are_one_key() {
    let mesh = Mesh::running(&[NODE]);
    let hold = |key: &str| ["hold", "outbound_domains", key, "--limit", "1", "--", "cat"].map(str::to_owned);
    let first = hold("xn--mnchen-3ya.example");
    let first: Vec<_> = first.iter().map(String::as_str).collect();
    let mut held = mesh.asking(NODE, &first);
    let mut held = Process::start(held.stdin(std::process::Stdio::piped()));
    mesh.counts(NODE, "outbound_domains", "xn--mnchen-3ya.example", 1, SOON);
    for spelling in SPELLINGS {
        let again = hold(spelling);
        mesh.ask(NODE, &again.iter().map(String::as_str).collect::<Vec<_>>()).fails(1);
        assert_eq!(mesh.total(NODE, "outbound_domains", spelling), 1, "{spelling}");
        let pair = format!("b1/{spelling}");
        mesh.ask(NODE, &["add", "outbound_binding_domains", &pair, "1"]).ok();
    }
    let pairs = mesh.total(NODE, "outbound_binding_domains", "b1/xn--mnchen-3ya.example");
    assert_eq!(pairs, SPELLINGS.len() as i64);
    drop(held.child.stdin.take());
    assert_eq!(held.code(), 0);
}

#[test]
fn an_invalid_domain_is_refused_with_the_reason() {
    let mesh = Mesh::running(&[NODE]);
    for (key, reason) in [
        ("exam\u{200b}ple.com", "\"exam\\u{200b}ple.com\" is not a domain: it has the invisible character U+200B"),
        ("\u{202e}moc.elpmaxe", "\"\\u{202e}moc.elpmaxe\" is not a domain: it has the invisible character U+202E"),
        ("example.com:25", "it has a port: write the name alone"),
        ("192.0.2.7", "it is an address: count it in an object of addresses"),
        ("[IPv6:2001:db8::1]", "it is an address"),
        ("*.example.com", "it has the character \"*\""),
    ] {
        let said = mesh.ask(NODE, &["add", "outbound_domains", key, "1"]).fails(2);
        assert!(said.contains(reason), "{key:?}: {said}");
    }
    let lines = "example.com\nexam\u{200b}ple.com\n";
    let said = mesh.feed(NODE, &["load", "outbound_domains"], lines).fails(2);
    assert!(said.contains("stdin:2: \"exam\\u{200b}ple.com\" is not a domain"), "{said}");
}

/// Text for people contains no character that reverses the text direction or moves the cursor. Programs get the key unchanged.
#[test]
fn listings_and_errors_are_safe_to_print() {
    let mut mesh = Mesh::new(&[NODE]);
    mesh.edit(NODE, |text| text + "gauge_cache \"opened\" {}\n");
    mesh.start(NODE, &[]);
    let key = "user\u{202e}nimda";
    mesh.ask(NODE, &["gauge", "inc", "opened", key, "3"]).ok();
    let shown = mesh.ask(NODE, &["gauge", "show", "opened"]).ok();
    assert!(shown.contains("user\\u{202e}nimda:") && !shown.contains('\u{202e}'), "{shown:?}");
    let shown = mesh.ask(NODE, &["--output", "csv", "gauge", "show", "opened"]).ok();
    assert!(shown.contains(&format!("{key},3\n")), "{shown:?}");
    let said = mesh.ask(NODE, &["shared", "show", "sess\u{1b}[2Jions\u{202e}"]).fails(2);
    assert!(!said.contains(['\u{1b}', '\u{202e}']) && said.contains("\\u{202e}"), "{said:?}");
}
