//! What a configuration file that is wrong is told, to the letter: `tests/config/errors.txt`, a case after each `===`
//! with its file, `---`, and the errors.

use tallymesh_schemas::bounds;
use tallymesh_schemas::config::Config;

#[test]
fn every_mistake_has_its_message() {
    let cases = include_str!("config/errors.txt").strip_prefix("=== ").unwrap();
    let mut wrong = Vec::new();
    for case in cases.split("\n=== ") {
        let (name, case) = case.split_once('\n').unwrap();
        let (text, expected) = case.split_once("---\n").unwrap();
        let said = match Config::parse(text, "mesh.hcl") {
            Ok(config) => format!("{config:?}"),
            Err(errors) => errors.to_string(),
        };
        if said.trim_end() != expected.trim_end() {
            wrong.push(format!("=== {name}\n{text}--- says\n{said}\n--- instead of\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_may_end_anywhere() {
    for (text, said) in [
        ("cluster {", "mesh.hcl:1:10: this is not HCL: the file ends within a block"),
        ("cluster {\n  # é", "mesh.hcl:2:6: this is not HCL: the file ends within a block"),
        ("cluster {\n\n\n", "mesh.hcl:1:10: this is not HCL: the file ends within a block"),
        ("é", "mesh.hcl:1:1: this is not HCL: unexpected token"),
        ("", ""),
        (" \n", ""),
        ("# é", ""),
    ] {
        let errors = Config::parse(text, "mesh.hcl").err().map(|errors| errors.to_string()).unwrap_or_default();
        assert_eq!(errors.lines().next().unwrap_or(""), said, "{text:?}");
    }
}

#[test]
fn an_error_has_parts_for_programs() {
    let errors = Config::parse("cluster {\n\tReplicate \"x\" { class = \"y\" }\n}\n", "dir/mesh.hcl").unwrap_err();
    let [error] = errors.errors() else { panic!("{errors}") };
    assert_eq!((error.file.as_str(), error.line, error.column), ("dir/mesh.hcl", 2, 26));
    assert_eq!(error.message, "unknown class \"y\" in Replicate \"x\"");
    assert_eq!(errors.more(), 0);
}

#[test]
fn control_characters_are_not_printed() {
    let text = "inbound_audit {\n  monitors = \"\u{1b}[31m\t\u{7}\"\n}\n\u{1b}\n";
    for text in [text, &text[..text.len() - 2]] {
        let said = Config::parse(text, "mesh.hcl").unwrap_err().to_string();
        assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    }
}

#[test]
fn errors_beyond_the_bound_are_counted() {
    let keys: String = (0..bounds::CONFIG_ERRORS + 5).map(|n| format!("key{n} = 1\n")).collect();
    let errors = Config::parse(&keys, "mesh.hcl").unwrap_err();
    assert_eq!((errors.errors().len(), errors.more()), (bounds::CONFIG_ERRORS, 5));
    assert!(errors.to_string().ends_with("\n… and 5 more"));
}

#[test]
fn structures_beyond_the_bound_are_refused() {
    let file = |count: usize| {
        let stanzas: String =
            (0..count).map(|n| format!("Replicate \"n{n}\" {{\nclass = \"inbound_cidr\"\n}}\n")).collect();
        Config::parse(&format!("cluster {{\n{stanzas}}}\n"), "mesh.hcl")
    };
    assert_eq!(file(bounds::STRUCTURES).unwrap().structures.len(), bounds::STRUCTURES);
    let errors = file(bounds::STRUCTURES + 2).unwrap_err();
    let said: Vec<_> = errors.errors().iter().map(|error| (error.line, error.message.as_str())).collect();
    assert_eq!(said, [(2 + 3 * bounds::STRUCTURES, "more than 256 replicated objects")]);
}

#[test]
fn seeds_and_monitors_beyond_the_bounds_are_refused() {
    let list = |item: &str, count: usize| vec![item; count].join(", ");
    let text = format!(
        "node {{\n  seeds = [{}]\n}}\ninbound_audit {{\n  monitors = [{}]\n}}\n",
        list("\"a:1\"", bounds::SEEDS + 1),
        list("\"1,1\"", bounds::MONITORS + 1)
    );
    let said = Config::parse(&text, "mesh.hcl").unwrap_err().to_string();
    assert!(said.contains("mesh.hcl:2:11: 257 seeds, there may be 256"), "{said}");
    assert!(said.contains("mesh.hcl:5:14: 17 monitors, there may be 16"), "{said}");
}

#[test]
fn a_file_without_a_node_is_right_but_cannot_run() {
    let config = Config::parse("cluster {\n  Replicate \"inbound_cidr\" {}\n}\n", "mesh.hcl").unwrap();
    assert_eq!(
        config.require_node().unwrap_err().to_string(),
        "mesh.hcl:1:1: there is no node block, so there is nothing to run\n    \
         add one: node { … } with name, listen, seeds and tls; `tally init` writes whole files"
    );
}

#[test]
fn seeds_that_the_listener_cannot_dial_are_refused() {
    let said = |listen: &str, seed: &str| {
        let advertise = if listen.starts_with("[::]") { "advertise = \"192.0.2.1:4801\"" } else { "" };
        let text = format!(
            "node {{\n  name = \"a\"\n  listen = \"{listen}\"\n  {advertise}\n  seeds = [\"{seed}\"]\n  tls {{\n    ca = \"c\"\n    \
             cert = \"d\"\n    key = \"e\"\n  }}\n}}\n"
        );
        Config::parse(&text, "mesh.hcl").map(drop).map_err(|errors| errors.to_string())
    };
    let refused = said("127.0.0.1:4801", "[::1]:4802").unwrap_err();
    let message = "mesh.hcl:5:12: a node that listens on 127.0.0.1:4801 cannot dial the seed \"[::1]:4802\"";
    assert!(refused.starts_with(message), "{refused}");
    assert!(said("[::1]:4801", "127.0.0.1:4802").is_err());
    for (listen, seed) in [
        ("[::]:4801", "127.0.0.1:4802"),
        ("[::]:4801", "[::1]:4802"),
        ("127.0.0.1:4801", "192.0.2.1:4802"),
        ("[::1]:4801", "[2001:db8::1]:4802"),
        ("127.0.0.1:4801", "mx.example.net:4802"),
    ] {
        assert_eq!(said(listen, seed), Ok(()), "{listen} {seed}");
    }
}

#[test]
fn a_socket_path_longer_than_the_system_takes_is_refused() {
    let said = |file: &str, bytes: usize| {
        let text = format!(
            "node {{\n  name = \"a\"\n  listen = \"127.0.0.1:4801\"\n  admin = \"{}\"\n  tls {{\n    ca = \"c\"\n    \
             cert = \"d\"\n    key = \"e\"\n  }}\n}}\n",
            "s".repeat(bytes)
        );
        Config::parse(&text, file).map(drop).map_err(|errors| errors.to_string())
    };
    let longest = bounds::SOCKET_PATH_BYTES;
    assert_eq!(said("mesh.hcl", longest), Ok(()));
    // The path counts with the folder before it.
    let refused = said("mesh/mesh.hcl", longest).unwrap_err();
    assert!(refused.contains(&format!("the path of the socket has {} bytes", longest + 5)), "{refused}");
}
