//! The admin sockets of several nodes: a node answers for itself only, so `tally` asks each one over its own socket.

use std::path::PathBuf;

use tallymesh_schemas::admin::{Answer, Request};

use crate::client::Target;
use crate::failure::Failure;

/// A node, as the user named it, and how to ask it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) target: Target,
}

/// The node with this name, or with the socket of this path. Sockets of nodes are beside the asked node's, as `tally init` puts
/// them.
pub(super) fn one(asked: &Target, name: &str) -> Result<Named, Failure> {
    let socket = match (name.contains('/'), &asked.at) {
        (true, _) => PathBuf::from(name),
        (false, Some(at)) => at.with_file_name(format!("{name}.sock")),
        (false, None) => {
            let why =
                "where are the sockets of the nodes? Give the socket of one of them, --at DIR/NODE.sock, or paths";
            return Err(Failure::Input(why.to_owned()));
        }
    };
    Ok(Named { name: name.to_owned(), target: Target { at: Some(socket), timeout: asked.timeout } })
}

/// The named nodes; `all` stands for the members that the asked node knows.
pub(super) fn all(asked: &Target, names: &[String]) -> Result<Vec<Named>, Failure> {
    if names != ["all"] {
        return names.iter().map(|name| one(asked, name)).collect();
    }
    let members = asked.connect()?.one(&Request::Members, |answer| match answer {
        Answer::Members(members) => Some(members),
        _ => None,
    })?;
    let us = members.iter().find(|member| member.state == "self").map(|member| member.node.clone());
    let named = members.iter().map(|member| match Some(&member.node) == us.as_ref() {
        true => Ok(Named { name: member.node.to_string(), target: asked.clone() }),
        false => one(asked, member.node.as_str()),
    });
    named.collect()
}
