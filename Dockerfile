# To build Corkboard and run its unit tests where there is docker; a cluster in it is `make` as everywhere else.
FROM rust:1.91-slim
RUN apt-get update && apt-get install -y --no-install-recommends busybox curl jq make procps util-linux && rm -rf /var/lib/apt/lists/*
WORKDIR /corkboard
COPY . .
RUN make build
CMD ["make", "test-unit"]
