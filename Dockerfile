# apiproxy in two stages: the first builds with the same scripts as a checkout, the second holds the binary
# and the shared libraries it links, redis-server for the embedded store, and uacme for certificates.
FROM debian:trixie-slim AS build
WORKDIR /src
COPY scripts/install-deps.sh scripts/
RUN scripts/install-deps.sh run && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make -j"$(nproc)" && make install DESTDIR=/image PREFIX=/usr \
	&& install -D -m 644 LICENSE /image/usr/share/doc/apiproxy/LICENSE

FROM debian:trixie-slim
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl redis-server uacme \
	libcurl4t64 libmicrohttpd12t64 libhiredis1.1.0 libcjson1 libinih1 libjwt2 libssl3t64 libbrotli1 libzstd1 \
	libcrypt1 zlib1g && rm -rf /var/lib/apt/lists/* \
	&& useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin apiproxy \
	&& install -d -o apiproxy -g apiproxy -m 0700 /data
COPY --from=build /image/ /
USER 10001:10001
WORKDIR /data
VOLUME /data
ENV API_PROXY_DATA_DIR=/data
EXPOSE 8000
STOPSIGNAL SIGTERM
# PORT and API_PROXY_LISTEN move the port; with TLS on, set a health check of your own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --start-interval=1s --retries=3 \
	CMD ["sh", "-c", "listen=${API_PROXY_LISTEN:-:8000}; exec curl -fsS -o /dev/null \"http://localhost:${PORT:-${listen##*:}}/health\""]
ENTRYPOINT ["apiproxy"]
