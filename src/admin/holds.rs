//! Takes a hold for a client.

use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_engine::{Hold, HoldError, Structure};
use tallymesh_schemas::{HoldLimit, Kind, MaskLimit, bounds, key};

use crate::admin::session::{Refused, Session};

impl Session {
    /// Counts one hold for a key, if all limits have room for it.
    pub(super) fn take_hold(&self, object: &str, text: &str, limits: &[HoldLimit]) -> Result<Hold, Refused> {
        if limits.len() > bounds::HOLD_LIMITS {
            let (given, most) = (limits.len(), bounds::HOLD_LIMITS);
            return Err(Refused::bad(format!("{given} limits for one hold; {most} are allowed")));
        }
        let structure = self.counting(object)?;
        let key = key::parse(structure.spec().class, text).map_err(Refused::bad)?;
        match structure.kind() {
            Kind::CidrTree => hold_address(&structure, key::to_net(&key).map_err(Refused::bad)?, limits),
            _ => self.hold_key(&structure, &key, limits),
        }
    }

    fn hold_key(&self, structure: &Arc<Structure>, key: &[u8], limits: &[HoldLimit]) -> Result<Hold, Refused> {
        let counter = structure.counter(key).map_err(Refused::change)?;
        let mut least = None;
        for limit in limits {
            match limit {
                HoldLimit::Key(limit) => least = Some(least.map_or(*limit, |least: i64| least.min(*limit))),
                HoldLimit::Mask(_) => {
                    let name = &structure.spec().name;
                    let why = format!("\"{name}\" does not count by address: write --limit N, without a mask");
                    return Err(Refused::bad(why));
                }
            }
        }
        let Some(limit) = least else { return Ok(counter.hold()) };
        counter.try_hold(limit).ok_or_else(|| {
            let total = counter.count(self.shared().clock.time()).total;
            Refused::no(format!("no room: {total} are counted and {limit} are allowed"))
        })
    }
}

fn hold_address(structure: &Arc<Structure>, net: IpNet, limits: &[HoldLimit]) -> Result<Hold, Refused> {
    if net.prefix_len() < net.max_prefix_len() {
        return Err(Refused::bad(format!(
            "a hold takes an address, and {net} is a block: hold the address of the connection, and limit its block with \
             --limit /{}=N",
            net.prefix_len()
        )));
    }
    let (addr, whole) = (net.addr(), net.max_prefix_len());
    let limits = limits.iter().map(|limit| match limit {
        HoldLimit::Key(limit) => MaskLimit::from((whole, *limit)),
        HoldLimit::Mask(mask) => *mask,
    });
    structure.try_hold_within(addr, limits).map_err(|error| match error {
        HoldError::Full { block, count, limit } if block == net => {
            Refused::no(format!("no room: {count} are counted and {limit} are allowed"))
        }
        HoldError::Full { block, count, limit } => {
            Refused::no(format!("no room in {block}: {count} are counted and {limit} are allowed"))
        }
        HoldError::Key(error) => Refused::change(error),
        error => Refused::bad(error),
    })
}
