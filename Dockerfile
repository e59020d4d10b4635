# One image for serving, sweeping and migrating:
#   docker run … meterhold                     serves
#   docker run … meterhold sweep               sweeps
#   docker run … meterhold migrate             creates or upgrades the schema
# METERHOLD_DATABASE_URL names the database; the image has no embedded one.

FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY lock/server.txt lock/
RUN python -m venv /opt/meterhold \
 && /opt/meterhold/bin/pip install --no-cache-dir --require-hashes -r lock/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY server server
COPY migrations migrations
COPY lock/build.txt lock/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r lock/build.txt \
 && /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
 && /opt/meterhold/bin/pip install --no-cache-dir --no-deps /opt/wheel/*.whl

FROM python:3.13-slim-bookworm
COPY --from=build /opt/meterhold /opt/meterhold
ENV PATH=/opt/meterhold/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    METERHOLD_ADDRESS=0.0.0.0:7717 \
    METERHOLD_LOG_FORMAT=json
USER 65532:65532
EXPOSE 7717
STOPSIGNAL SIGTERM
ENTRYPOINT ["meterhold-server"]
CMD ["serve"]
