# One line for each of the usual things; scripts/ has the rest, each with --help.
.PHONY: all exec-head stop test test-unit build docker-build docker-run-unit

all: ; scripts/cluster 4
exec-head: ; scripts/cluster --shell
stop: ; scripts/cluster --down
test: ; scripts/test
test-unit: ; cargo test --locked --lib
build: ; cargo build --release --locked --bins
docker-build: ; docker build -t corkboard .
docker-run-unit: ; docker run --rm corkboard make test-unit
