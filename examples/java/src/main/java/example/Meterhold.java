package example;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import meterhold.v1.MeteringServiceGrpc;
import meterhold.v1.MeteringServiceGrpc.MeteringServiceBlockingStub;

/** A connection to a Meterhold server. Safe to share between threads; make one and keep it. */
final class Meterhold implements AutoCloseable {

  private static final Duration ATTEMPT_TIMEOUT = Duration.ofSeconds(3);
  private static final Duration OVERALL_TIMEOUT = Duration.ofSeconds(10); // replays included
  // How much later a deadline may pass at the server: a request takes a while to arrive.
  private static final Duration TRAVEL_TIME = ATTEMPT_TIMEOUT; // what takes longer counts as lost
  private static final Duration FIRST_WAIT = Duration.ofMillis(100);
  private static final Duration LONGEST_WAIT = Duration.ofSeconds(1);

  // What gRPC does by itself: spread calls over all servers, and repeat what was UNAVAILABLE. No
  // timeout belongs here; each call sets its own.
  private static final String SERVICE_CONFIG =
      """
      {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
          {
            "name": [{}],
            "retryPolicy": {
              "maxAttempts": 4,
              "initialBackoff": "0.02s",
              "maxBackoff": "0.2s",
              "backoffMultiplier": 2,
              "retryableStatusCodes": ["UNAVAILABLE"]
            }
          }
        ],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}
      }
      """;

  private final ManagedChannel channel;
  private final MeteringServiceBlockingStub stub;

  Meterhold(String address) {
    Map<String, ?> serviceConfig =
        new Gson().fromJson(SERVICE_CONFIG, new TypeToken<Map<String, ?>>() {});
    channel =
        Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()) // loopback only
            .defaultServiceConfig(serviceConfig)
            .keepAliveTime(20, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS)
            .build();
    stub = MeteringServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Makes a call, and makes it again with the very same request, and so with the same key, until
   * it is done or refused, or the overall timeout has passed.
   *
   * <p>Only for requests that have a key. A Debit without a {@code request_id} is charged again by
   * each replay.
   */
  <R> R replayed(Function<MeteringServiceBlockingStub, R> call)
      throws Failure, InterruptedException {
    Instant end = Instant.now().plus(OVERALL_TIMEOUT);
    // So long, an attempt that was not answered may still be carried out.
    Instant unknownUntil = Instant.MIN;
    for (Duration wait = FIRST_WAIT; ; wait = min(wait.multipliedBy(2), LONGEST_WAIT)) {
      Instant begun = Instant.now();
      Duration timeout = min(ATTEMPT_TIMEOUT, Duration.between(begun, end));
      Failure failure;
      try {
        return call.apply(stub.withDeadlineAfter(timeout));
      } catch (StatusRuntimeException error) {
        failure = Failure.of(error);
      }
      if (failure.outcome == Failure.Outcome.REFUSED && begun.isAfter(unknownUntil)) {
        throw failure;
      }
      if (failure.outcome == Failure.Outcome.UNKNOWN) {
        unknownUntil = begun.plus(timeout).plus(TRAVEL_TIME);
      }
      if (Instant.now().plus(wait).isAfter(end)) {
        // That this attempt did nothing says nothing of the ones before it.
        throw unknownUntil.equals(Instant.MIN) ? failure : failure.afterAnUnknownAttempt();
      }
      Thread.sleep(wait.toMillis());
    }
  }

  @Override
  public void close() throws InterruptedException {
    channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
  }

  private static Duration min(Duration one, Duration other) {
    return one.compareTo(other) < 0 ? one : other;
  }
}
