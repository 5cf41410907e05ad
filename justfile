# Short names for the commands of CONTRIBUTING.md. `just` (https://github.com/casey/just) is optional: each recipe is a command
# that you can type, and nothing else in the repository uses this file.

# lists the recipes
default:
    @just --list

# runs all tests but the canaries; with arguments, a part: just test -p tallymesh-engine
test *ARGS:
    cargo test {{ARGS}}

# checks formatting and lints, and denies warnings
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# builds the documentation, and denies warnings
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# runs a cluster of three nodes that breaks and heals
demo:
    cargo run --release --bin tally -- demo

# simulates clusters, one for each seed, and stops at the first that fails: just swarm 10000 0
swarm SEEDS="1000" FROM="0":
    cargo run --release -p tallymesh-harness --bin swarm -- --seeds {{SEEDS}} --from {{FROM}}

# prints the trace of one seed
seed SEED:
    cargo run --release -p tallymesh-harness --bin swarm -- --from {{SEED}} --trace

# breaks one rule of the engine at a time; a test has to notice each
canaries:
    cargo test -p tallymesh-harness --features canaries --test canaries -- --nocapture

# tries every interleaving of the concurrency models
loom:
    RUSTFLAGS="--cfg loom" cargo test -p tallymesh-engine --lib --release --target-dir target/loom models:: -- --nocapture

# fuzzes one target, into a folder below target/; needs cargo-fuzz and a C++ compiler: just fuzz messages 600
fuzz TARGET SECONDS="60":
    mkdir -p target/fuzz/{{TARGET}}
    cargo fuzz run -s none --features libfuzzer {{TARGET}} target/fuzz/{{TARGET}} fuzz/corpus/{{TARGET}} -- -max_total_time={{SECONDS}} -max_len=8192 -timeout=10 -rss_limit_mb=1500

# compares the costs with other products, and counts the instructions of the hot paths
bench:
    cargo run --release -p tallymesh-benches --bin compare
    cargo run --release -p tallymesh-benches --bin instructions

# makes every package that is published, and builds each from what is in it
packages:
    cargo package --workspace --exclude tallymesh-benches --exclude tallymesh-fuzz --allow-dirty --target-dir target/packages

# makes the Debian package; needs cargo-deb and dpkg
deb:
    cli/packaging/deb

# checks licences, sources and advisories of dependencies; needs cargo-deny
deny:
    cargo deny check

# runs everything that has to pass before a merge
ci:
    .ci/run
