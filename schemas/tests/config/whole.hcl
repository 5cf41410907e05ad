# Every block and every key.
node {
  name = "relay-0-1"
  listen = "[::]:4801"
  advertise = "192.0.2.1:4801"
  seeds = ["relay-0-2.example.net:4802", "192.0.2.3:4803", "[2001:db8::4]:4804"]
  admin = "relay-0-1.sock"
  http = "127.0.0.1:9180"
  data_dir = "/var/lib/tallymesh"
  max_keys = 5000000
  max_bytes = 1000000000
  tls {
    ca = "ca.pem"
    cert = "pki/relay-0-1.pem"
    key = "/etc/tallymesh/relay-0-1.key"
  }
}

cluster {
  Replicate "inbound_cidr" {
    parameters = "snapshot"
    max_delay = 0.25
    max_pending = 100
    on_dead = "drop 1500ms"
    max_keys = 100000
  }
  Replicate outbound_cidr {
    class = "outbound_cidr"
    max_delay = 1
    on_dead = "drop"
  }
  Replicate "bounces" {
    class = "outbound_domains"
    on_dead = "hold"
  }
  Replicate "shared_named_throttles" { max_delay = 2 }
}

cluster {
  Replicate "OBTM" {
    max_pending = 7
    max_keys = 50
  }
  Replicate "OBTC" {}
  Replicate "metrics" {
    parameters = "permfail; transfail;delivery;rejection;reception;connect;audit_series;gauge_cache;"
  }
  Replicate "mycache" {
    type = "cache"
    parameters = "snapshot"
    max_size = 1000
  }
  Replicate "endless" {
    type = "cache"
    max_size = -1
  }
}

Datasource "mycache" {}
Datasource "endless" {}

inbound_audit {
  monitors = ["300,6", "3600, 24"]
  max_keys = 2000
}

audit_series "logins" {
  type = "string"
  interval = 60
  windows = 5
  max_keys = 3000
}

gauge_cache "sessions" {
  max_size = 10
  max_keys = 4000
}
