//! State that a node's handles and its admin socket share: the structures and the cluster members.

use std::collections::BTreeMap;
#[cfg(feature = "http")]
use std::net::SocketAddr;
#[cfg(feature = "config")]
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tallymesh_engine::limiter::Limiter;
use tallymesh_engine::{Difference, Life, Series, Settings};
use tallymesh_schemas::{Actor, Class, NodeName, StructureId, bound};
use tallymesh_transport::Endpoint;

use crate::certificates::Certificates;
use crate::clock::Clock;
use crate::command::Status;
use crate::events::Announced;
use crate::gauge::GaugeCache;
use crate::limits::Limits;
use crate::member::Member;
use crate::object::Object;
use crate::object_error::ObjectError;
use crate::objects::Current;
#[cfg(feature = "state")]
use crate::state::SharedStanding;
use crate::throttle::{Permits, Throttle};

/// Has no channel to the driver, so that the driver notices when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) endpoint: Endpoint,
    pub(crate) current: Arc<Current>,
    pub(crate) limits: Limits,
    /// This node's configuration, which it compares with other nodes.
    pub(crate) settings: Arc<Settings>,
    /// The status of the saved state, if the node saves its state.
    #[cfg(feature = "state")]
    pub(crate) saving: Option<SharedStanding>,
    /// What all objects hold together, and may hold.
    #[cfg(any(feature = "admin", feature = "http"))]
    pub(crate) budget: Arc<tallymesh_engine::NodeBudget>,
    /// Whether the node has joined, and the stream of events.
    pub(crate) announced: Announced,
    /// The certificate in use.
    pub(crate) certificates: Arc<Certificates>,
    /// The seeds, as the configuration has them now.
    pub(crate) seeds: Mutex<Vec<String>>,
    /// The file that the node was configured from.
    #[cfg(feature = "config")]
    pub(crate) source: Option<PathBuf>,
    /// Where the node serves HTTP by TCP.
    #[cfg(feature = "http")]
    pub(crate) http: Mutex<Option<SocketAddr>>,
    /// Counters of the bounds reached by handles, on the admin socket and on the HTTP listener.
    pub(crate) tally: Arc<bound::Tally>,
}

/// The item with this name.
pub(crate) fn named<'a, T>(name: &str, all: impl Iterator<Item = (String, &'a T)>) -> Result<&'a T, ObjectError> {
    let all: Vec<_> = all.collect();
    if let Some((_, found)) = all.iter().find(|(known, _)| known == name) {
        return Ok(found);
    }
    let known = all.into_iter().map(|(known, _)| known).collect();
    Err(ObjectError::Unknown { name: name.to_owned(), known })
}

impl Shared {
    /// The limiters, in order of structure.
    fn limiters(&self) -> Vec<Arc<Limiter>> {
        self.current.get().limiters.values().cloned().collect()
    }

    pub(crate) fn limiter(&self, class: Class) -> Result<Arc<Limiter>, ObjectError> {
        let known = || self.objects().iter().map(|object| object.spec().name.to_string()).collect();
        let found = self.current.get().limiters.get(&StructureId::of(class.name())).cloned();
        found.ok_or_else(|| ObjectError::Unknown { name: class.name().to_owned(), known: known() })
    }

    /// The throttle of a name: a named throttle, or the throttle of a message or connection scope.
    pub(crate) fn throttle(&self, name: &str) -> Result<Throttle, ObjectError> {
        let now = self.clock.time();
        let limiters = self.limiters();
        let found = limiters.iter().find_map(|limiter| Some((limiter.resolve(name, now)?, limiter)));
        let (inner, limiter) = found.ok_or_else(|| {
            if let Some(error) = limiters.iter().find_map(|limiter| limiter.why_unresolved(name, now)) {
                return ObjectError::from(error);
            }
            let known = self.throttles().iter().map(|throttle| throttle.name().to_owned()).collect();
            ObjectError::NoThrottle { name: name.to_owned(), known }
        })?;
        Ok(Throttle::new(inner, Arc::clone(limiter), self.clock))
    }

    /// The throttles that are in use or declared, structure by structure.
    pub(crate) fn throttles(&self) -> Vec<Throttle> {
        let now = self.clock.time();
        let of = |limiter: &Arc<Limiter>| {
            let limiter = Arc::clone(limiter);
            let clock = self.clock;
            limiter.all(now).into_iter().map(move |inner| Throttle::new(inner, Arc::clone(&limiter), clock))
        };
        self.limiters().iter().flat_map(of).collect()
    }

    /// The permits of a name.
    pub(crate) fn permits_named(&self, name: &str) -> Result<Permits, ObjectError> {
        let all = self.permits();
        let found = all.iter().find(|permits| permits.name() == name).cloned();
        let known = || all.iter().map(|permits| permits.name().to_owned()).collect();
        found.ok_or_else(|| ObjectError::NoPermits { name: name.to_owned(), known: known() })
    }

    /// The permits that are declared or in use, in order of name.
    pub(crate) fn permits(&self) -> Vec<Permits> {
        let limiters = self.limiters();
        let pools = limiters.iter().flat_map(|limiter| limiter.pools().into_iter().map(move |pool| (pool, limiter)));
        pools.map(|(pool, limiter)| Permits::new(pool, Arc::clone(limiter), self.clock)).collect()
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor::new(self.endpoint.name().clone(), self.endpoint.incarnation())
    }

    /// The structures and the caches, in order of name.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let objects = self.current.get();
        let structures = objects.structures.values().cloned().map(Object::Structure);
        let mut list: Vec<_> = structures.chain(objects.caches.iter().cloned().map(Object::Cache)).collect();
        list.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
        list
    }

    /// The object of a name.
    pub(crate) fn object(&self, name: &str) -> Result<Object, ObjectError> {
        let objects = self.objects();
        named(name, objects.iter().map(|object| (object.spec().name.to_string(), object))).cloned()
    }

    pub(crate) fn gauge_cache(&self, name: &str) -> Result<GaugeCache, ObjectError> {
        let objects = self.current.get();
        let caches = objects.gauge_caches.iter().map(|cache| (cache.spec().name.to_string(), cache));
        Ok(GaugeCache::new(Arc::clone(named(name, caches)?), self.clock))
    }

    /// The series of a name, if it is not one of the audit.
    pub(crate) fn series_named(&self, name: &str) -> Result<Arc<Series>, ObjectError> {
        let objects = self.current.get();
        let all = objects.series.iter().filter(|series| !series.spec().name.is_metric());
        named(name, all.map(|series| (series.spec().name.to_string(), series))).cloned()
    }

    /// The members, with what the transport and the engine know of each.
    pub(crate) fn members(&self, status: &Status) -> Vec<Member> {
        let mut members: BTreeMap<NodeName, Member> = BTreeMap::new();
        for (name, incarnation, life) in &status.nodes {
            let actor = Actor::new(name.clone(), *incarnation);
            let build = status.builds.get(name).cloned().unwrap_or_default();
            let member = Member { actor, life: *life, addr: None, linked: false, rtt: None, traffic: None, build };
            members.insert(name.clone(), member);
        }
        for known in self.endpoint.members() {
            if let Some(member) = members.get_mut(&known.name) {
                (member.addr, member.linked) = (Some(known.addr), known.linked);
                (member.rtt, member.traffic) = (known.rtt, known.traffic);
            }
        }
        let us = Member {
            actor: status.actor.clone(),
            life: Life::Alive,
            addr: Some(self.endpoint.advertised()),
            linked: false,
            rtt: None,
            traffic: None,
            build: env!("CARGO_PKG_VERSION").to_owned(),
        };
        members.insert(status.actor.node.clone(), us);
        members.into_values().collect()
    }

    /// The differences between this node's configuration and that of others, in order: of the settings, and those that hard
    /// limits have found.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        let limiters = self.limiters();
        let limits = limiters.iter().flat_map(|limiter| limiter.differences());
        let mut all: Vec<_> = self.settings.differences().into_iter().chain(limits).collect();
        all.sort();
        all.dedup();
        all
    }
}
