
# Samples: the examples of `tally COMMAND --help` use them. Change or remove them, on all nodes alike.

# A named series: events in windows of a minute, of which ten are kept. The type is "string" or "cidr".
audit_series "logins" {
  type = "string"
  interval = 60
  windows = 10
}

# A cache: keys and values on all nodes; the last write of a key wins.
Datasource "sessions" {}
cluster {
  Replicate "sessions" {
    type = "cache"
    parameters = "snapshot"
  }
}

# A gauge cache: counters by name that expire when no node updates them for `ttl` seconds.
gauge_cache "retries" {
  ttl = 3600
  replicate = "cluster"
}

# Throttles are counted in these; limits says what they allow.
cluster {
  Replicate "shared_named_throttles" {}
  Replicate "OBTM" {}
  Replicate "OBTC" {}
}
limits {
  # A throttle: 100 in a minute, in the whole cluster.
  throttle "campaign" {
    rate = "100/1m"
  }

  # Open connections from one IPv4 address and from its /24 block, and from an IPv6 /64 block.
  inbound "/32" { max_connections = 100 }
  inbound "/24" { max_connections = 1000 }
  inbound "/64" { max_connections = 1000 }

  # Permits are divided among founders: a limit that no partition exceeds.
  # founders = ["relay-0-1", "relay-0-2", "relay-0-3"]
  # permits "uploads" { maximum = 20 }
}
