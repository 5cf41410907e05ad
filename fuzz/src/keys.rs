//! What operators type: keys of every class, names of nodes and structures. Each has one form, and what is shown can be
//! typed again.

use std::str::FromStr;

use tallymesh_schemas::{Class, Kind, NodeName, StructureId, StructureName, bounds, key};

/// Reads a text as a key of every class and as a name, and bytes as a key from a peer.
pub fn run(bytes: &[u8]) {
    for kind in [Kind::CidrTree, Kind::GaugeTable, Kind::ThrottleTable] {
        match (key::check(kind, bytes), key::display(kind, bytes)) {
            (Ok(()), shown) => assert!(shown.is_ok(), "a key that is taken from a peer can be shown"),
            (Err(_), _) => assert!(kind != Kind::CidrTree || key::to_net(bytes).is_err()),
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for class in Class::ALL {
        read_key(class, text);
    }
    if let Ok(name) = NodeName::new(text) {
        assert!(name.as_str() == text && text.len() <= bounds::NODE_NAME_BYTES);
        assert_eq!(NodeName::from_str(&name.to_string()), Ok(name));
    }
    if let Ok(name) = StructureName::new(text) {
        assert!(name.as_str() == text && text.len() <= bounds::STRUCTURE_NAME_BYTES);
        assert_eq!(name.id(), StructureId::of(text));
    }
    assert_eq!(Class::from_name(text).is_some(), Class::ALL.iter().any(|class| class.name() == text));
}

fn read_key(class: Class, text: &str) {
    let key = match key::parse(class, text) {
        Ok(key) => key,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!((1..=bounds::KEY_BYTES).contains(&key.len()));
    assert_eq!(key::check(class.kind(), &key), Ok(()), "what is typed may be sent");
    let shown = key::display(class.kind(), &key).expect("what is typed can be shown");
    assert_eq!(key::parse(class, &shown).as_ref(), Ok(&key), "what is shown can be typed");
    if class.kind() == Kind::CidrTree {
        let net = key::to_net(&key).expect("the key of a block");
        let (again, len) = key::from_net(net);
        assert_eq!(&again[..len], &key[..]);
    }
}
