//! The metrics of a node: name, kind, unit, labels and meaning of each. The text for scrapers and the page docs/metrics.md are
//! made from these definitions.

/// How a metric changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, and begins at zero with each run, object or link.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values by size.
    Histogram,
    /// The constant 1, with facts as labels.
    Info,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The name, without prefix, unit and the suffix of its kind.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Option<&'static str>,
    pub(crate) labels: &'static [&'static str],
    /// What it states, as a sentence.
    pub(crate) help: &'static str,
}

macro_rules! metrics {
    ($($group:literal { $($variant:ident: $kind:ident $name:literal $(in $unit:literal)? by [$($label:literal),*], $help:literal;)* })*) => {
        /// A metric. The order is that of the text for scrapers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[cfg_attr(not(feature = "state"), allow(dead_code, reason = "there is no saved state to measure"))]
        pub(crate) enum Metric {
            $($($variant,)*)*
        }

        impl Metric {
            /// What the metric is.
            pub(crate) fn definition(self) -> Definition {
                match self {
                    $($(Self::$variant => Definition {
                        name: $name,
                        kind: Kind::$kind,
                        unit: {
                            let unit: &[&'static str] = &[$($unit)?];
                            unit.first().copied()
                        },
                        labels: &[$($label),*],
                        help: $help,
                    },)*)*
                }
            }

            /// All metrics, in groups with a title.
            #[cfg(test)]
            pub(crate) const GROUPS: &'static [(&'static str, &'static [Self])] = &[$(($group, &[$(Self::$variant),*])),*];
        }
    };
}

metrics! {
    "The node" {
        Build: Info "build" by ["node", "version", "protocol"], "The node, its build, and the protocol version that it speaks.";
        Uptime: Gauge "uptime" in "seconds" by [], "Time since the start of the node.";
        Ready: Gauge "ready" by ["condition"], "1 while a condition of /readyz holds, else 0: join, snapshots or disk.";
        CertificateExpiry: Gauge "certificate_expiry_timestamp" in "seconds" by [],
            "Until when peers accept the node's certificate, in seconds since 1970.";
        Converged: Gauge "converged_timestamp" in "seconds" by [],
            "When a verification last found all members equal, in seconds since 1970; missing before the first time.";
        ConfigurationDifferences: Gauge "configuration_differences" by [],
            "Settings in which other live nodes differ from this node: tally verify names them.";
        BoundReached: Counter "bound_reached" by ["bound", "object"],
            "How often the node has reached a bound of docs/bounds.md and dropped or refused something; without an object for a bound of the whole node.";
        Keys: Gauge "keys" by [], "Keys of all objects with the live entries of caches, as the budget of the node counts them.";
        KeysMaximum: Gauge "keys_maximum" by [], "The most keys that the node may hold; missing without a budget.";
        Content: Gauge "content" in "bytes" by [], "Bytes of keys and values of all caches.";
        ContentMaximum: Gauge "content_maximum" in "bytes" by [], "The most of these bytes; missing without a budget.";
        KeysRefused: Counter "keys_refused" by [], "Changes of this node that failed because a budget had no room.";
        DeltasRefused: Counter "deltas_without_room" by [], "Deltas of peers that wait because a budget has no room.";
        HttpRequests: Counter "http_requests" by ["route", "code"], "Requests that the HTTP listener has answered.";
        HttpConnections: Gauge "http_connections" by [], "Connections of the HTTP listener, that of this scrape included.";
    }
    "The cluster" {
        Members: Gauge "members" by ["state"], "Nodes that this node knows, itself included: alive, suspect, dead or left.";
        Links: Gauge "links" by [], "Links to other nodes that are up.";
        LinksOpened: Counter "links_opened" by [], "Links that came up.";
        LinksClosed: Counter "links_closed" by [], "Links that went down.";
        Dials: Counter "dials" by [], "Connections that this node has tried.";
        DialsFailed: Counter "dials_failed" by [], "Connections that this node has tried and that did not become a link.";
        ConnectionsRefused: Counter "connections_refused" by ["reason"], "Connections that this node or the peer has refused.";
        AddressProofs: Counter "address_proofs" by [], "Incoming connections that had to prove their address first.";
        Datagrams: Counter "membership_datagrams" by ["direction"], "Datagrams of the membership.";
        DatagramsDropped: Counter "membership_datagrams_dropped" by ["reason"],
            "Datagrams of the membership that were malformed (bad), or whose receiver has no link (unlinked).";
        Frames: Counter "frames" by ["direction"], "Frames of the replication, of all links.";
        FramePayload: Counter "frame_payload" in "bytes" by ["direction"], "Bytes of their payload.";
        IdentityConflicts: Counter "identity_conflicts" by ["outcome"],
            "Claims that another process uses this node's name: the node continued as a new run (renewed), waits (delayed), or did not believe it (refused).";
        ClockSteps: Counter "clock_steps" by [], "Steps of more than a minute of the node's wall clock.";
        ClockOffsetBound: Gauge "clock_offset_bound" in "seconds" by [],
            "How far the clocks of peers may differ; missing on a node of which nothing depends on clocks.";
        WindowsAhead: Gauge "clock_windows_ahead" in "seconds" by [],
            "How far the clock for windows is ahead of the wall clock, because the wall clock was set back.";
        ClocksOff: Counter "clocks_off" by [], "Digests of peers whose clocks differ by more than the bound, without the first one of each period.";
    }
    "Peers" {
        PeerRoundTrip: Gauge "peer_round_trip" in "seconds" by ["peer"], "Round trip time of the link.";
        PeerDatagrams: Counter "peer_datagrams" by ["peer", "direction"], "UDP datagrams of the link, since it came up.";
        PeerBytes: Counter "peer_datagram" in "bytes" by ["peer", "direction"], "Bytes of their payload.";
        PeerFrames: Counter "peer_frames" by ["peer", "direction"], "Frames of the link, since it came up.";
        PeerFramePayload: Counter "peer_frame_payload" in "bytes" by ["peer", "direction"], "Bytes of their payload.";
        PeerQueue: Gauge "peer_queue" in "bytes" by ["peer"], "Bytes that wait to be sent on the link.";
        PeerLag: Gauge "peer_lag" in "versions" by ["peer"],
            "Changes of the peer that this node lacks, of all objects, by the peer's last statement over its link.";
        PeerStaleness: Gauge "peer_staleness" in "seconds" by ["peer"],
            "How long ago the stalest copy of the peer's rows was last confirmed as current, of the copies that count.";
        PeerClockOffset: Gauge "peer_clock_offset" in "seconds" by ["peer"], "How far the peer's clock is ahead of this node's clock.";
    }
    "Objects" {
        ObjectKeys: Gauge "object_keys" by ["object"], "Keys that this node holds, of a series the keys of each window.";
        ObjectKeysMaximum: Gauge "object_keys_maximum" by ["object"],
            "The most keys that this node may hold of the object, of a series in all windows; missing without a budget.";
        ObjectRows: Gauge "object_rows" by ["object"], "Rows of all nodes that this node holds.";
        ObjectNodes: Gauge "object_nodes" by ["object"], "Nodes whose rows count, this node included.";
        ObjectMemory: Gauge "object_memory" in "bytes" by ["object"], "Memory, without the overhead of the allocator.";
        ObjectPending: Gauge "object_pending_changes" by ["object"], "Changes of this node that wait to be sent.";
        ObjectChanges: Counter "object_changes" by ["object"], "Changes of this node's rows. A series has none: its windows come and go.";
        ObjectCommits: Counter "object_commits" by ["object"], "How often changed counts became rows. A series has none.";
        ObjectLag: Gauge "object_lag" in "versions" by ["object"],
            "Changes of all peers that this node lacks, by their last statements over links.";
        ObjectStaleness: Gauge "object_staleness" in "seconds" by ["object"],
            "How long ago the stalest copy that counts was last confirmed as current.";
    }
    "Caches" {
        CacheEntries: Gauge "cache_entries" by ["object"], "Entries that can be read.";
        CacheRemovals: Gauge "cache_removals" by ["object"], "Entries that are removed or have expired, and are not collected yet.";
        CacheContent: Gauge "cache_content" in "bytes" by ["object"], "Bytes of keys and values.";
        CacheRuns: Gauge "cache_runs" by ["object"], "Runs and nodes that the causal context names.";
        CacheEvictions: Counter "cache_evictions" by ["object"], "Entries that this node has removed to keep the cache within its bounds.";
    }
    "Replication" {
        Flushes: Counter "flushes" by [], "How often changes of an object were released to be sent.";
        Deltas: Counter "deltas" by ["direction"], "Deltas sent (out) and applied (in).";
        DeltaRows: Counter "delta_rows" in "bytes" by ["direction"], "Bytes of their rows.";
        DeltasUnasked: Counter "deltas_unasked" by [], "Deltas that this node had not asked for, and has ignored.";
        Gaps: Counter "gaps" by [], "Deltas that began after the applied version.";
        RowRequests: Counter "row_requests" by [], "Requests for missing rows that this node has sent.";
        Grafts: Counter "grafts" by [], "Requests for future rows that this node has sent.";
        DigestsSent: Counter "digests_sent" by [], "Digests sent.";
        Divergences: Counter "divergences" by [], "Copies that differed from their owner's rows at the same version. A snapshot repairs each.";
        Snapshots: Counter "snapshots_taken" by [], "Snapshots that have replaced a copy.";
        MessagesRefused: Counter "messages_refused" by [], "Messages of peers that this node has refused. It closes the link.";
        EntriesAhead: Counter "entries_ahead" by [], "Messages with cache entries that were written too far ahead of this node's clock.";
        BelowZero: Counter "gauges_below_zero" by [], "How often a node has taken a gauge below zero.";
        TotalsFull: Counter "totals_full" by [], "Additions that this node has refused because a total was at its bound.";
        Verifications: Counter "verifications" by ["outcome"], "Verifications that have ended: converged, not_converged or not_compared.";
        VerificationsRunning: Gauge "verifications_running" by [], "Verifications that are running.";
        Findings: Counter "verification_findings" by ["fault"], "Copies with a fault that verifications have found: lags, changes or differs.";
    }
    "The driver" {
        DriverStep: Histogram "driver_step" in "seconds" by [], "Time of a step of the driver, without the waiting before it.";
        EventsWaiting: Gauge "driver_events_waiting" by [], "Events of links that wait for the driver.";
        CommandsWaiting: Gauge "driver_commands_waiting" by [], "Commands of handles and clients that wait for the driver.";
    }
    "Limits" {
        Throttles: Gauge "throttles" by ["object"], "Throttles that exist on this node.";
        ThrottleDecisions: Counter "throttle_decisions" by ["object", "throttle", "decision"],
            "Requests that this node has admitted or refused; a use without a request counts as refused if it was beyond the limit.";
        ThrottleAvailable: Gauge "throttle_available" in "tokens" by ["object", "throttle"],
            "Tokens that are available on this node; negative when other nodes have used more than this node knew.";
        ThrottleShare: Gauge "throttle_share" in "ratio" by ["object", "throttle"], "This node's part of the limit.";
        ThrottleDemand: Gauge "throttle_demand" in "ratio" by ["object", "throttle"],
            "The part of a hard limit that this node could use.";
        ThrottleLent: Gauge "throttle_lent" in "ratio" by ["object", "throttle"], "The part of a hard limit that this node has lent.";
        ThrottleBorrowed: Gauge "throttle_borrowed" in "ratio" by ["object", "throttle"],
            "The part of a hard limit that this node has borrowed.";
        ThrottleOvershootBound: Gauge "throttle_overshoot_bound" in "tokens" by ["object", "throttle"],
            "The most that a soft limit can be exceeded by at this moment: the bound at worst of tally throttle explain.";
        PermitsMaximum: Gauge "permits_maximum" by ["permits"], "Permits of the whole cluster.";
        PermitsHeld: Gauge "permits_held" by ["permits"], "Permits on this node.";
        PermitsInUse: Gauge "permits_in_use" by ["permits"], "Permits on this node that are in use.";
        PermitsOpen: Gauge "permits_open" by ["permits"], "Permits in use in the whole cluster, as far as this node knows.";
    }
    "Saved state" {
        StateSavedAge: Gauge "state_saved_age" in "seconds" by [], "How long ago everything was saved.";
        StateFailing: Gauge "state_failing" by [], "1 while the node cannot save, else 0.";
        StateCommitsLost: Gauge "state_commits_lost" by [], "Commits that the node could not read when it started.";
    }
}
