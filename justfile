# `just` lists what there is.

default:
    @just --list

# build the binary
build:
    cargo build --locked

# run flow: just flow run workflows/full.json
flow *ARGS:
    cargo run --locked --quiet -- {{ARGS}}

# all tests, or those whose name contains FILTER
test FILTER='':
    cargo test --locked {{FILTER}}

# format, lint
fix:
    cargo fmt
    cargo clippy --all-targets --locked

# rewrite generated files (schemas, docs/reference) and inline snapshots
update:
    FLOW_UPDATE=1 UPDATE_EXPECT=1 cargo test --locked

# everything CI does
ci:
    .ci/run

# licences, advisories and duplicates of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# documentation of the library
doc:
    cargo doc --no-deps --open

# random histories against the reference, and mutated workflows, caches and records; again with the seed that is printed:
# FLOW_SEED=N cargo test --test random, FLOW_FUZZ_SEED=N cargo test --test it fuzz::
fuzz HISTORIES='1000' CASES='20000':
    FLOW_HISTORIES={{HISTORIES}} cargo test --locked --test random -- --nocapture
    FLOW_FUZZ={{CASES}} cargo test --locked --test it fuzz:: -- --nocapture
